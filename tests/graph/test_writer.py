from __future__ import annotations

import collections

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from edgekd.errors import EdgekdError
from edgekd.graph.parity import run_onnx
from edgekd.graph.quantize import quantize_dynamic
from edgekd.graph.writer import random_weights, save_model, write_student
from edgekd.models.student import from_weights
from edgekd.runtime.encodings import joined_logits
from edgekd.settings.export import GraphOptions
from edgekd.settings.shape import HeadShape

from .conftest import LINEAR, make_batch, make_shape, make_weights
from .reference import forward

SHAPES = {
    "sequence": {},
    "token": {"head": HeadShape(kind="token", labels=4)},
    "token with dense": {"head": HeadShape(kind="token", labels=4, activation="gelu")},
    "sequence without dense": {"head": HeadShape(kind="sequence", labels=2)},
    "mean": {"head": HeadShape(kind="sequence", labels=3, pool="mean")},
    "mean with dense": {"head": HeadShape(kind="sequence", labels=3, pool="mean", activation="tanh")},
    "no head": {"head": None},
    "projection": {"embedding": 10},
    "no token types": {"token_types": 0},
    "gelu_tanh": {"activation": "gelu_tanh"},
    "relu": {"activation": "relu", "head": HeadShape(kind="sequence", labels=3, activation="relu")},
    "tanh": {"activation": "tanh"},
    "one layer, wide eps": {"heads": (2,), "ffn": (9,), "norm_eps": 0.1},
}
SIZES = [(1, 1), (1, 7), (3, 12), (3, 5), (2, 24)]


def optimized_ops(path, tmp_path):
    """Node types, and their names, that onnxruntime really runs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return collections.Counter(n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node)


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("opset", [17, 20])
def test_equals_torch(student, changes, opset):
    shape = make_shape(**changes)
    path, weights = student(shape, GraphOptions(opset=opset))
    onnx.checker.check_model(onnx.load(path), full_check=True)
    batches = [make_batch(shape, *size) for size in SIZES]
    for batch, output in zip(batches, run_onnx(path, batches), strict=True):
        expected = forward(shape, weights, **batch)
        assert output.dtype == np.float32
        assert output.shape == expected.shape
        assert abs(expected).max() > 0.3
        np.testing.assert_allclose(output, expected, atol=1e-5, rtol=1e-5)


def test_joint_heads_equal_those_of_a_sequence_and_of_tokens(student):
    joint = make_shape(head=HeadShape(kind="joint", labels=3, slots=4, activation="tanh"))
    path, weights = student(joint)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [output.name for output in model.graph.output] == ["logits", "slot_logits"]
    whole = make_shape(head=HeadShape(kind="sequence", labels=3, activation="tanh"))
    words = make_shape(head=HeadShape(kind="token", labels=4))
    renamed = weights | {f"head.output.{part}": weights[f"head.slots.{part}"] for part in ("weight", "bias")}
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    torch_model = from_weights(joint, weights, [str(i) for i in range(7)])
    for size in SIZES:
        batch = make_batch(joint, *size)
        logits, slots = session.run(None, batch)
        np.testing.assert_allclose(logits, forward(whole, weights, **batch), atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(slots, forward(words, renamed, **batch), atol=1e-5, rtol=1e-5)
        expected = torch_model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits
        np.testing.assert_allclose(joined_logits([logits, slots]), expected.detach().numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fused_qkv", [True, False])
@pytest.mark.parametrize("residual", ["sum", "add"])
@pytest.mark.parametrize("opset", [17, 18, 19, 20, 21])
def test_options_change_no_answer(student, fused_qkv, residual, opset):
    shape = make_shape()
    path, weights = student(shape, GraphOptions(fused_qkv=fused_qkv, residual=residual, opset=opset))
    batch = make_batch(shape, 3, 11)
    np.testing.assert_allclose(run_onnx(path, [batch])[0], forward(shape, weights, **batch), atol=1e-5, rtol=1e-5)
    model = onnx.load(path)
    assert model.opset_import[0].version == opset
    names = {node.name for node in model.graph.node}
    assert ("layers.0.attention.qkv" in names) is fused_qkv
    assert ("layers.0.attention.query" in names) is not fused_qkv


@pytest.mark.parametrize("fused_qkv", [True, False])
@pytest.mark.parametrize(
    ("head", "alone"),
    [
        (HeadShape(kind="sequence", labels=3, activation="tanh"), True),
        (HeadShape(kind="token", labels=3), False),
        (HeadShape(kind="joint", labels=3, slots=2), False),
        (None, False),
    ],
    ids=["sequence", "token", "joint", "none"],
)
def test_the_last_layer_computes_only_what_the_head_reads(student, tmp_path, head, alone, fused_qkv):
    shape = make_shape(head=head)
    path, _ = student(shape, GraphOptions(fused_qkv=fused_qkv))
    model = onnx.load(path)
    watched = [f"layers.{i}.{part}.norm" for i in (1, 2) for part in ("attention", "ffn")]
    made = {output for node in model.graph.node for output in node.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in watched if name in made)
    onnx.save(model, tmp_path / "watched.onnx")
    session = ort.InferenceSession(str(tmp_path / "watched.onnx"), providers=["CPUExecutionProvider"])
    tokens = {
        output.name: found.shape[1]
        for output, found in zip(session.get_outputs(), session.run(None, make_batch(shape, 2, 9)), strict=True)
        if output.name in watched
    }
    last = 1 if alone else 9
    expected = dict(zip(watched, (9, 9, last, last), strict=True))
    assert tokens == {name: expected[name] for name in tokens}
    assert len(tokens) == (4 if head else 3)


def test_padding_changes_no_answer(student):
    shape = make_shape()
    path, _ = student(shape)
    short = make_batch(shape, 1, 6)
    padded = {
        name: np.concatenate([value, np.full((1, 9), 1 - (name == "attention_mask"))], axis=1)
        for name, value in short.items()
    }
    one, other = run_onnx(path, [short, padded])
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_text_past_the_positions_is_refused(student):
    shape = make_shape()
    path, _ = student(shape)
    with pytest.raises(Exception, match=r"embeddings\.word_position"):
        run_onnx(path, [make_batch(shape, 1, shape.positions + 1)])


def test_signature(student):
    def axes(value):
        return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]

    graph = onnx.load(student(make_shape())[0]).graph
    assert {value.name: axes(value) for value in (*graph.input, *graph.output)} == {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", "sequence_length"],
        "token_type_ids": ["batch_size", "sequence_length"],
        "logits": ["batch_size", 5],
    }
    assert not graph.value_info
    graph = onnx.load(student(make_shape(head=None, token_types=0))[0]).graph
    assert [value.name for value in graph.input] == ["input_ids", "attention_mask"]
    assert axes(graph.output[0]) == ["batch_size", "sequence_length", 24]
    assert graph.output[0].name == "last_hidden_state"


def test_same_bytes():
    shape = make_shape()
    one = write_student(shape, make_weights(shape)).SerializeToString()
    assert one == write_student(shape, make_weights(shape)).SerializeToString()
    assert one != write_student(shape, make_weights(shape, seed=1)).SerializeToString()


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    shape = make_shape()
    model, path = write_student(shape, make_weights(shape)), tmp_path / "model.onnx"
    save_model(model, path)
    assert onnx.load(path) == model
    whole = path.read_bytes()

    def interrupted(self, data):
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", interrupted)
    with pytest.raises(OSError, match="No space left"):
        save_model(write_student(shape, make_weights(shape, seed=1)), path)
    assert path.read_bytes() == whole


def test_runtime_fuses_gelu(student, tmp_path):
    for opset in (17, 20):
        ops = optimized_ops(student(make_shape(), GraphOptions(opset=opset))[0], tmp_path)
        assert ops["Gelu"] + ops["BiasGelu"] == 3
        assert ops["Erf"] == 0
        shape = make_shape(activation="gelu_tanh")
        ops = optimized_ops(student(shape, GraphOptions(opset=opset))[0], tmp_path)
        assert ops["FastGelu"] == 3


@pytest.mark.parametrize("int8", [False, True])
def test_runtime_never_fuses_the_residual_with_the_norm(student, tmp_path, int8):
    def fused(residual):
        path, _ = student(make_shape(), GraphOptions(residual=residual))
        if int8:
            quantize_dynamic(path, path, instruction_set="avx512_vnni")
        plain = optimized_ops(path, tmp_path)["SkipLayerNormalization"]
        # Whoever infers shapes on the bundle's file, as optimum does, makes the fusion possible.
        onnx.shape_inference.infer_shapes_path(path, path)
        return plain, optimized_ops(path, tmp_path)["SkipLayerNormalization"]

    assert fused("sum") == (0, 0)
    # The day this fails, the runtime has changed, and the default wants measuring again.
    assert fused("add") == (0, 6)


def test_runtime_fuses_int8_products_with_scales_and_biases(student, tmp_path):
    path, _ = student(make_shape())
    quantize_dynamic(path, path, instruction_set="avx512_vnni")
    ops = optimized_ops(path, tmp_path)
    assert ops["DynamicQuantizeMatMul"] == len(LINEAR) + 1
    assert (ops["MatMulInteger"], ops["Erf"], ops["Gelu"]) == (0, 0, 3)


def test_old_runtimes_may_read_it():
    shape = make_shape()
    assert write_student(shape, make_weights(shape)).ir_version == 8
    assert write_student(shape, make_weights(shape), GraphOptions(opset=21)).ir_version == 10


def test_random_weights():
    shape = make_shape(embedding=10)
    weights = random_weights(shape)
    assert {name: value.shape for name, value in weights.items()} == shape.weight_shapes()
    assert all(value.dtype == np.float32 for value in weights.values())
    assert (weights["layers.1.ffn.norm.weight"] == 1).all()
    assert 0.015 < weights["layers.0.ffn.up.weight"].std() < 0.025
    query, key = weights["layers.0.attention.query.weight"], weights["layers.0.attention.key.weight"]
    assert abs(query - key).max() > 0.01
    again, other = random_weights(shape), random_weights(shape, seed=1)
    assert all((again[name] == value).all() for name, value in weights.items())
    assert (other["layers.0.ffn.up.weight"] != weights["layers.0.ffn.up.weight"]).any()


def test_weights_of_another_shape():
    shape = make_shape()
    weights = make_weights(shape)
    with pytest.raises(EdgekdError, match=r"lack embeddings\.projection\.bias and 1 more: .*3 layers x 24"):
        write_student(make_shape(embedding=10), weights)
    with pytest.raises(EdgekdError, match=r"have the unknown pooler"):
        write_student(shape, weights | {"pooler": weights["head.output.bias"]})
    with pytest.raises(EdgekdError, match=r"layers\.1\.ffn\.up\.weight is \(16, 24\) where .* needs \(17, 24\)"):
        write_student(make_shape(ffn=(40, 17, 28)), weights)


def test_a_model_past_two_gigabytes_is_refused():
    shape = make_shape(vocabulary=3_000_000, embedding=256)
    # Broadcast, so that the weights take no memory.
    weights = {name: np.broadcast_to(np.float32(0), size) for name, size in shape.weight_shapes().items()}
    with pytest.raises(EdgekdError, match="2 GB of one ONNX file"):
        write_student(shape, weights)
