"""What one try at the budget gave, and what should follow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekd.assistants.chain import Chain
from edgekd.distill.student import Start
from edgekd.export.stage import exported_of
from edgekd.latency.judge import Judgement
from edgekd.records.plan import Candidate, Plan
from edgekd.records.result import Criterion, Latency, Outcome, QualityRow, Try, overall
from edgekd.settings.target import Precision
from edgekd.store import Artefact

# How much longer a student is trained after a miss on quality.
LONGER = 2.0

# How much smaller at most the next choice is made because the verdict stayed open.
_MOST_DOUBT = 1.25


@dataclass(frozen=True)
class Attempt:
    """What one try gave.

    Attributes:
        plan: The plan it followed.
        candidate: What was tried.
        exported: The ONNX files.
        precision: Of the one that is shipped.
        judged: The measurement that decides; None where the device is elsewhere, as are the two of `latency`.
        latency: At the fixed length and on real texts.
        criteria: Latency, quality, and what else was asked for.
        rows: Its lines of the quality table.
        start: The student as cut out of the teacher; None for the unchanged teacher.
        chain: The assistants between teacher and student; None for the unchanged teacher.
        stages: What each stage of the student's training gave; the last is the student.
        begun: What its training began with: `start`, an assistant's slice, or that of the try before.
        elastic: Whether it was cut out of an elastic run, and trained on a little.
        longer: Whether it was trained longer than the profile says.
    """

    plan: Plan
    candidate: Candidate
    exported: Artefact
    precision: Precision
    judged: Judgement | None
    latency: Latency
    criteria: tuple[Criterion, ...]
    rows: tuple[QualityRow, ...]
    start: Start | None = None
    chain: Chain | None = None
    stages: tuple[Artefact, ...] = ()
    begun: Start | None = None
    elastic: bool = False
    longer: bool = False

    @property
    def student(self) -> Artefact | None:
        """The trained student; None for the unchanged teacher."""
        return self.stages[-1] if self.stages else None

    @property
    def measured_ms(self) -> float | None:
        """Latency at the budget's percentile; None where the device is elsewhere."""
        return None if self.judged is None else self.judged.value_ms

    @property
    def outcome(self) -> Outcome:
        """Of all criteria together."""
        return overall(self.criteria)

    @property
    def miss_factor(self) -> float:
        """See `miss_factor`; 1 where nothing was measured."""
        if self.judged is None:
            return 1.0
        return miss_factor(self.judged, self.candidate.best_known_ms, self.plan.headroom)

    @property
    def int8_refused(self) -> bool:
        """Whether the precision that was planned cost too much quality."""
        int8 = exported_of(self.exported).quantisation
        return self.candidate.precision == "int8" and int8 is not None and not int8.kept

    def next_action(self, *, can_replan: bool, trained_longer: bool) -> str:
        """What should follow: "done", "without INT8", "plan again", "train alone" or "train longer"."""
        outcomes = {criterion.kind: criterion.outcome for criterion in self.criteria}
        if can_replan and self.int8_refused:
            return "without INT8"
        # Near the budget a smaller student is worth having only where this one keeps enough.
        doubtful = outcomes["latency"] == "inconclusive" and outcomes["quality"] != "missed"
        if can_replan and (outcomes["latency"] == "missed" or (doubtful and self.miss_factor > 1)):
            return "plan again"
        if outcomes["quality"] == "missed" and not trained_longer and self.student is not None:
            return "train alone" if self.elastic else "train longer"
        return "done"

    def as_try(self, action: str) -> Try:
        """The try as the report tells it."""
        missed = self.judged is not None and self.judged.outcome == "missed"
        where = "over the budget" if missed else "too near the budget to tell"
        said = {
            "done": "; ".join(f"{c.name}: {c.outcome}" for c in self.criteria),
            "without INT8": "INT8 costs too much quality: plan again without it",
            "plan again": f"{where}: plan again, predictions times {self.miss_factor:.2f}",
            "train alone": "too much quality lost: train it alone, for the whole schedule",
            "train longer": f"too much quality lost: train {LONGER:g} times as long",
        }
        return Try(
            what=self.candidate.describe(),
            predicted_ms=self.candidate.best_known_ms,
            measured_ms=self.measured_ms,
            action=said[action],
        )


def miss_factor(judged: Judgement, planned_ms: float, headroom: float) -> float:
    """What predictions are to be multiplied by so that the next choice meets the budget; 1 where it need not be asked.

    After a miss, measured over planned. Where the verdict stayed open with the budget inside the interval, a smaller
    model is a way to a verdict: as much smaller as would have brought the interval's upper end within the budget less
    headroom, so that the same choice cannot come back, but no more than `_MOST_DOUBT`: one noisy tail must not cost a
    third of a student.

    Args:
        planned_ms: What the plan expected at the budget's percentile.
        headroom: Share of the budget that the plan leaves free.
    """
    value, (lower, upper) = judged.value_ms, judged.estimate.interval
    if judged.outcome == "missed":
        return value / planned_ms
    if judged.outcome == "met" or not lower <= judged.budget_ms < upper:
        return 1.0
    cautious = upper * (1 - headroom) / planned_ms if math.isfinite(upper) else _MOST_DOUBT
    return max(value / planned_ms, min(cautious, _MOST_DOUBT))
