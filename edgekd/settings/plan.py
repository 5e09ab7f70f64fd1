"""The search space of student shapes, and how teacher assistants are chosen. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edgekd.settings.base import Spec
from edgekd.settings.shape import Slice

# MiniDisc's lambda.
_TRADEOFF = 0.2


class Search(Spec):
    """Which students the plan considers.

    Attributes:
        always_distill: Distil even where the unchanged teacher fits the budget.
        widths: Widths tried, as shares of the teacher's; below 1 the student starts from a PCA projection.
        head_shares: Attention heads a layer, as shares of the teacher's.
        ffn_shares: FFN neurons a layer, as shares of the teacher's.
        finalists: Candidates nearest the budget that are measured for real before one is chosen.
        select: How one is chosen of those that fit: by the share of the teacher's importance that it keeps, or by its
            accuracy in short elastic runs.
    """

    always_distill: bool = False
    widths: tuple[float, ...] = (1.0, 0.75, 0.5)
    head_shares: tuple[float, ...] = (1.0, 0.75, 0.5, 0.34, 0.25)
    ffn_shares: tuple[float, ...] = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)
    finalists: int = Field(default=10, ge=1)
    select: Literal["kept", "accuracy"] = "kept"


class AssistantStrategy(Spec):
    """How the chain between teacher and student is chosen.

    Attributes:
        name: "none": the teacher teaches the student itself. "ratio": one assistant of 2.5 times the student's encoder,
            where the student keeps less than 0.35 of the teacher's. "auto": as "ratio" where the recorded benchmark
            showed a gain outside its interval, else as "none". "lambda": the assistant of the best
            t = m + lambda (1 - s) in one elastic run, m being its validation metric in [0, 1] and s its share of the
            teacher's encoder parameters (MiniDisc, arXiv:2205.14570). "exhaustive": a student is trained through every
            candidate, and the best on validation is taken: for benchmarks. "fixed": `shapes` and no others.
        tradeoff: Lambda: what a whole encoder less is worth in the metric. Only this one's pick counts, unless 0.1,
            0.15, 0.2 and 0.3 do not all agree with it: then the candidate nearest to 2.5 times the student is taken.
        shapes: What each assistant keeps of the teacher, the largest first; each must hold the one after it, the last
            one the student.
    """

    name: Literal["none", "auto", "ratio", "lambda", "exhaustive", "fixed"]
    tradeoff: float = Field(default=_TRADEOFF, ge=0, le=1)
    shapes: tuple[Slice, ...] = ()

    @model_validator(mode="after")
    def _own_fields(self) -> AssistantStrategy:
        if (self.name == "fixed") != bool(self.shapes):
            raise ValueError("shapes: name fixed needs them, and no other name has them")
        if self.name != "lambda" and self.tradeoff != _TRADEOFF:
            raise ValueError(f"tradeoff: it is of name lambda, not of {self.name}")
        return self
