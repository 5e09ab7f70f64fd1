"""Which few nodes of a quantised model must stay in FP32 for its answers to survive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekd.progress import Bar

MOST_KEPT = 8
"""Nodes that may stay in FP32: with more, little of INT8's gain is left, and FP32 is the honest answer."""


@dataclass(frozen=True)
class Repair:
    """What the search found.

    Attributes:
        kept: Nodes to leave in FP32, the most sensitive first.
        drop: Points of the metric that the file with these in FP32 costs.
        repaired: Whether that is within the limit.
        evaluations: Models that were made and run.
    """

    kept: tuple[str, ...]
    drop: float
    repaired: bool
    evaluations: int


def find_repair(
    nodes: Sequence[str],
    error: Callable[[str], float],
    drop: Callable[[Sequence[str]], float],
    limit: float,
    bar: Bar,
) -> Repair:
    """Find the fewest nodes to keep in FP32, among the most sensitive, so that the drop is within the limit.

    Nodes are ranked by the error that quantising each alone makes, one evaluation a node. Then the 1, 2, 4, 8 worst
    are kept, until it suffices, and bisection takes back what was not needed: at most 6 evaluations on all texts.
    A failed search answers with the best it saw.

    Args:
        nodes: Names of the nodes that were quantised.
        error: Error of the logits where only that node is quantised, in any unit.
        drop: Points of the metric lost where these nodes stay in FP32.
        limit: Points that may be lost.
        bar: Shows the evaluations done, of at most `most_evaluations(nodes)`.
    """
    done = 0

    def step(note: str) -> None:
        nonlocal done
        bar.update(done, note)
        done += 1

    errors = {}
    for node in nodes:
        step(node)
        errors[node] = error(node)
    # A stable sort: nodes that hurt alike stay in the order in which they run.
    ranked = sorted(nodes, key=lambda node: -errors[node])
    most = min(MOST_KEPT, len(ranked) - 1)
    drops: dict[int, float] = {}

    def suffices(count: int) -> bool:
        step(f"keep {count} in FP32")
        drops[count] = drop(ranked[:count])
        return drops[count] <= limit + 1e-9

    failed, count = 0, 1
    while count <= most and not suffices(count):
        failed, count = count, min(2 * count, most) if count < most else most + 1
    if count > most:
        best = min(drops, key=lambda c: (drops[c], c), default=0)
        return Repair(tuple(ranked[:best]), drops.get(best, float("inf")), False, done)
    while count - failed > 1:
        middle = (failed + count) // 2
        failed, count = (failed, middle) if suffices(middle) else (middle, count)
    return Repair(tuple(ranked[:count]), drops[count], True, done)


def most_evaluations(nodes: Sequence[str]) -> int:
    """How many models `find_repair` makes at most."""
    return len(nodes) + 6
