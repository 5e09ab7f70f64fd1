"""Teachers of any family to ONNX, through torch.onnx."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgekd.errors import EdgekdError, UsageError, first_line
from edgekd.graph.check import LARGEST_BYTES
from edgekd.graph.parity import compare_logits, run_onnx
from edgekd.graph.quiet import quiet
from edgekd.graph.writer import save_model

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_AXES = ("batch_size", "sequence_length")
# Batch and length of the texts that the file is tried on: one and several, even and odd.
_TRIED = ((1, 7), (3, 12), (3, 5), (1, 16))
# Largest gap of a logit, as a share of the largest logit: float32 in another order of operations.
_TOLERANCE = 1e-3


def export_foreign(model: nn.Module, inputs: Sequence[str], destination: Path, opset: int = 18) -> None:
    """Export a transformers classification model to ONNX with dynamic batch and length, and prove the file.

    The file is run in onnxruntime at batches of 1 and 3 and at odd lengths against the model itself.

    Args:
        model: Any `AutoModelFor{Sequence,Token}Classification`; its mode and device are left as they were.
        inputs: Names of the inputs in order, such as `input_ids`, `attention_mask`.
        destination: File to write; its output is named `logits`.
        opset: ONNX opset.

    Raises:
        EdgekdError: torch cannot export the model, its weights are not float32 or pass the 2 GB of one ONNX
            file, or the file answers otherwise than the model.
        UsageError: An input is none that text comes as.
        UnavailableError: onnxruntime is not installed.
    """
    _check(model, inputs)
    training = model.training
    model.eval()
    try:
        with quiet():
            proto = _export(model, inputs, opset)
        save_model(proto, destination)
        try:
            _prove(model, inputs, destination)
        except EdgekdError:
            destination.unlink()
            raise
    finally:
        model.train(training)


class _Logits(nn.Module):
    """A model that takes its inputs by position and answers with the logits alone."""

    def __init__(self, model: nn.Module, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = tuple(inputs)

    def forward(self, *values: Tensor) -> Tensor:
        named = dict(zip(self.inputs, values, strict=True))
        logits: Tensor = self.model(**named, return_dict=True).logits
        return logits


def _check(model: nn.Module, inputs: Sequence[str]) -> None:
    unknown = [name for name in inputs if name not in _INPUTS]
    if unknown:
        raise UsageError(f"cannot export the input {unknown[0]!r}: a text model takes {', '.join(_INPUTS)}")
    floats = [p for p in model.parameters() if p.is_floating_point()]
    if any(p.dtype != torch.float32 for p in floats):
        raise EdgekdError(f"cannot export weights in {floats[0].dtype}: load the model in float32")
    if sum(p.numel() for p in floats) * 4 > LARGEST_BYTES:
        raise EdgekdError(f"{type(model).__name__} passes the 2 GB of one ONNX file: use a smaller teacher")


def _export(model: nn.Module, inputs: Sequence[str], opset: int) -> onnx.ModelProto:
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        program = torch.onnx.export(
            _Logits(model, inputs).eval(),
            # Neither batch nor length may be 1 here: torch takes a 1 for a constant.
            tuple(_example(model, inputs, 2, 12).values()),
            input_names=list(inputs),
            output_names=["logits"],
            opset_version=opset,
            # One entry an argument of `forward`, and that is one tuple.
            dynamic_shapes=(tuple(dynamic for _ in inputs),),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        proto = program.model_proto
    except Exception as error:  # the exporter lets through whatever the model's own code raises
        raise EdgekdError(
            f"torch cannot export {type(model).__name__} to ONNX, which a bundle is made of ({_reason(error)}): use a"
            " teacher of another family"
        ) from error
    # Stale shapes stop onnxruntime's quantiser.
    del proto.graph.value_info[:]
    _fold_transposes(proto.graph)
    # The exporter names each input's axes apart, though they are the same two.
    for value in (*proto.graph.input, *proto.graph.output):
        axes = value.type.tensor_type.shape.dim
        for axis, name in zip(axes[: len(axes) if value.name != "logits" else len(axes) - 1], _AXES, strict=False):
            axis.dim_param = name
    return proto


def _reason(error: BaseException) -> str:
    """The first line of what stopped the exporter, which wraps it in advice on how to debug torch."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _fold_transposes(graph: onnx.GraphProto) -> None:
    """Store transposed what is used transposed.

    The exporter leaves shared weights as they are, and the quantiser then takes them for no constants.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in constants]:
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
        weight = numpy_helper.to_array(constants[node.input[0]]).transpose(order)
        graph.initializer.append(numpy_helper.from_array(weight.copy(), node.output[0]))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]


def _prove(model: nn.Module, inputs: Sequence[str], path: Path) -> None:
    """Run the file against the model, on batches of other sizes than the one it was traced with."""
    batches = [_example(model, inputs, *sizes) for sizes in _TRIED]
    outputs = run_onnx(path, [{n: v.cpu().numpy() for n, v in batch.items()} for batch in batches])
    for batch, output in zip(batches, outputs, strict=True):
        with torch.no_grad():
            expected = _Logits(model, inputs)(*batch.values()).cpu().numpy()
        labels = expected.shape[-1]
        gap = compare_logits(expected.reshape(-1, labels), output.reshape(-1, labels)).max_abs_gap
        if gap > _TOLERANCE * max(1.0, float(abs(expected).max())):
            size = " x ".join(map(str, batch["input_ids"].shape))
            raise EdgekdError(
                f"{path}: the exported {type(model).__name__} is off by {gap:.2g} on texts of {size} tokens"
            )


def _example(model: nn.Module, inputs: Sequence[str], batch: int, length: int) -> dict[str, Tensor]:
    """A batch of any tokens, the first text padded by a third, each ended as some families need it to be."""
    device = next(model.parameters()).device
    config: Any = model.config
    generator = torch.Generator().manual_seed(batch * length)
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, length - length // 3 :] = 0
    ids = torch.randint(config.vocab_size, (batch, length), generator=generator)
    if isinstance(end := getattr(config, "eos_token_id", None), int) and end < config.vocab_size:
        ids[ids == end] = (end + 1) % config.vocab_size
        ids[torch.arange(batch), mask.sum(1) - 1] = end
    values = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": torch.zeros_like(mask),
    }
    return {name: values[name].to(device) for name in inputs}
