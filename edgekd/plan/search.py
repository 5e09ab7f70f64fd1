"""Search over per-layer shapes under a latency budget: exact, by dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.latency.table import WidthCosts
from edgekd.plan.value import Value
from edgekd.settings.shape import Slice

# Time is cut into this many bins: the budget is then used to within 1/2000 a layer.
_BINS = 2000


def best_slices(
    value: Value, costs: WidthCosts, heads: Sequence[int], ffn: Sequence[int], budget_ms: float
) -> list[Slice]:
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
        One slice a depth, shallowest first; empty if not even one layer fits.
    """
    room = costs.straight_ms(max(0.0, budget_ms)) - costs.fixed
    if room <= 0:
        return []
    options = [(h, f) for h in sorted(heads) for f in sorted(ffn)]
    bins = _bins([costs.layer_ms(h, f) for h, f in options], room)
    last = _bins([costs.last_layer_ms(h, f) for h, f in options], room)
    depth = len(value.layers)
    table = np.full((depth + 1, depth + 1, _BINS + 1), -np.inf)
    table[0, 0, :] = 0.0
    taken = np.full((depth + 1, depth + 1, _BINS + 1), -1, dtype=np.int32)
    # From the top down: the first layer taken is the student's last, whose price is its own.
    for step, layer in enumerate(reversed(range(depth))):
        table[step + 1] = table[step]
        for index, (h, f) in enumerate(options):
            if value.has(layer, h, f):
                gain = value.layer(layer, h, f)
                _offer(table, taken, step, index, gain, int(last[index]), slice(0, 1))
                _offer(table, taken, step, index, gain, int(bins[index]), slice(1, depth))
    found = []
    for used in range(1, depth + 1):
        if np.isfinite(table[depth, used, _BINS]):
            found.append(_trace(taken, bins, last, options, depth, used))
    return found


def _bins(prices: Sequence[float], room: float) -> NDArray[np.int_]:
    bins: NDArray[np.int_] = np.maximum(1, np.ceil(np.array(prices) / room * _BINS - 1e-9).astype(int))
    return bins


def _offer(
    table: NDArray[np.float64],
    taken: NDArray[np.int32],
    step: int,
    index: int,
    gain: float,
    width: int,
    used: slice,
) -> None:
    """Take option `index` in this step's layer, after `used` layers above it, wherever that keeps more."""
    if width > _BINS:
        return
    after = slice(used.start + 1, used.stop + 1)
    offered = table[step, used, : _BINS + 1 - width] + gain
    known = table[step + 1, after, width:]
    better = offered > known
    known[better] = offered[better]
    taken[step + 1, after, width:][better] = index


def _trace(
    taken: NDArray[np.int32],
    bins: NDArray[np.int_],
    last: NDArray[np.int_],
    options: Sequence[tuple[int, int]],
    depth: int,
    used: int,
) -> Slice:
    layers: list[tuple[int, int, int]] = []
    left = _BINS
    for step in range(depth, 0, -1):
        index = int(taken[step, used, left])
        if index >= 0:
            layers.append((depth - step, *options[index]))
            left -= int((last if used == 1 else bins)[index])
            used -= 1
    return Slice(layers=tuple(x[0] for x in layers), heads=tuple(x[1] for x in layers), ffn=tuple(x[2] for x in layers))
