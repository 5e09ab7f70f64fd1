"""The fastest form of a graph, by measuring all of them on the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekd.errors import EdgekdError, UsageError
from edgekd.graph.variants import fused_nodes
from edgekd.latency.interval import round_ratio
from edgekd.latency.measure import compare
from edgekd.latency.table import VOCABULARY
from edgekd.latency.targets.base import Target
from edgekd.latency.timer import GraphJob
from edgekd.progress import Progress
from edgekd.records.export import Form, Parity

# Fewer rounds leave the interval wider than what the forms differ by.
_ROUNDS, _CALLS = 15, 8

# Another form than the given one is taken if it saves this much for sure.
_WORTH = 0.99


@dataclass(frozen=True)
class GraphTarget:
    """Where forms of a graph are measured.

    Attributes:
        machine: Its fingerprint.
        length: Tokens a text.
        batch_size: Texts a call.
        elsewhere: Whether the device is not this machine.
    """

    target: Target
    machine: str
    length: int
    batch_size: int
    elsewhere: bool = False

    def check(self) -> None:
        """Make sure that there is something to measure on.

        Raises:
            UsageError: The device is elsewhere.
        """
        if self.elsewhere:
            raise UsageError(
                "export.choose measured: the device is elsewhere; leave it out (--choose-graph), or run there"
            )


def choose_graph(
    forms: Mapping[str, Path], precision: Literal["fp32", "int8"], place: GraphTarget, vocabulary: int,
    prove: Callable[[Path], Parity] | None, limit: float, progress: Progress, title: str,
) -> tuple[Form, ...]:  # fmt: skip
    """Measure forms of one graph in turns, and take the fastest that answers as the first does.

    Args:
        forms: Files by name, the given one first: it stays unless another is faster beyond doubt.
        vocabulary: Rows of the model's embedding.
        prove: Compares a file's answers with the first one's; None leaves that to what follows.
        limit: Largest gap of a logit that still is the same answer.

    Returns:
        Each of them, one of them chosen.
    """
    ids = min(vocabulary, VOCABULARY)
    jobs = [GraphJob(name, path, place.batch_size, place.length, ids) for name, path in forms.items()]
    with progress.bar(title, 1) as bar:
        found = compare(
            jobs, place.target, processes=1, rounds=_ROUNDS, calls=_CALLS,
            progress=lambda done, total: bar.update(done / total),
        )  # fmt: skip
    first = jobs[0].name
    tried: list[Form] = []
    best, best_upper = first, _WORTH
    for name, path in forms.items():
        ratio = (1.0, 1.0, 1.0)
        if name != first:
            ratio = round_ratio(found[first].rounds, found[name].rounds, place.target.clock)
        gap = _gap(prove, path) if name != first else 0.0
        same = gap is not None and gap <= limit
        if same and ratio[2] < best_upper:
            best, best_upper = name, ratio[2]
        tried.append(
            Form(
                name=name, precision=precision, median_ms=found[name].percentile(50, place.target.clock),
                ratio=ratio[0], interval=ratio[1:], gap=gap, same=same, chosen=False, fused=fused_nodes(path),
            )
        )  # fmt: skip
    return tuple(form.model_copy(update={"chosen": form.name == best}) for form in tried)


def _gap(prove: Callable[[Path], Parity] | None, path: Path) -> float | None:
    """Largest gap of a logit; None where the file gives no answers to compare."""
    if prove is None:
        return 0.0
    try:
        return prove(path).max_abs_gap
    except EdgekdError:
        return None
