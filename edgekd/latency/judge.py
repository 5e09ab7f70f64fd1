"""The verdict on a latency budget: measure until it is clear, and say why it is what it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgekd.errors import UsageError
from edgekd.latency import interval
from edgekd.latency.interval import Estimate, Floats, Outcome
from edgekd.latency.measure import Measurement, Series
from edgekd.latency.timer import Job

if TYPE_CHECKING:
    from edgekd.latency.targets.base import Target
    from edgekd.settings.target import Clock


LOOKS_SECONDS = (30.0, 60.0, 88.0)
"""After so many seconds of measuring the verdict is looked at; one that is open after the last stays open."""


# Slower than usual by this much, and the machine is named as a reason.
_SLOWED = 1.1


@dataclass(frozen=True)
class Judgement:
    """The verdict on a latency budget.

    Attributes:
        outcome: "met", "missed" or "inconclusive".
        budget_ms: The limit.
        percentile: Of the calls, in percent.
        clock: What it was judged on.
        estimate: Of that percentile.
        reason: One sentence; of an open verdict with what to do.
        measurement: Everything measured.
    """

    outcome: Outcome
    budget_ms: float
    percentile: float
    clock: Clock
    estimate: Estimate
    reason: str
    measurement: Measurement

    @property
    def value_ms(self) -> float:
        """The percentile, at the machine's usual speed where that is known."""
        return self.estimate.value_ms


def judge_budget(
    job: Job,
    target: Target,
    budget_ms: float,
    percentile: float,
    clock: Clock,
    *,
    looks: Sequence[float] = LOOKS_SECONDS,
    processes: int = 3,
    progress: Callable[[float], None] | None = None,
) -> Judgement:
    """Judge a percentile of a job's latency against a budget, going on while the verdict is open.

    Args:
        target: Where; its speed log tells the machine's usual speed.
        budget_ms: The limit, above 0.
        percentile: Such as 95 or 99.
        clock: What is judged; both are measured.
        looks: Seconds of measuring after which it is looked at.
        processes: Fresh processes.
        progress: Called with the share of the next look that is done.

    Raises:
        UsageError: The budget is not a positive number.
    """
    check_budget(budget_ms)
    with target.timer([job], processes) as timer:
        series = Series(timer, job.name, processes)
        for look in looks:
            series.extend(look, progress)
            judgement = judge(series.measurement(), budget_ms, percentile, clock, target.usual_speed())
            if judgement.outcome != "inconclusive":
                break
    return judgement


def judge(
    measurement: Measurement, budget_ms: float, percentile: float, clock: Clock, usual: Floats | None = None
) -> Judgement:
    """The verdict on samples that were taken, here or elsewhere.

    Args:
        measurement: The samples.
        budget_ms: The limit, above 0.
        percentile: Such as 95 or 99.
        clock: What is judged.
        usual: The machine's speed log, (n, 3); see `SpeedLog.looks`.

    Raises:
        UsageError: The budget is not a positive number.
    """
    check_budget(budget_ms)
    found = interval.estimate(measurement.rounds, percentile, clock, usual)
    judgement = Judgement(found.against(budget_ms), budget_ms, percentile, clock, found, "", measurement)
    return replace(judgement, reason=_reason(judgement))


def check_budget(budget_ms: float) -> None:
    """Refuse what is no budget.

    Raises:
        UsageError: Not a positive number.
    """
    if not (math.isfinite(budget_ms) and budget_ms > 0):
        raise UsageError(f"--latency-ms {budget_ms:g}: a budget is a number above 0")


def _reason(judgement: Judgement) -> str:
    """Why the verdict is what it is; of an open one with what to do."""
    found, budget = judgement.estimate, judgement.budget_ms
    name, (lower, upper) = f"p{judgement.percentile:g} of {judgement.clock} time", found.interval
    if judgement.outcome == "met":
        seen = f" (it was {found.observed_ms:.4g} ms, the machine {found.slowdown:.2f} times slower)"
        usual = f" at the machine's usual speed{seen}" if found.observed_ms > budget else ""
        return f"{name} is at most {upper:.4g} ms{usual}, within {budget:g} ms"
    if judgement.outcome == "missed":
        return f"{name} is at least {lower:.4g} ms, above {budget:g} ms{_text_work(judgement)}"
    if found.observed_ms > budget and found.slowdown > _SLOWED:
        mend = ", or add --clock response to judge the machine as it is" if judgement.clock == "service" else ""
        return (
            f"the machine is {found.slowdown:.2f} times slower than usual, and that alone may explain "
            f"{found.observed_ms:.4g} ms: run again later{mend}"
        )
    if lower > budget:
        return (
            f"the machine is {1 / found.slowdown:.2f} times faster than usual; at its usual speed {name} is at least "
            f"{lower:.4g} ms, above {budget:g} ms, and not {found.observed_ms:.4g}: run again later, or add "
            "--clock response to judge the machine as it is"
        )
    between = f"{lower:.4g} and {upper:.4g} ms" if math.isfinite(upper) else f"{lower:.4g} ms and an unknown end"
    return f"{name} is between {between}, and {budget:g} ms lies inside: run again, or ask for another budget"


def _text_work(judgement: Judgement) -> str:
    """Says so where no model could meet the budget."""
    work = judgement.measurement.overhead_ms
    if work < judgement.budget_ms:
        return ""
    return f"; tokenising and answering alone take {work:.2f} ms, so no model can meet it"
