"""What a student keeps of its teacher, as one number that a search can maximise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.models.importance import Importance
from edgekd.settings.shape import Slice

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Value:
    """Shares of the teacher's importance, all summing to 1 over the whole teacher.

    Attributes:
        heads: Per layer, (heads + 1,): share kept by the best k heads, k from 0.
        neurons: Per layer, (ffn + 1,): share kept by the best k neurons.
        layers: (depth,): share that a layer holds beyond its heads and neurons.
    """

    heads: list[Floats]
    neurons: list[Floats]
    layers: Floats

    def kept(self, choice: Slice) -> float:
        """Share of the teacher's importance that a slice keeps, in [0, 1]."""
        return sum(
            self.layer(layer, heads, ffn)
            for layer, heads, ffn in zip(choice.layers, choice.heads, choice.ffn, strict=True)
        )

    def has(self, layer: int, heads: int, ffn: int) -> bool:
        """Whether a layer has so many heads and neurons."""
        return heads < len(self.heads[layer]) and ffn < len(self.neurons[layer])

    def layer(self, layer: int, heads: int, ffn: int) -> float:
        """Share kept by one layer with its best heads and neurons."""
        return float(self.layers[layer] + self.heads[layer][heads] + self.neurons[layer][ffn])


def value_of(importance: Importance) -> Value:
    """Turn measured importance into shares.

    Heads, neurons and layers are ranked on scales of their own (MiniDisc ranks them separately too), so each group
    holds a third. Inside a group a layer counts half by what was measured and half evenly: first-order scores and
    leave-one-out losses exaggerate the early layers, whose loss training repairs.
    """
    depth = len(importance.layers)
    heads = _blended([np.asarray(h, dtype=np.float64) for h in importance.heads])
    neurons = _blended([np.asarray(n, dtype=np.float64) for n in importance.neurons])
    rise = np.clip(np.asarray(importance.layers, dtype=np.float64), 0, None)
    # The square root tames leave-one-out: removing a first layer can cost a hundred times what a middle one costs.
    rise = np.sqrt(rise)
    share = rise / rise.sum() if rise.sum() > 0 else np.full(depth, 1 / depth)
    layers = 0.5 / depth + 0.5 * share
    return Value([h / 3 for h in heads], [n / 3 for n in neurons], layers / 3)


def _blended(scores: list[Floats]) -> list[Floats]:
    totals = np.array([s.sum() for s in scores])
    depth = len(scores)
    share = totals / totals.sum() if totals.sum() > 0 else np.full(depth, 1 / depth)
    weights = 0.5 * share + 0.5 / depth
    return [w * _cumulative(s) for w, s in zip(weights, scores, strict=True)]


def _cumulative(scores: Floats) -> Floats:
    """Share of the sum held by the best k entries, k from 0: (n + 1,), concave, ending at 1."""
    ordered = np.sort(scores)[::-1]
    total = ordered.sum()
    if total <= 0:
        return np.linspace(0.0, 1.0, len(scores) + 1)
    return np.concatenate([[0.0], np.cumsum(ordered) / total])
