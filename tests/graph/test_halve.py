from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.errors import EdgekdError
from edgekd.graph.halve import halve
from edgekd.graph.parity import compare_logits, run_onnx

from .conftest import make_batch, make_shape, make_weights


def batches(shape):
    return [make_batch(shape, 3, 12), make_batch(shape, 1, 7)]


def replace(path, name, value):
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, np.float32), name))
    onnx.save(model, path)


def test_half_the_size_and_nearly_the_same(student, tmp_path):
    shape = make_shape()
    path, _ = student(shape)
    made = halve(path, tmp_path / "half.onnx", batches(shape))
    assert (made.masks, made.kept) == ((), ())
    weights = [t for t in onnx.load(tmp_path / "half.onnx").graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert not weights
    assert onnx.load(tmp_path / "half.onnx").graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    for exact, half in zip(
        run_onnx(path, batches(shape)), run_onnx(tmp_path / "half.onnx", batches(shape)), strict=True
    ):
        assert 0 < compare_logits(exact, half).max_abs_gap < 0.02


def test_a_mask_of_fp32s_lowest_value_stays_finite(student, tmp_path):
    shape = make_shape()
    path, _ = student(shape)
    exact = run_onnx(path, batches(shape))
    replace(path, "float.-10000", np.finfo(np.float32).min)
    made = halve(path, tmp_path / "half.onnx", batches(shape))
    assert made.masks == ("float.-10000",)
    values = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert values["float.-10000"] == -10000
    for before, half in zip(exact, run_onnx(tmp_path / "half.onnx", batches(shape)), strict=True):
        assert compare_logits(before, half).max_abs_gap < 0.02


def test_activations_beyond_the_range_stay_in_fp32(student, tmp_path):
    shape = make_shape(activation="relu")
    weights = make_weights(shape)
    # Neurons of 1e5 and more, which the next product makes small again.
    for part, factor in (("up.weight", 4e4), ("up.bias", 4e4), ("down.weight", 1 / 4e4)):
        weights[f"layers.1.ffn.{part}"] = weights[f"layers.1.ffn.{part}"] * np.float32(factor)
    path, _ = student(shape, weights=weights)
    made = halve(path, tmp_path / "half.onnx", batches(shape))
    assert {"layers.1.ffn.up", "layers.1.ffn.activation", "layers.1.ffn.down"} <= set(made.kept)
    assert "layers.0.ffn.up" not in made.kept
    for exact, half in zip(
        run_onnx(path, batches(shape)), run_onnx(tmp_path / "half.onnx", batches(shape)), strict=True
    ):
        assert compare_logits(exact, half).max_abs_gap < 0.05


def test_a_weight_beyond_the_range_is_refused(student, tmp_path):
    shape = make_shape()
    weights = make_weights(shape)
    weights["layers.0.ffn.up.bias"][3] = 7e4
    path, _ = student(shape, weights=weights)
    with pytest.raises(EdgekdError, match=r"layers\.0\.ffn\.up\.bias holds 7e\+04"):
        halve(path, tmp_path / "half.onnx", batches(shape))
