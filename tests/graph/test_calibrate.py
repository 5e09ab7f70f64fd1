from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import EdgekdError
from edgekd.graph.calibrate import activation_ranges
from edgekd.graph.parity import run_onnx

from .conftest import make_batch, make_shape


def test_extremes_are_those_of_all_batches(student, capsys):
    shape = make_shape(head=None)
    path, _ = student(shape)
    batches = [make_batch(shape, 2, length, seed=length) for length in (5, 9, 24)]
    ranges = activation_ranges(path, batches, "minmax", nodes=("LayerNormalization",))
    outputs = np.concatenate([rows.reshape(-1) for rows in run_onnx(path, batches)])
    lowest, highest = ranges["last_hidden_state"].range_value
    assert (lowest, highest) == (pytest.approx(outputs.min()), pytest.approx(outputs.max()))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_histograms_stay_within_the_extremes(student, method, capsys):
    shape = make_shape()
    path, _ = student(shape)
    batches = [make_batch(shape, 2, length, seed=length) for length in (5, 9, 24)]
    wide = activation_ranges(path, batches, "minmax")
    found = activation_ranges(path, batches, method)
    name = "layers.0.ffn.activation"
    assert found[name].range_value[0] >= wide[name].range_value[0] - 1e-3
    assert found[name].range_value[1] <= wide[name].range_value[1] + 1e-3
    assert found[name].range_value[0] < found[name].range_value[1]
    assert capsys.readouterr().out == ""


def test_batches_are_taken_one_at_a_time(student, monkeypatch):
    """Memory is flat only if no batch's outputs outlive it."""
    from onnxruntime.quantization import calibrate

    held = []
    collect = calibrate.HistogramCollector.collect

    def spy(self, values):
        held.append(max(len(arrays) for arrays in values.values()))
        return collect(self, values)

    monkeypatch.setattr(calibrate.HistogramCollector, "collect", spy)
    shape = make_shape()
    path, _ = student(shape)
    activation_ranges(path, (make_batch(shape, 1, 6, seed=i) for i in range(5)), "percentile")
    assert held == [1] * 5


def test_no_text(student):
    path, _ = student(make_shape())
    with pytest.raises(EdgekdError, match="no text to calibrate"):
        activation_ranges(path, [])
