"""Reading an ONNX file, with one clear line where it is broken."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edgekd.errors import EdgekdError, UsageError, first_line

LARGEST_BYTES = 2**31 - 2**20
"""Weights that one ONNX file may hold: protobuf's limit, less room for the graph."""


def read_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file and check it against the ONNX specification.

    Returns:
        The whole model, weights included.

    Raises:
        UsageError: There is no such file.
        EdgekdError: The file is truncated, is no ONNX file, or breaks the specification.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such ONNX file")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        raise EdgekdError(f"{path}: not a whole ONNX model ({first_line(error)}); export it again") from error
    return model
