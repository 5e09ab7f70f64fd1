"""Teacher assistants: which there are, the rules that choose, their chain, and their shared elastic run."""
