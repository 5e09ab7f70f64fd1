"""Generic text chosen by its likeness to the target text, from pools of any size."""
