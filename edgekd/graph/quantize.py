"""Dynamic INT8 quantisation of an ONNX file, on top of onnxruntime's quantiser."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from edgekd.errors import UsageError, require
from edgekd.graph.check import read_model
from edgekd.graph.quiet import quiet
from edgekd.graph.writer import save_model

QUANTIZER_VERSION = 1
"""Raised by hand when the same model would be quantised otherwise."""

# Does the target need weights of 7 bits? Without VNNI, x86 multiplies u8 by s8 with VPMADDUBSW, which adds
# two products into 16 bits and saturates: 2 * 255 * 127 does not fit, 2 * 255 * 64 does. VNNI and ARM add
# into 32 bits.
_REDUCE_RANGE = {"arm64": False, "avx2": True, "avx512": True, "avx512_vnni": False}
_PRODUCTS = ("MatMul", "Gemm")


def quantize_dynamic(source: Path, destination: Path, *, instruction_set: str, keep_float: Sequence[str] = ()) -> None:
    """Quantise an ONNX file to INT8: weights ahead of time, activations as they come.

    Products with a constant weight become u8 activations by s8 weights, one scale a column: one scale a
    tensor is a few percent faster and ruins BERT-like models. Embeddings become u8 tables. The product that
    yields the logits stays FP32: it is a thousandth of the work, and its rounding would go straight into the
    answer.

    Args:
        source: The FP32 model.
        destination: File to write.
        instruction_set: What the target, not this machine, computes with: "arm64", "avx2", "avx512" or
            "avx512_vnni".
        keep_float: Names of further nodes to leave in FP32, such as "layers.0.ffn.down".

    Raises:
        UsageError: No such source, instruction set or node.
        EdgekdError: The source is not a whole ONNX model.
        UnavailableError: onnxruntime is not installed.
    """
    _quantize(source, destination, instruction_set, keep_float, per_channel=True)


def quantize_like(source: Path, destination: Path, *, instruction_set: str) -> None:
    """`quantize_dynamic` for a file whose numbers mean nothing, only its speed: ten times as fast.

    The same nodes on tensors of the same shapes and types; one scale is found a tensor, and stands in every column.

    Args:
        source: The FP32 model, its weights random.
        destination: File to write.
        instruction_set: As for `quantize_dynamic`.

    Raises:
        UsageError: No such source or instruction set.
        EdgekdError: The source is not a whole ONNX model.
        UnavailableError: onnxruntime is not installed.
    """
    _quantize(source, destination, instruction_set, (), per_channel=False)


def _quantize(
    source: Path, destination: Path, instruction_set: str, keep_float: Sequence[str], *, per_channel: bool
) -> None:
    if instruction_set not in _REDUCE_RANGE:
        raise UsageError(f"instruction set {instruction_set!r}: choose one of {', '.join(_REDUCE_RANGE)}")
    model = read_model(source)
    unknown = sorted(set(keep_float) - {node.name for node in model.graph.node})
    if unknown:
        raise UsageError(f"{source}: no node {unknown[0]!r} to keep in FP32")
    kept = [*keep_float, *_classifier(model)]
    # Stale shapes of an exporter stop the quantiser, which infers them anew.
    del model.graph.value_info[:]
    with tempfile.TemporaryDirectory(prefix="edgekd-") as folder, quiet():
        quantization = require("onnxruntime.quantization", "cpu", "quantise a model")
        # By file: given a model in memory, the quantiser would copy it twice more.
        plain, quantized = Path(folder, "plain.onnx"), Path(folder, "quantized.onnx")
        onnx.save(model, plain)
        quantization.quantize_dynamic(
            plain,
            quantized,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=per_channel,
            reduce_range=_REDUCE_RANGE[instruction_set],
            weight_type=quantization.QuantType.QInt8,
            # The quantiser first makes a MatMul of every Gemm, under another name.
            nodes_to_exclude=[*kept, *(f"{name}_MatMul" for name in kept)],
            # Where it cannot infer a type, for nodes outside ONNX's own set.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        model = onnx.load(quantized)
    if not per_channel:
        _repeat_scales(model)
    del model.graph.value_info[:], model.metadata_props[:]
    save_model(model, destination)


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
    """Name of the product that yields the logits: the last one with a constant weight."""
    if "logits" not in {output.name for output in model.graph.output}:
        return []
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [n.name for n in model.graph.node if n.op_type in _PRODUCTS and n.input[1] in constants]
    return names[-1:]
