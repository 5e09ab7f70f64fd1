"""A bundle's latency end to end, on a target, against the budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.latency.judge import Judgement, judge_budget
from edgekd.latency.measure import REPORTED_SECONDS, Measurement, measure_for
from edgekd.latency.targets.base import Target
from edgekd.latency.timer import BundleJob, Text
from edgekd.progress import Progress


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


def report_latency(
    bundle: Path, texts: Sequence[Text], target: Target, progress: Progress, title: str, *, batch_size: int = 1
) -> Measurement:
    """Measure a bundle end to end as `judge_latency` does, but briefly: it is reported and decides nothing."""
    job = BundleJob(title, bundle, tuple(texts), batch_size)
    with progress.bar(title, 1) as bar:
        return measure_for(job, target, REPORTED_SECONDS, progress=bar.update)
