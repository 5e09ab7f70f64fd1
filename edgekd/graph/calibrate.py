"""Ranges of a model's activations on real texts, in batches: memory does not grow with the number of texts."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from edgekd.errors import EdgekdError, require
from edgekd.graph.check import enough_space, read_model
from edgekd.graph.quiet import quiet
from edgekd.settings.export import Calibration

_METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}


class _Once:
    """One batch, as onnxruntime's calibrators read it."""

    def __init__(self, batch: Mapping[str, NDArray[Any]]) -> None:
        self.batch: Mapping[str, NDArray[Any]] | None = batch

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        """The batch, then None."""
        batch, self.batch = self.batch, None
        return batch


def activation_ranges(
    source: Path,
    batches: Iterable[Mapping[str, NDArray[Any]]],
    method: Calibration = "minmax",
    nodes: tuple[str, ...] | None = ("MatMul",),
) -> Any:
    """Find the range of every activation that goes into or comes out of the products of a model.

    onnxruntime's calibrators keep all outputs of the data they are given until they have seen it whole, tens of GB
    for a few hundred texts; here each batch is folded into the ranges, or histograms, before the next one runs.

    Args:
        source: The FP32 model.
        batches: Model inputs, one mapping of input name to (batch, length) int64 a batch.
        method: "minmax" takes the extremes; "percentile" the 99.999th; "entropy" the range of least divergence.
        nodes: Kinds of nodes; None takes all.

    Returns:
        onnxruntime's `TensorsData`: a range for each tensor's name.

    Raises:
        UsageError: There is no such file.
        EdgekdError: The source is not a whole ONNX model, or there is no batch.
        UnavailableError: onnxruntime is not installed.
    """
    calibration = require("onnxruntime.quantization.calibrate", "cpu", "calibrate a model")
    model = read_model(source)
    inputs = {node.name for node in model.graph.input}
    # Stale shapes of an exporter stop the calibrator, which infers them anew.
    del model.graph.value_info[:]
    # It prints of each batch that it collects.
    with (
        tempfile.TemporaryDirectory(prefix="edgekd-") as folder, quiet(), contextlib.redirect_stdout(io.StringIO()),
        enough_space(Path(folder), source),
    ):  # fmt: skip
        plain = Path(folder, "plain.onnx")
        onnx.save(model, plain)
        del model
        calibrator = calibration.create_calibrator(
            plain,
            None if nodes is None else list(nodes),
            augmented_model_path=str(Path(folder, "augmented.onnx")),
            calibrate_method=getattr(calibration.CalibrationMethod, _METHODS[method]),
        )
        seen = 0
        for batch in batches:
            calibrator.collect_data(_Once({name: batch[name] for name in batch if name in inputs}))
            seen += 1
        if not seen:
            raise EdgekdError(f"{source}: no text to calibrate on")
        return calibrator.compute_data()
