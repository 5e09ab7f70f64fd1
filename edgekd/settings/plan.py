"""The search space of student shapes, and how teacher assistants are chosen. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgekd.settings.base import Spec
from edgekd.settings.shape import Slice


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


class NoAssistants(Spec):
    """The teacher teaches the student itself."""

    name: Literal["none"] = "none"


class AutoAssistants(Spec):
    """As `ratio` where the recorded benchmark showed a gain outside its interval, else as `none`."""

    name: Literal["auto"] = "auto"


class RatioAssistants(Spec):
    """One assistant of 2.5 times the student's encoder, where the student keeps less than 0.35 of the teacher's."""

    name: Literal["ratio"] = "ratio"


class LambdaAssistants(Spec):
    """The assistant of the best t = m + lambda (1 - s) in one elastic run (MiniDisc, arXiv:2205.14570).

    m is the candidate's validation metric in [0, 1], s its share of the teacher's encoder parameters.

    Attributes:
        tradeoff: Lambda: what a whole encoder less is worth in the metric. Only this one's pick counts, unless 0.1,
            0.15, 0.2 and 0.3 do not all agree with it: then the candidate nearest to 2.5 times the student is taken.
    """

    name: Literal["lambda"] = "lambda"
    tradeoff: float = Field(default=0.2, ge=0, le=1)


class ExhaustiveAssistants(Spec):
    """A student is trained through every candidate, and the best on validation is taken: for benchmarks."""

    name: Literal["exhaustive"] = "exhaustive"


class FixedAssistants(Spec):
    """These assistants and no others.

    Attributes:
        shapes: What each keeps of the teacher, the largest first; each must hold the one after it, the last
            one the student.
    """

    name: Literal["fixed"] = "fixed"
    shapes: tuple[Slice, ...] = Field(min_length=1)


AssistantsSpec = Annotated[
    NoAssistants | AutoAssistants | RatioAssistants | LambdaAssistants | ExhaustiveAssistants | FixedAssistants,
    Field(discriminator="name"),
]
