from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.errors import EdgekdError, UsageError
from edgekd.graph.calibrate import activation_ranges
from edgekd.graph.parity import compare_logits, run_onnx
from edgekd.graph.quantize import quantizable, quantize_dynamic, quantize_like, quantize_static, reduces_range
from edgekd.latency.machine import detect_instruction_set
from edgekd.settings.export import GraphOptions
from edgekd.settings.shape import HeadShape

from .conftest import EVERY_TOKEN, LINEAR, make_batch, make_shape

HOST = detect_instruction_set()
"""Answers are compared on files made for this machine: one for VNNI saturates on a machine without it."""


@pytest.fixture
def quantized(student, tmp_path):
    """`quantized(shape)` gives the paths of a student and of its INT8 file."""

    def quantize(shape, *options, instruction_set=HOST, keep_float=()):
        source, _ = student(shape, *options)
        destination = tmp_path / "quantized.onnx"
        quantize_dynamic(source, destination, instruction_set=instruction_set, keep_float=keep_float)
        return source, destination

    return quantize


def nodes_of(path, kind):
    return {node.name.removesuffix("_quant") for node in onnx.load(path).graph.node if node.op_type == kind}


def weights_of(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def test_every_layer_and_the_embeddings_but_not_the_classifier(quantized):
    source, path = quantized(make_shape(embedding=10))
    assert nodes_of(path, "MatMulInteger") == {*LINEAR, "embeddings.projection", "head.dense"}
    assert "head.output" in nodes_of(path, "MatMul")
    weights = weights_of(path)
    assert weights["embeddings.word.weight_quantized"].dtype == np.uint8
    assert weights["embeddings.token_type.weight_quantized"].dtype == np.uint8
    assert weights["layers.0.ffn.up.weight_quantized"].dtype == np.int8
    # One scale a column.
    assert weights["layers.0.ffn.up.weight_scale"].shape == (40,)
    assert "layers.0.ffn.up.weight" not in weights
    assert path.stat().st_size < source.stat().st_size


@pytest.mark.parametrize("options", [GraphOptions(), GraphOptions(fused_qkv=False, residual="add", opset=20)])
@pytest.mark.parametrize(
    "head",
    [HeadShape(kind="sequence", labels=5, activation="tanh"), HeadShape(kind="token", labels=4), None],
    ids=["sequence", "token", "none"],
)
def test_it_runs_and_stays_close(quantized, options, head):
    shape = make_shape(head=head)
    source, path = quantized(shape, options)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    batches = [make_batch(shape, *size) for size in ((1, 7), (3, 12), (3, 5), (2, 24))]
    for plain, integer in zip(run_onnx(source, batches), run_onnx(path, batches), strict=True):
        width = plain.shape[-1]
        parity = compare_logits(plain.reshape(-1, width), integer.reshape(-1, width))
        assert 0 < parity.max_abs_gap < 0.2 * abs(plain).max()


def test_a_bare_encoder_keeps_nothing_in_float(quantized):
    _, path = quantized(make_shape(head=None))
    assert nodes_of(path, "MatMulInteger") == set(EVERY_TOKEN)


@pytest.mark.parametrize(
    ("instruction_set", "largest"), [("avx2", 64), ("avx512", 64), ("avx512_vnni", 127), ("arm64", 127)]
)
def test_weights_cannot_saturate_the_instruction_set(quantized, instruction_set, largest):
    _, path = quantized(make_shape(), instruction_set=instruction_set)
    stored = [w for name, w in weights_of(path).items() if name.endswith("_quantized") and w.dtype == np.int8]
    assert max(abs(w.astype(int)).max() for w in stored) == largest
    # Two products of u8 by these weights, as VPMADDUBSW adds them into 16 bits.
    assert (2 * 255 * largest <= 2**15 - 1) is (instruction_set in ("avx2", "avx512"))


def test_nodes_kept_in_float(quantized):
    _, path = quantized(make_shape(), keep_float=["layers.1.ffn.down", "embeddings.word"])
    assert nodes_of(path, "MatMulInteger") == {*LINEAR, "head.dense"} - {"layers.1.ffn.down"}
    assert weights_of(path)["embeddings.word.weight"].dtype == np.float32


def test_same_bytes(quantized, tmp_path):
    source, path = quantized(make_shape())
    quantize_dynamic(source, tmp_path / "again.onnx", instruction_set=HOST)
    assert path.read_bytes() == (tmp_path / "again.onnx").read_bytes()


SILENCE = """
import logging, sys
from pathlib import Path
from edgekd.graph.quantize import quantize_dynamic, quantize_like
before = list(logging.root.handlers), logging.root.level, logging.root.manager.disable
quantize_dynamic(Path(sys.argv[1]), Path(sys.argv[2]), instruction_set="avx2")
assert before == (list(logging.root.handlers), logging.root.level, logging.root.manager.disable)
"""


@pytest.mark.parametrize("instruction_set", ["avx512_vnni", "avx2"])
def test_the_quick_file_differs_in_its_numbers_alone(quantized, tmp_path, instruction_set):
    source, exact = quantized(make_shape(), instruction_set=instruction_set)
    quantize_like(source, tmp_path / "quick.onnx", instruction_set=instruction_set)
    one, other = (onnx.load(path).graph for path in (exact, tmp_path / "quick.onnx"))
    assert [(n.op_type, n.name, *n.input, *n.output) for n in one.node] == [
        (n.op_type, n.name, *n.input, *n.output) for n in other.node
    ]
    shapes = [{t.name: (t.data_type, *t.dims) for t in graph.initializer} for graph in (one, other)]
    assert shapes[0] == shapes[1]
    assert any("scale" in name and len(size) == 2 for name, size in shapes[0].items())


def test_silent_and_leaves_logging_alone(student, tmp_path):
    """In a process of its own: pytest's log handlers would hide it."""
    source, _ = student(make_shape())
    command = [sys.executable, "-c", SILENCE, source, tmp_path / "int8.onnx"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_gemm_is_quantised_and_the_last_one_kept(tmp_path):
    """A foreign graph: Gemm for two-dimensional products, and stale shapes."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[batch_size, 8] x) => (float[batch_size, 3] logits) <float[99] h>
        { [first] h = Gemm(x, w, b)  [last] logits = Gemm<transB = 1>(h, v) }"""
    )
    for name, shape in {"w": (8, 8), "b": (8,), "v": (3, 8)}.items():
        values = np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.save(model, tmp_path / "gemm.onnx")
    quantize_dynamic(tmp_path / "gemm.onnx", tmp_path / "int8.onnx", instruction_set=HOST)
    assert nodes_of(tmp_path / "int8.onnx", "MatMulInteger") == {"first_MatMul"}
    assert nodes_of(tmp_path / "int8.onnx", "MatMul") == {"last_MatMul"}
    batch = {"x": np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)}
    plain, integer = (run_onnx(tmp_path / name, [batch])[0] for name in ("gemm.onnx", "int8.onnx"))
    np.testing.assert_allclose(plain, integer, atol=0.1)


def test_bad_requests(student, tmp_path):
    source, _ = student(make_shape())
    with pytest.raises(UsageError, match="'sse2': choose one of arm64, avx2, avx512, avx512_vnni"):
        quantize_dynamic(source, tmp_path / "x.onnx", instruction_set="sse2")
    with pytest.raises(UsageError, match=r"no node 'layers\.9\.ffn\.up' to keep"):
        quantize_dynamic(source, tmp_path / "x.onnx", instruction_set="avx2", keep_float=["layers.9.ffn.up"])
    source.write_bytes(source.read_bytes()[:-100])
    with pytest.raises(EdgekdError, match="not a whole ONNX model"):
        quantize_dynamic(source, tmp_path / "x.onnx", instruction_set="avx2")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("per_channel", [True, False])
def test_static(student, tmp_path, per_channel):
    shape = make_shape()
    source, _ = student(shape)
    batches = [make_batch(shape, *size) for size in ((1, 7), (3, 12), (3, 5), (2, 24))]
    path = tmp_path / "static.onnx"
    quantize_static(
        source, path, instruction_set=HOST, ranges=activation_ranges(source, batches),
        keep_float=["layers.1.ffn.up"], per_channel=per_channel,
    )  # fmt: skip
    model = onnx.load(path)
    onnx.checker.check_model(model)
    makers = {output: node for node in model.graph.node for output in node.output}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in makers]
    integer = {node.name for node in products if makers[node.input[1]].op_type == "DequantizeLinear"}
    assert integer == {*LINEAR, "head.dense"} - {"layers.1.ffn.up"}
    scales = weights_of(path)["layers.0.ffn.up.weight_scale"]
    assert scales.shape == ((40,) if per_channel else ())
    assert weights_of(path)["embeddings.word.weight_quantized"].itemsize == 1
    for plain, made in zip(run_onnx(source, batches), run_onnx(path, batches), strict=True):
        assert 0 < compare_logits(plain, made).max_abs_gap < 0.2 * abs(plain).max()


def test_static_for_avx2_has_weights_of_seven_bits(student, tmp_path):
    shape = make_shape()
    source, _ = student(shape)
    ranges = activation_ranges(source, [make_batch(shape, 2, 12)])
    quantize_static(source, tmp_path / "s.onnx", instruction_set="avx2", ranges=ranges)
    assert np.abs(weights_of(tmp_path / "s.onnx")["layers.0.ffn.up.weight_quantized"].astype(int)).max() <= 64


def test_what_is_quantised_can_be_asked_for(student):
    source, _ = student(make_shape(embedding=10))
    assert quantizable(source) == [
        "embeddings.word", "embeddings.token_type", "embeddings.projection", *LINEAR, "head.dense",
    ]  # fmt: skip


def test_only_sets_that_saturate_lose_a_bit():
    assert [reduces_range(name) for name in ("arm64", "avx2", "avx512", "avx512_vnni")] == [False, True, True, False]
    with pytest.raises(UsageError, match="sse2"):
        reduces_range("sse2")
