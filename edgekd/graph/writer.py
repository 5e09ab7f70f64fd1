"""A student's shape and weights to ONNX, written node by node.

One architecture needs no general exporter: this takes milliseconds where torch.onnx takes seconds, leaves no
stale value_info to trip onnxruntime's quantiser, and chooses the forms that onnxruntime fuses well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import EdgekdError
from edgekd.graph.check import LARGEST_BYTES
from edgekd.settings.export import GraphOptions
from edgekd.settings.shape import Activation, EncoderShape
from edgekd.store import replacing

WRITER_VERSION: int = 2
"""Raised whenever the written graph may run at another speed: measured layer costs are keyed by it."""

Weights = Mapping[str, NDArray[np.float32]]

# Far below any score, so that a padded token's weight is exactly 0, and still finite in FP16.
_MASKED = -10000.0
# Prime, so that no two rows of a matrix are the same.
_DRAWN = 65_537
_DEFAULT = GraphOptions()


def random_weights(shape: EncoderShape, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Draw weights for a graph that is only timed.

    Returns:
        One float32 array a name of `shape.weight_shapes()`: normal values of deviation 0.02, norm weights 1.
    """
    # One short draw repeated: tens of millions of normal values would take longer than writing the graph.
    drawn = np.random.default_rng(seed).standard_normal(_DRAWN, dtype=np.float32) * np.float32(0.02)
    weights: dict[str, NDArray[np.float32]] = {}
    start = 0
    for name, size in shape.weight_shapes().items():
        if name.endswith("norm.weight"):
            weights[name] = np.ones(size, np.float32)
        else:
            weights[name] = np.resize(np.roll(drawn, -start), size)
            start += math.prod(size)
    return weights


def write_student(shape: EncoderShape, weights: Weights, options: GraphOptions = _DEFAULT) -> onnx.ModelProto:
    """Write a student as an ONNX model. The same arguments give the same bytes.

    Inputs are `shape.inputs`, int64 of (batch_size, sequence_length), both dynamic. The output is `logits`,
    (batch_size, labels) or (batch_size, sequence_length, labels) by the head's kind, and for a joint head
    `slot_logits`, (batch_size, sequence_length, slots); or `last_hidden_state`, (batch_size, sequence_length, hidden),
    where the shape has no head. Linear weights lie in the file as (in, out); the MatMul node of a linear layer carries
    the layer's name, such as "layers.0.ffn.up", or "layers.0.attention.qkv" for the three in one.

    Where the head reads the first token alone, the last layer's keys and values are of all tokens, and everything
    after them of the first: the same logits, without the work that no output depends on. The two in one are named
    "layers.5.attention.kv" there.

    Args:
        weights: One array a name of `shape.weight_shapes()`, linear weights (out, in) as in torch.

    Returns:
        The model; `onnx.save` writes it to one file.

    Raises:
        EdgekdError: The weights do not fit the shape, or the model would pass ONNX's 2 GB a file.
    """
    _check_weights(shape, weights)
    graph = _Graph(shape, weights, options)
    hidden = graph.embeddings()
    mask = graph.mask()
    for layer in range(shape.depth):
        hidden = graph.attention(layer, hidden, mask)
        hidden = graph.ffn(layer, hidden)
    if shape.head is not None:
        graph.head(hidden)
        if shape.head.slots:
            graph.proto.node[-1].output[0] = graph.proto.output[0].name
            graph.slots(hidden)
    # The last node written is the output, whatever the shape ends in.
    graph.proto.node[-1].output[0] = graph.proto.output[-1].name
    return graph.model


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph to a file, whole or not at all."""
    with replacing(path) as file:
        file.write_bytes(model.SerializeToString(deterministic=True))


def _check_weights(shape: EncoderShape, weights: Weights) -> None:
    expected = shape.weight_shapes()
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unknown:
        what, names = ("lack", missing) if missing else ("have the unknown", unknown)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise EdgekdError(f"the weights {what} {names[0]}{more}: they belong to another shape than {shape.describe()}")
    for name, size in expected.items():
        if tuple(weights[name].shape) != size:
            raise EdgekdError(
                f"the weight {name} is {tuple(weights[name].shape)} where {shape.describe()} needs {size}"
            )
    if shape.parameters() * 4 > LARGEST_BYTES:
        raise EdgekdError(
            f"a model of {shape.parameters() / 1e6:.0f}M parameters passes the 2 GB of one ONNX file: "
            "use a smaller vocabulary or width"
        )


def _empty_model(shape: EncoderShape, opset: int) -> onnx.ModelProto:
    """A model with inputs and output, and nothing between."""
    tokens: list[str | int | None] = ["batch_size", "sequence_length"]
    name, axes = "last_hidden_state", [*tokens, shape.hidden]
    if shape.head is not None:
        name, axes = "logits", [*(tokens if shape.head.kind == "token" else tokens[:1]), shape.head.labels]
    inputs = [helper.make_tensor_value_info(i, TensorProto.INT64, tokens) for i in shape.inputs]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)]
    if shape.head is not None and shape.head.slots:
        axes = [*tokens, shape.head.slots]
        outputs.append(helper.make_tensor_value_info("slot_logits", TensorProto.FLOAT, axes))
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(
        helper.make_graph([], "student", inputs, outputs),
        opset_imports=opsets,
        # The lowest that the opset allows: the newest one would shut out older runtimes for nothing.
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="edgekd",
        producer_version=str(WRITER_VERSION),
    )


class _Graph:
    """The model written so far; each method appends a part and returns its output's name."""

    def __init__(self, shape: EncoderShape, weights: Weights, options: GraphOptions) -> None:
        self.shape = shape
        self.weights = weights
        self.options = options
        self.model = _empty_model(shape, options.opset)
        # Appended to in place: onnx.helper would copy the weights once more at each level.
        self.proto = self.model.graph
        self.constants: set[str] = set()

    def embeddings(self) -> str:
        """(batch_size, sequence_length, hidden)."""
        words = self._node("Gather", "embeddings.word", self._weight("embeddings.word.weight"), "input_ids")
        length = self._node("Shape", "sequence_length", "input_ids", start=1, end=2)
        table = self._weight("embeddings.position.weight")
        positions = self._node("Slice", "embeddings.position", table, self._integers(0), length)
        x = self._node("Add", "embeddings.word_position", words, positions)
        if self.shape.token_types:
            table = self._weight("embeddings.token_type.weight")
            types = self._node("Gather", "embeddings.token_type", table, "token_type_ids")
            x = self._node("Add", "embeddings.sum", x, types)
        x = self._norm("embeddings.norm", x)
        if self.shape.embedding != self.shape.hidden:
            x = self._linear("embeddings.projection", x)
        return x

    def mask(self) -> str:
        """What is added to all scores, (batch_size, 1, 1, sequence_length): 0 where a token counts."""
        kept = self._node("Cast", "mask.kept", "attention_mask", to=TensorProto.FLOAT)
        padded = self._node("Sub", "mask.padded", self._float(1.0), kept)
        bias = self._node("Mul", "mask.bias", padded, self._float(_MASKED))
        return self._node("Unsqueeze", "mask", bias, self._integers(1, 2))

    def attention(self, layer: int, x: str, mask: str) -> str:
        """Self-attention of one layer with its residual and norm: of the first token alone where no other is read."""
        name, heads, size = f"layers.{layer}.attention", self.shape.heads[layer], self.shape.head_size
        parts = [f"{name}.{part}" for part in ("query", "key", "value")]
        if self.shape.pooled and layer == self.shape.depth - 1:
            keys_values = self._projected(name, x, parts[1:], heads * size)
            x = self._node("Slice", f"{name}.first", x, self._integers(0), self._integers(1), self._integers(1))
            projected = [self._linear(parts[0], x), *keys_values]
        else:
            projected = self._projected(name, x, parts, heads * size)
        # Keys transposed: (batch_size, heads, head_size, sequence_length).
        orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        query, key, value = (
            self._heads(part, y, heads, order) for part, y, order in zip(parts, projected, orders, strict=True)
        )
        scores = self._node("MatMul", f"{name}.scores", query, key)
        scores = self._node("Mul", f"{name}.scaled", scores, self._float(1 / math.sqrt(size)))
        scores = self._node("Softmax", f"{name}.softmax", self._node("Add", f"{name}.masked", scores, mask))
        context = self._node("MatMul", f"{name}.context", scores, value)
        context = self._node("Transpose", f"{name}.context.tokens", context, perm=[0, 2, 1, 3])
        context = self._node("Reshape", f"{name}.context.join", context, self._integers(0, 0, heads * size))
        return self._residual_norm(name, self._linear(f"{name}.output", context), x)

    def ffn(self, layer: int, x: str) -> str:
        """Feed-forward part of one layer with its residual and norm."""
        name = f"layers.{layer}.ffn"
        neurons = self._activation(f"{name}.activation", self._linear(f"{name}.up", x), self.shape.activation)
        return self._residual_norm(name, self._linear(f"{name}.down", neurons), x)

    def head(self, x: str) -> str:
        """Logits from the last hidden states."""
        head = self.shape.head
        assert head is not None
        if head.pool == "mean":
            count = self._node("ReduceSum", "head.tokens", "mask.kept", self._integers(1), keepdims=1)
            share = self._node(
                "Unsqueeze", "head.shares", self._node("Div", "head.share", "mask.kept", count), self._integers(1)
            )
            x = self._node("Squeeze", "head.mean", self._node("MatMul", "head.means", share, x), self._integers(1))
        elif head.kind != "token":
            # Before any product: where the layers computed all tokens, the head needs but one.
            first = self._constant("first", np.array(0, np.int64))
            x = self._node("Gather", "head.first_token", x, first, axis=1)
        if head.activation is not None:
            x = self._activation("head.activation", self._linear("head.dense", x), head.activation)
        return self._linear("head.output", x)

    def slots(self, x: str) -> str:
        """Logits of every token's slot from the last hidden states."""
        return self._linear("head.slots", x)

    def _linear(self, name: str, x: str, parts: Sequence[str] = ()) -> str:
        """`x` times one weight, or times the weights of `parts` side by side."""
        parts = parts or [name]
        weight = np.concatenate([self.weights[f"{part}.weight"] for part in parts], dtype=np.float32).T
        bias = np.concatenate([self.weights[f"{part}.bias"] for part in parts], dtype=np.float32)
        product = self._node("MatMul", name, x, self._constant(f"{name}.weight", weight))
        return self._node("Add", f"{name}.add", product, self._constant(f"{name}.bias", bias))

    def _projected(self, attention: str, x: str, parts: Sequence[str], size: int) -> list[str]:
        """`x` through each of the layers `parts`, of `size` outputs each: in one product where the options say so."""
        if not self.options.fused_qkv:
            return [self._linear(part, x) for part in parts]
        initials = "".join(part.removeprefix(f"{attention}.")[0] for part in parts)
        joint = self._linear(f"{attention}.{initials}", x, parts)
        return self._split(f"{attention}.split", joint, [size] * len(parts))

    def _heads(self, name: str, x: str, heads: int, order: list[int]) -> str:
        """(batch_size, sequence_length, heads * head_size) as four axes, in `order`."""
        split = self._integers(0, 0, heads, self.shape.head_size)
        return self._node("Transpose", f"{name}.heads", self._node("Reshape", f"{name}.split", x, split), perm=order)

    def _residual_norm(self, name: str, x: str, residual: str) -> str:
        kind = {"sum": "Sum", "add": "Add"}[self.options.residual]
        return self._norm(f"{name}.norm", self._node(kind, f"{name}.residual", x, residual))

    def _norm(self, name: str, x: str) -> str:
        scale, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._node("LayerNormalization", name, x, scale, bias, axis=-1, epsilon=self.shape.norm_eps)

    def _activation(self, name: str, x: str, kind: Activation) -> str:
        if kind == "relu":
            return self._node("Relu", name, x)
        if kind == "tanh":
            return self._node("Tanh", name, x)
        if self.options.opset >= 20:
            return self._node("Gelu", name, x, approximate="none" if kind == "gelu" else "tanh")
        return self._erf_gelu(name, x) if kind == "gelu" else self._tanh_gelu(name, x)

    def _erf_gelu(self, name: str, x: str) -> str:
        """0.5 x (1 + erf(x / sqrt 2)), in the order of operations that onnxruntime recognises as Gelu."""
        scaled = self._node("Div", f"{name}.scaled", x, self._float(math.sqrt(2)))
        gate = self._node("Add", f"{name}.gate", self._node("Erf", f"{name}.erf", scaled), self._float(1.0))
        return self._node("Mul", name, self._node("Mul", f"{name}.gated", x, gate), self._float(0.5))

    def _tanh_gelu(self, name: str, x: str) -> str:
        """0.5 x (1 + tanh(sqrt(2 / pi) x (1 + 0.044715 x x))), in onnxruntime's order of FastGelu."""
        cubic = self._node("Mul", f"{name}.linear", x, self._float(0.044715))
        cubic = self._node("Add", f"{name}.cubic", self._node("Mul", f"{name}.square", cubic, x), self._float(1.0))
        slope = self._node("Mul", f"{name}.slope", x, self._float(math.sqrt(2 / math.pi)))
        tanh = self._node("Tanh", f"{name}.tanh", self._node("Mul", f"{name}.inner", slope, cubic))
        gate = self._node("Add", f"{name}.gate", tanh, self._float(1.0))
        return self._node("Mul", name, self._node("Mul", f"{name}.half", x, self._float(0.5)), gate)

    def _node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.proto.node.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def _split(self, name: str, x: str, sizes: list[int]) -> list[str]:
        outputs = [f"{name}.{i}" for i in range(len(sizes))]
        inputs = [x, self._integers(*sizes)]
        self.proto.node.append(helper.make_node("Split", inputs, outputs, name=name, axis=-1))
        return outputs

    def _weight(self, name: str) -> str:
        return self._constant(name, np.asarray(self.weights[name], np.float32))

    def _integers(self, *values: int) -> str:
        return self._constant("integers." + ".".join(map(str, values)), np.array(values, np.int64))

    def _float(self, value: float) -> str:
        return self._constant(f"float.{value:.7g}", np.array(value, np.float32))

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self.constants:
            self.constants.add(name)
            self.proto.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name
