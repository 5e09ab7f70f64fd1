"""The search space of student shapes. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from edgekd.models.spec import Spec


class Search(Spec):
    """Which students the plan considers.

    Attributes:
        always_distill: Distil even where the unchanged teacher fits the budget.
        widths: Widths tried, as shares of the teacher's; below 1 the student starts from a PCA projection.
        head_shares: Attention heads a layer, as shares of the teacher's.
        ffn_shares: FFN neurons a layer, as shares of the teacher's.
        finalists: Candidates nearest the budget that are measured for real before one is chosen.
    """

    always_distill: bool = False
    widths: tuple[float, ...] = (1.0, 0.75, 0.5)
    head_shares: tuple[float, ...] = (1.0, 0.75, 0.5, 0.34, 0.25)
    ffn_shares: tuple[float, ...] = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)
    finalists: int = Field(default=10, ge=1)
