"""EdgeKD: a fine-tuned encoder, text and a latency budget in; a validated, deployable student out."""

__version__ = "0.1.0"
