"""Teacher assistants: what was considered, what each rule would have taken, what was taken, and what it cost."""

from __future__ import annotations

from edgekd.records.base import Record
from edgekd.settings.shape import EncoderShape, Slice


class Assistant(Record):
    """A model between teacher and student.

    Attributes:
        choice: What it keeps of the teacher.
        share: Its encoder parameters over the teacher's.
        score: Its validation metric in the elastic run; None where there was none.
        reached: Validation metric of the student that was trained through it; None where none was.
    """

    choice: Slice
    shape: EncoderShape
    share: float
    score: float | None = None
    reached: float | None = None

    def tradeoff(self, weight: float) -> float:
        """MiniDisc's t = m + weight (1 - s)."""
        assert self.score is not None
        return self.score + weight * (1 - self.share)

    def describe(self) -> str:
        """Such as "25% of the teacher's encoder: 2 layers x 384, heads 6, FFN 768"."""
        return f"{100 * self.share:.0f}% of the teacher's encoder: {self.shape.describe()}"


class Choice(Record):
    """What was chosen, and what there was to choose from.

    Attributes:
        considered: Every candidate, the smallest first.
        taken: The chain, the largest first; empty for none.
        reason: One sentence.
        picks: By rule, such as "ratio" or "lambda 0.2", what each would have taken.
    """

    considered: tuple[Assistant, ...]
    taken: tuple[Assistant, ...]
    reason: str
    picks: dict[str, Assistant | None]

    @property
    def lambdas(self) -> tuple[float, ...]:
        """The weights of MiniDisc's t by which rules chose, ascending."""
        found = (rule.partition("lambda ")[2] for rule in self.picks)
        return tuple(sorted(float(weight) for weight in found if weight))


class Assistants(Record):
    """How the assistants of a run were chosen, and what they cost.

    Attributes:
        strategy: The strategy's name.
        student_share: The student's encoder parameters over the teacher's.
        choice: What was considered and taken.
        flops: Floating-point operations before the student's own training, by step.
        finetune_flops: Of training the teacher itself for as many steps.
    """

    strategy: str
    student_share: float
    choice: Choice
    flops: dict[str, float] = {}
    finetune_flops: float
