"""A bundle's latency end to end, on a target, against the budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.latency.interval import round_ratio
from edgekd.latency.judge import Judgement, judge_budget
from edgekd.latency.measure import REPORTED_SECONDS, Measurement, compare, measure_for
from edgekd.latency.targets.base import Target
from edgekd.latency.timer import BundleJob, Job, Text
from edgekd.progress import Progress
from edgekd.records.base import Interval

# Two jobs in turns: fresh processes, rounds in each, calls a round, and how long a round about takes.
_PROCESSES, _ROUNDS, _MOST_CALLS, _FEWEST_CALLS = 3, 10, 100, 3
_ROUND_MS = 60.0


def judge_latency(
    bundle: Path,
    texts: Sequence[Text],
    target: Target,
    budget_ms: float,
    percentile: float,
    progress: Progress,
    title: str,
    *,
    batch_size: int = 1,
) -> Judgement:
    """Measure a bundle end to end in processes of its own, and judge it against the budget."""
    job = BundleJob(title, bundle, tuple(texts), batch_size)
    with progress.bar(title, 1) as bar:
        return judge_budget(job, target, budget_ms, percentile, target.clock, progress=bar.update)


def ratio_in_turns(
    base: Job, other: Job, target: Target, call_ms: float, progress: Progress, title: str
) -> tuple[dict[str, Measurement], float, Interval]:
    """Time two jobs in turns, in fresh processes.

    Args:
        call_ms: About how long a call of the one takes that a round is to be cut to.

    Returns:
        A measurement for each job's name, the median over rounds of other / base, and its interval.
    """
    calls = int(max(_FEWEST_CALLS, min(_MOST_CALLS, _ROUND_MS / max(call_ms, 1e-3))))
    with progress.bar(title, 1) as bar:
        found = compare(
            (base, other), target, processes=_PROCESSES, rounds=_ROUNDS, calls=calls,
            progress=lambda done, total: bar.update(done / total),
        )  # fmt: skip
    value, low, high = round_ratio(found[base.name].rounds, found[other.name].rounds, target.clock)
    return found, value, (low, high)


def report_latency(
    bundle: Path, texts: Sequence[Text], target: Target, progress: Progress, title: str, *, batch_size: int = 1
) -> Measurement:
    """Measure a bundle end to end as `judge_latency` does, but briefly: it is reported and decides nothing."""
    job = BundleJob(title, bundle, tuple(texts), batch_size)
    with progress.bar(title, 1) as bar:
        return measure_for(job, target, REPORTED_SECONDS, progress=bar.update)
