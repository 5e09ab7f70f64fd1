"""INT8 quantisation of an ONNX file, dynamic and static, on top of onnxruntime's quantiser."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekd.errors import UsageError, require
from edgekd.graph.check import enough_space, read_model
from edgekd.graph.quiet import quiet
from edgekd.graph.writer import save_model

QUANTIZER_VERSION = 1
"""Raised by hand when the same model would be quantised otherwise."""

# Does the target need weights of 7 bits? Without VNNI, x86 multiplies u8 by s8 with VPMADDUBSW, which adds
# two products into 16 bits and saturates: 2 * 255 * 127 does not fit, 2 * 255 * 64 does. VNNI and ARM add
# into 32 bits.
_REDUCE_RANGE = {"arm64": False, "avx2": True, "avx512": True, "avx512_vnni": False}
_PRODUCTS = ("MatMul", "Gemm")


def reduces_range(instruction_set: str) -> bool:
    """Whether a target of these instructions gets weights of 7 bits, since 8 would saturate there.

    Raises:
        UsageError: No such instruction set.
    """
    if instruction_set not in _REDUCE_RANGE:
        raise UsageError(f"instruction set {instruction_set!r}: choose one of {', '.join(_REDUCE_RANGE)}")
    return _REDUCE_RANGE[instruction_set]


def quantize_dynamic(
    source: Path,
    destination: Path,
    *,
    instruction_set: str,
    keep_float: Sequence[str] = (),
    per_channel: bool = True,
) -> None:
    """Quantise an ONNX file to INT8: weights ahead of time, activations as they come.

    Products with a constant weight become u8 activations by s8 weights, one scale a column: one scale a
    tensor is a few percent faster and ruins BERT-like models. Embeddings become u8 tables. The product that
    yields the logits stays FP32: it is a thousandth of the work, and its rounding would go straight into the
    answer.

    Args:
        source: The FP32 model.
        instruction_set: What the target, not this machine, computes with: "arm64", "avx2", "avx512" or
            "avx512_vnni".
        keep_float: Names of further nodes to leave in FP32, such as "layers.0.ffn.down".
        per_channel: One scale a column of each weight, not one a weight.

    Raises:
        UsageError: No such source, instruction set or node.
        EdgekdError: The source is not a whole ONNX model.
        UnavailableError: onnxruntime is not installed.
    """
    reduce_range = reduces_range(instruction_set)

    def quantize(plain: Path, quantized: Path, kept: list[str]) -> None:
        quantization = require("onnxruntime.quantization", "cpu", "quantise a model")
        quantization.quantize_dynamic(
            plain,
            quantized,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=per_channel,
            reduce_range=reduce_range,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=kept,
            # Where it cannot infer a type, for nodes outside ONNX's own set.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )

    _quantize(source, destination, keep_float, quantize)


def quantize_static(
    source: Path,
    destination: Path,
    *,
    instruction_set: str,
    ranges: Any,
    keep_float: Sequence[str] = (),
    per_channel: bool = True,
) -> None:
    """Quantise an ONNX file to INT8 by ranges of the activations that were found beforehand.

    The same products as `quantize_dynamic`, between QuantizeLinear and DequantizeLinear nodes, their outputs left in
    FP32: the next node is a bias or a norm, which needs them so.

    Args:
        source: The FP32 model.
        instruction_set: As for `quantize_dynamic`.
        ranges: What `calibrate.activation_ranges` found for this source.
        keep_float: As for `quantize_dynamic`.
        per_channel: As for `quantize_dynamic`.

    Raises:
        UsageError: No such source, instruction set or node.
        EdgekdError: The source is not a whole ONNX model.
        UnavailableError: onnxruntime is not installed.
    """
    reduce_range = reduces_range(instruction_set)

    def quantize(plain: Path, quantized: Path, kept: list[str]) -> None:
        quantization = require("onnxruntime.quantization", "cpu", "quantise a model")
        module = require("onnxruntime.quantization.qdq_quantizer", "cpu", "quantise a model")
        model = require("onnxruntime.quantization.quant_utils", "cpu", "quantise a model").load_model_with_shape_infer(
            plain
        )
        quantizer = module.QDQQuantizer(
            model,
            per_channel,
            reduce_range,
            quantization.QuantType.QInt8,
            quantization.QuantType.QUInt8,
            ranges,
            [],
            # Scores and contexts too: a product of two activations gains nothing.
            [*kept, *_without_weight(model)],
            ["MatMul", "Gather"],
            {"DefaultTensorType": onnx.TensorProto.FLOAT, "OpTypesToExcludeOutputQuantization": ["MatMul", "Gather"]},
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(str(quantized), False)

    _quantize(source, destination, keep_float, quantize)


def quantize_like(source: Path, destination: Path, *, instruction_set: str) -> None:
    """`quantize_dynamic` for a file whose numbers mean nothing, only its speed: ten times as fast.

    The same nodes on tensors of the same shapes and types; one scale is found a tensor, and stands in every column.

    Args:
        source: The FP32 model, its weights random.
        instruction_set: As for `quantize_dynamic`.

    Raises:
        UsageError: No such source or instruction set.
        EdgekdError: The source is not a whole ONNX model.
        UnavailableError: onnxruntime is not installed.
    """
    quantize_dynamic(source, destination, instruction_set=instruction_set, per_channel=False)
    model = onnx.load(destination)
    _repeat_scales(model)
    save_model(model, destination)


def quantizable(source: Path) -> list[str]:
    """Names of the nodes of an FP32 file that become INT8, in the order in which they run.

    Raises:
        UsageError: There is no such file.
        EdgekdError: It is not a whole ONNX model.
    """
    model = read_model(source)
    constants = {tensor.name for tensor in model.graph.initializer}
    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    kept = set(_classifier(model))
    return [
        node.name
        for node in model.graph.node
        if node.name not in kept
        and (
            (node.op_type in _PRODUCTS and node.input[1] in constants)
            or (node.op_type == "Gather" and node.input[0] in floats)
        )
    ]


def _quantize(
    source: Path, destination: Path, keep_float: Sequence[str], quantize: Callable[[Path, Path, list[str]], None]
) -> None:
    """Hand a clean copy of the source to onnxruntime's quantiser, and write a clean copy of what it made."""
    model = read_model(source)
    unknown = sorted(set(keep_float) - {node.name for node in model.graph.node})
    if unknown:
        raise UsageError(f"{source}: no node {unknown[0]!r} to keep in FP32")
    kept = [*keep_float, *_classifier(model)]
    # Stale shapes of an exporter stop the quantiser, which infers them anew.
    del model.graph.value_info[:]
    with tempfile.TemporaryDirectory(prefix="edgekd-") as folder, quiet(), enough_space(Path(folder), source):
        # By file: given a model in memory, the quantiser would copy it twice more.
        plain, quantized = Path(folder, "plain.onnx"), Path(folder, "quantized.onnx")
        onnx.save(model, plain)
        # The quantiser first makes a MatMul of every Gemm, under another name.
        quantize(plain, quantized, [*kept, *(f"{name}_MatMul" for name in kept)])
        model = onnx.load(quantized)
    del model.graph.value_info[:], model.metadata_props[:]
    save_model(model, destination)


def _without_weight(model: onnx.ModelProto) -> list[str]:
    """Names of the products of two activations."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [n.name for n in model.graph.node if n.op_type == "MatMul" and n.input[1] not in constants]


def _repeat_scales(model: onnx.ModelProto) -> None:
    """Give every column of a quantised product the scale and zero point of the whole."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "MatMulInteger":
            continue
        columns = tensors[node.input[1]].dims[1]
        base = node.input[1].removesuffix("_quantized")
        for name in (f"{base}_scale", f"{base}_zero_point"):
            value = onnx.numpy_helper.to_array(tensors[name]).reshape(-1)
            if len(value) == 1:
                tensors[name].CopyFrom(onnx.numpy_helper.from_array(np.repeat(value, columns), name))


def _classifier(model: onnx.ModelProto) -> list[str]:
    """Names of the products that yield the logits: from each output back to the nearest with a constant weight."""
    constants = {tensor.name for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    found = []
    for output in model.graph.output:
        if not output.name.endswith("logits"):
            continue
        reached = [output.name]
        for name in reached:
            node = makers.get(name)
            if node is not None and node.op_type in _PRODUCTS and node.input[1] in constants:
                found.append(node.name)
                break
            reached += node.input if node is not None else ()
    return found
