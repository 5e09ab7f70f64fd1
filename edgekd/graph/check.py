"""Reading an ONNX file, with one clear line where it is broken."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edgekd.errors import EdgekdError, UsageError, first_line

LARGEST_BYTES = 2**31 - 2**20
"""Weights that one ONNX file may hold: protobuf's limit, less room for the graph."""

# A disk with less than this is full, whatever has been given back since.
_ROOM = 2**22


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


@contextlib.contextmanager
def enough_space(folder: Path, source: Path) -> Iterator[None]:
    """Where onnx's C++ wrote a file half, for want of space, and did not say so: say it."""
    try:
        yield
    except DecodeError as error:
        if shutil.disk_usage(folder).free < 2 * source.stat().st_size + _ROOM:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder)) from error
        raise
