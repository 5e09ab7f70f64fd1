"""An FP16 file for GPUs, with what does not fit into FP16 found beforehand."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekd.errors import EdgekdError, require
from edgekd.graph.calibrate import activation_ranges
from edgekd.graph.check import read_model
from edgekd.graph.quiet import quiet
from edgekd.graph.writer import save_model

LARGEST = 65504.0
"""The largest finite value of FP16."""

# What hides a padded token: far below any score, and still finite when a score is added to it.
_MASKED = -10000.0


@dataclass(frozen=True)
class Halved:
    """What was changed so that the FP16 file computes the same.

    Attributes:
        masks: Constants that hide tokens and would have become infinite, now -10000.
        kept: Nodes left in FP32, since their inputs or outputs pass FP16's range on the texts tried.
    """

    masks: tuple[str, ...]
    kept: tuple[str, ...]


def halve(source: Path, destination: Path, batches: Iterable[Mapping[str, NDArray[Any]]]) -> Halved:
    """Write an ONNX file with FP16 weights and activations; its inputs and outputs keep their types.

    Two things overflow in FP16 without a word: the constant that is added to hide padded tokens (many exporters
    take FP32's lowest value: minus infinity in FP16, and NaN where a whole row is hidden), and activations beyond
    65504. Such constants become -10000; nodes with such activations stay in FP32.

    Args:
        source: The FP32 model.
        batches: Texts on which the ranges of all activations are found, as for `activation_ranges`.

    Raises:
        UsageError: There is no such file.
        EdgekdError: It is not a whole ONNX model, a weight passes FP16's range, or there is no batch.
        UnavailableError: onnxruntime is not installed.
    """
    converter = require("onnxruntime.transformers.float16", "cpu", "write an FP16 model")
    model = read_model(source)
    masks = _finite_masks(model, source)
    with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
        masked = Path(folder, "masked.onnx")
        onnx.save(model, masked)
        kept = _overflowing(model, activation_ranges(masked, batches, "minmax", nodes=None))
    del model.graph.value_info[:]
    with quiet():
        made = converter.convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    del made.graph.value_info[:]
    _skip_round_trips(made.graph)
    save_model(made, destination)
    return Halved(tuple(masks), tuple(kept))


def _finite_masks(model: onnx.ModelProto, source: Path) -> list[str]:
    """Replace scalar constants below FP16's range, in place; their names."""
    changed = []
    values = [(tensor.name, tensor) for tensor in model.graph.initializer]
    values += [
        (node.output[0], attribute.t)
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    for name, tensor in values:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        value = numpy_helper.to_array(tensor)
        if value.size == 0 or np.abs(value).max() <= LARGEST:
            continue
        if value.size > 1 or value.max() > LARGEST:
            raise EdgekdError(f"{source}: {name} holds {np.abs(value).max():.3g}, beyond FP16's {LARGEST:g}: use FP32")
        tensor.CopyFrom(numpy_helper.from_array(np.full_like(value, _MASKED), tensor.name))
        changed.append(name)
    return changed


def _overflowing(model: onnx.ModelProto, ranges: Any) -> list[str]:
    """Names of the nodes that read or write an activation beyond FP16's range."""
    wide = {name for name, found in ranges.items() if np.abs(found.range_value).max() > LARGEST}
    return [node.name for node in model.graph.node if wide & {*node.input, *node.output}]


def _skip_round_trips(graph: onnx.GraphProto) -> None:
    """Join nodes that stay in FP32 and follow each other: the converter puts a cast to FP16 and back between them."""
    halves = {node.output[0]: node.input[0] for node in graph.node if _casts(node, onnx.TensorProto.FLOAT16)}
    back = {
        node.output[0]: halves[node.input[0]]
        for node in graph.node
        if _casts(node, onnx.TensorProto.FLOAT) and node.input[0] in halves
    }
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = back.get(name, name)
    for _ in range(2):  # the second cast first, then the one that only it read
        used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        for node in [n for n in graph.node if n.op_type == "Cast" and n.output[0] not in used]:
            graph.node.remove(node)


def _casts(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == kind for a in node.attribute)
