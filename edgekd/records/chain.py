"""The assistants of a run, as its result holds them."""

from __future__ import annotations

from edgekd.records.base import Record


class ChainStep(Record):
    """An assistant that was considered; `name` is "none" for going straight to the student.

    Attributes:
        name: Its shape in words.
        taken: Whether it taught.
        reason: One sentence, at the one that was chosen; a larger one before it has none.
        share: Its encoder parameters over the teacher's.
        score: Its validation metric m in the elastic run.
        tradeoffs: t = m + lambda (1 - share), by lambda; the profile's own is among them.
        reached: Validation metric of the student that was trained through it.
    """

    name: str
    taken: bool
    reason: str
    share: float | None = None
    score: float | None = None
    tradeoffs: dict[str, float] = {}
    reached: float | None = None


class ChainSummary(Record):
    """How the assistants were chosen, and what they cost.

    Attributes:
        strategy: The strategy's name.
        student_share: The student's encoder parameters over the teacher's.
        reason: One sentence.
        picks: By rule, what it would have taken.
        flops: Floating-point operations before the student's own training, by step.
        finetune_flops: Of training the teacher itself for as many steps.
    """

    strategy: str
    student_share: float
    reason: str
    picks: dict[str, str] = {}
    flops: dict[str, float] = {}
    finetune_flops: float
