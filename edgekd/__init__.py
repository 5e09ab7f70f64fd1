"""EdgeKD: a fine-tuned encoder, text and a latency budget in; a validated, deployable student out."""

import os
from typing import Any

# onnxruntime for Linux keeps a device's id and sends events unless it is told not to before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

# Of `edgekd.api`; those of its functions whose names are packages' are found there alone.
_API = ("compress", "load", "request", "teach", "validate")


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgekd import api

    return getattr(api, name)
