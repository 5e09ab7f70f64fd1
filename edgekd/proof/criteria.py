"""What was asked for against what was measured. Imports no torch: `edgekd validate` judges by the same code."""

from __future__ import annotations

from pathlib import Path

from edgekd.latency.judge import Judgement
from edgekd.proof.retained import Retained, outcome_at_least
from edgekd.records.result import Criterion


def latency_criterion(judgement: Judgement) -> Criterion:
    """Whether the latency budget is met."""
    return Criterion(
        kind="latency",
        name=f"latency p{judgement.percentile:g}",
        limit=judgement.budget_ms,
        bound="at most",
        unit="ms",
        value=judgement.value_ms,
        interval=judgement.estimate.interval,
        outcome=judgement.outcome,
        explanation=judgement.reason,
    )


def quality_criterion(kept: Retained, metric: str, limit: float, *, plain: bool = False) -> Criterion:
    """Whether enough of the teacher's metric is kept, by the paired interval.

    Args:
        plain: It is of plain text that is split into words as the bundle splits it, the teacher's of the words.
    """
    outcome = outcome_at_least(kept.interval, limit)
    ends = f"{100 * kept.interval[0]:.1f} to {100 * kept.interval[1]:.1f}%"
    parts = "".join(f"; {name} {100 * mine:.1f}% against {100 * other:.1f}%" for name, mine, other in kept.parts)
    few = " (more test rows would tell)" if outcome == "inconclusive" else ""
    mend = "; serve texts as their words, as the data have them" if plain and outcome != "met" else ""
    return Criterion(
        kind="plain text" if plain else "quality",
        name=f"{metric}{' on plain text' if plain else ''} kept of the teacher's",
        limit=limit,
        bound="at least",
        unit="share",
        value=kept.value,
        interval=kept.interval,
        outcome=outcome,
        explanation=f"{100 * kept.student:.1f}% against {100 * kept.teacher:.1f}% on {kept.rows} test texts: "
        f"{ends} kept, by a paired bootstrap{few}{parts}{mend}",
    )


def size_criterion(model: Path, limit_mb: float) -> Criterion:
    """Whether the exported file is within `--max-mb`."""
    value = model.stat().st_size / 1e6
    return Criterion(
        kind="size",
        name=f"size of {model.name}",
        limit=limit_mb,
        unit="MB",
        value=value,
        outcome="met" if value <= limit_mb else "missed",
        explanation=f"{value:.4g} MB of at most {limit_mb:g}",
    )


def memory_criterion(peak_mb: float, limit_mb: float) -> Criterion:
    """Whether the process that runs the bundle stays within `--max-memory-mb`."""
    return Criterion(
        kind="memory",
        name="peak memory of the process",
        limit=limit_mb,
        unit="MB",
        value=peak_mb,
        outcome="met" if peak_mb <= limit_mb else "missed",
        explanation=f"{peak_mb:.4g} MB at its peak of at most {limit_mb:g}, Python and the runtime included",
    )
