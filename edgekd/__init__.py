"""EdgeKD: a fine-tuned encoder, text and a latency budget in; a validated, deployable student out."""

from typing import Any

__version__ = "0.1.0"

# Of `edgekd.api`; those of its functions whose names are packages' are found there alone.
_API = ("compress", "load", "request", "teach", "validate")


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgekd import api

    return getattr(api, name)
