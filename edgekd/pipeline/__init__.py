"""Joining the stages: compress, its retries, the chain of assistants, the family, and the result they add up to."""
