"""Search over per-layer shapes under a latency budget: exact, by dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.latency.table import WidthCosts
from edgekd.models.initialize import Slice
from edgekd.plan.value import Value

# Time is cut into this many bins: the budget is then used to within 1/2000 a layer.
_BINS = 2000


@dataclass(frozen=True)
class Found:
    """The slice that keeps most at one depth within the time given."""

    choice: Slice
    kept: float
    median_ms: float


def best_slices(
    value: Value, costs: WidthCosts, heads: Sequence[int], ffn: Sequence[int], budget_ms: float
) -> list[Found]:
    """For every depth that fits, the slice that keeps the most of the teacher within the budget.

    Exact over all choices of layers and, in each, of (heads, neurons) from the ladders, up to the rounding of time
    into bins (rounded up, so that no answer is over the budget).

    Args:
        value: Importance shares of the teacher.
        costs: The latency table's entry for one width and precision.
        heads: Numbers of heads a layer may have.
        ffn: Numbers of neurons a layer may have.
        budget_ms: Median latency of the model alone that may be used.

    Returns:
        One entry a depth, shallowest first; empty if not even one layer fits.
    """
    room = costs.straight_ms(max(0.0, budget_ms)) - costs.fixed
    if room <= 0:
        return []
    options = [(h, f) for h in sorted(heads) for f in sorted(ffn)]
    prices = np.array([costs.layer_ms(h, f) for h, f in options])
    bins = np.maximum(1, np.ceil(prices / room * _BINS - 1e-9).astype(int))
    depth = len(value.layers)
    table = np.full((depth + 1, depth + 1, _BINS + 1), -np.inf)
    table[0, 0, :] = 0.0
    taken = np.full((depth + 1, depth + 1, _BINS + 1), -1, dtype=np.int32)
    for layer in range(depth):
        table[layer + 1] = table[layer]
        for index, ((h, f), width) in enumerate(zip(options, bins, strict=True)):
            if width <= _BINS and value.has(layer, h, f):
                _offer(table, taken, layer, index, value.layer(layer, h, f), width)
    found = []
    for used in range(1, depth + 1):
        if np.isfinite(table[depth, used, _BINS]):
            choice = _trace(taken, bins, options, depth, used)
            found.append(Found(choice, value.kept(choice), costs.whole_ms(choice.heads, choice.ffn)))
    return found


def _offer(
    table: NDArray[np.float64], taken: NDArray[np.int32], layer: int, index: int, gain: float, width: int
) -> None:
    """Take option `index` in `layer` wherever that keeps more than what is known."""
    offered = table[layer, :-1, : _BINS + 1 - width] + gain
    known = table[layer + 1, 1:, width:]
    better = offered > known
    known[better] = offered[better]
    taken[layer + 1, 1:, width:][better] = index


def _trace(
    taken: NDArray[np.int32],
    bins: NDArray[np.int_],
    options: Sequence[tuple[int, int]],
    depth: int,
    used: int,
) -> Slice:
    layers: list[tuple[int, int, int]] = []
    left = _BINS
    for layer in range(depth, 0, -1):
        index = int(taken[layer, used, left])
        if index >= 0:
            layers.append((layer - 1, *options[index]))
            left -= int(bins[index])
            used -= 1
    layers.reverse()
    return Slice(layers=tuple(x[0] for x in layers), heads=tuple(x[1] for x in layers), ffn=tuple(x[2] for x in layers))
