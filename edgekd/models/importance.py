"""How much each head, FFN neuron and layer of a model matters to its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from edgekd.models.student import StudentModel, StudentOutput
from edgekd.settings.shape import EncoderShape

Loss = Callable[[StudentOutput, dict[str, Tensor]], Tensor]


@dataclass(frozen=True, eq=False)
class Importance:
    """Scores of a model's parts; only their order within a layer (or between layers) means something.

    Attributes:
        heads: Per layer, (heads,): mean over texts of |d loss / d mask| of the head's output.
        neurons: Per layer, (ffn,): the same for the FFN's neurons.
        layers: (depth,): rise of the mean loss when the layer is left out; negative: better without it.
    """

    heads: list[np.ndarray]
    neurons: list[np.ndarray]
    layers: np.ndarray

    def save(self, path: str | Path) -> None:
        """Write the scores as one safetensors file."""
        arrays = {"layers": self.layers}
        for i, (heads, neurons) in enumerate(zip(self.heads, self.neurons, strict=True)):
            arrays |= {f"heads.{i}": heads, f"neurons.{i}": neurons}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)

    @classmethod
    def load(cls, path: str | Path) -> Importance:
        """Read what `save` wrote."""
        arrays = load_file(path)
        layers = arrays["layers"]
        heads, neurons = ([arrays[f"{part}.{i}"] for i in range(len(layers))] for part in ("heads", "neurons"))
        return cls(heads, neurons, layers)


def measure_importance(model: StudentModel, batches: Iterable[Mapping[str, Tensor]], loss: Loss) -> Importance:
    """Score heads and neurons by first order, layers by leaving each one out.

    Heads and neurons: the expected sensitivity of the loss to a factor on their output, taken at 1, with the
    absolute value taken text by text so that opposite signs do not cancel (Michel et al. 2019,
    arXiv:1905.10650, eq. 2). Layers: the exact rise of the loss; first order fails for parts that large.

    Args:
        model: A student; left as it was (mode, gradients).
        batches: Model inputs by name, plus whatever `loss` reads; gone through once.
        loss: Takes the model's output and the batch (on the model's device), gives the mean over its texts.

    Raises:
        ValueError: There is no batch.
    """
    shape: EncoderShape = model.config.encoder_shape
    heads, neurons = [np.zeros(n) for n in shape.heads], [np.zeros(n) for n in shape.ffn]
    layers, texts = np.zeros(shape.depth), 0
    training = model.training
    model.eval()
    try:
        for batch in batches:
            moved = {name: tensor.to(model.device) for name, tensor in batch.items()}
            size = len(moved["input_ids"])
            # The gradient of a mean carries 1/size: a sum over the texts is already the batch's mean.
            value, gradients = _mask_gradients(model, shape, moved, loss)
            for total, gradient in zip(heads + neurons, gradients, strict=True):
                total += size * gradient.abs().sum(dim=0).double().cpu().numpy()
            layers += size * (_losses_without(model, shape, moved, loss) - value)
            texts += size
    finally:
        model.train(training)
    if not texts:
        raise ValueError("importance needs at least one batch")
    return Importance([h / texts for h in heads], [n / texts for n in neurons], layers / texts)


def _inputs(shape: EncoderShape, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: batch[name] for name in shape.inputs if name in batch}


def _mask_gradients(
    model: StudentModel, shape: EncoderShape, batch: dict[str, Tensor], loss: Loss
) -> tuple[float, tuple[Tensor, ...]]:
    """The loss, and its gradients by each text's masks: heads of every layer, then neurons of every layer."""
    size = len(batch["input_ids"])
    masks = [torch.ones(size, n, device=model.device, requires_grad=True) for n in shape.heads + shape.ffn]
    with torch.enable_grad():
        output = model(**_inputs(shape, batch), head_masks=masks[: shape.depth], neuron_masks=masks[shape.depth :])
        value = loss(output, batch)
        return float(value.detach()), torch.autograd.grad(value, masks)


@torch.no_grad()
def _losses_without(model: StudentModel, shape: EncoderShape, batch: dict[str, Tensor], loss: Loss) -> np.ndarray:
    inputs = _inputs(shape, batch)
    return np.array([float(loss(model(**inputs, skip_layer=i), batch)) for i in range(shape.depth)])
