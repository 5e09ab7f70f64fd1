"""Are two models the same function? The gap of their logits, and running an ONNX file to get them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import EdgekdError, UsageError, first_line, require
from edgekd.onnx_session import session_options
from edgekd.records.export import Parity


def compare_logits(reference: NDArray[Any], candidate: NDArray[Any]) -> Parity:
    """Compare the logits of two models on the same rows.

    Args:
        reference: Logits, (rows, labels).
        candidate: Logits, (rows, labels).

    Returns:
        The comparison.

    Raises:
        EdgekdError: The shapes differ or are not (rows, labels), there is no row, or a logit is not finite.
    """
    if reference.shape != candidate.shape or reference.ndim != 2 or reference.size == 0:
        raise EdgekdError(
            f"logits to compare must be two arrays (rows, labels), got {reference.shape} and {candidate.shape}"
        )
    for name, logits in (("reference", reference), ("candidate", candidate)):
        broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if broken.size:
            raise EdgekdError(
                f"the {name}'s logits hold NaN or infinity in {broken.size} of {len(logits)} rows, "
                f"first in row {broken[0] + 1}: its weights are broken, or the training diverged"
            )
    gap = np.abs(reference.astype(np.float64) - candidate.astype(np.float64)).max()
    agreement = (reference.argmax(axis=1) == candidate.argmax(axis=1)).mean()
    return Parity(rows=len(reference), max_abs_gap=float(gap), label_agreement=float(agreement))


def load_session(path: Path, threads: int = 1) -> Any:
    """Open an ONNX file in plain onnxruntime on the CPU.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        UsageError: There is no such file.
        EdgekdError: onnxruntime cannot load it.
        UnavailableError: onnxruntime is not installed.
    """
    ort = require("onnxruntime", "cpu", "run an ONNX model")
    if not path.is_file():
        raise UsageError(f"{path}: no such ONNX file")
    try:
        return ort.InferenceSession(str(path), session_options(threads=threads), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        raise EdgekdError(f"{path}: onnxruntime cannot load it ({first_line(error)}); export it again") from error


def run_onnx(path: Path, batches: Iterable[Mapping[str, NDArray[Any]]], threads: int = 1) -> list[NDArray[np.float32]]:
    """Run an ONNX file on batches in plain onnxruntime on the CPU.

    Args:
        batches: One mapping of input name to int64 array (batch, length) a batch. What the model does not
            take is left out, so that one tokenizer's output serves models with and without token types.

    Returns:
        The first output of each batch, in order.

    Raises:
        UsageError: There is no such file.
        EdgekdError: onnxruntime cannot load or run it, or a batch lacks one of its inputs.
        UnavailableError: onnxruntime is not installed.
    """
    session = load_session(path, threads)
    names = [node.name for node in session.get_inputs()]
    outputs: list[NDArray[np.float32]] = []
    for batch in batches:
        missing = [name for name in names if name not in batch]
        if missing:
            raise EdgekdError(f"{path}: the batch lacks the model's input {missing[0]}")
        try:
            outputs.append(session.run(None, {name: batch[name] for name in names})[0])
        except Exception as error:  # as above
            raise EdgekdError(f"{path}: onnxruntime cannot run it ({first_line(error)})") from error
    return outputs
