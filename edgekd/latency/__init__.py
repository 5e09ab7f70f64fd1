"""Latency: what the machine is, how long a model takes on it, and the verdict on a budget."""
