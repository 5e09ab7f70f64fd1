"""What a plan says: every candidate considered, and the one chosen. It is JSON: `--plan plan.json` pins it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError, model_validator

from edgekd.errors import UsageError
from edgekd.reading import read_text
from edgekd.settings.base import Spec
from edgekd.settings.shape import EncoderShape, Slice
from edgekd.settings.target import Precision, SessionSpec


class Candidate(Spec):
    """A model that could be deployed.

    Attributes:
        kind: The unchanged teacher, or a student cut from it.
        precision: As deployed.
        shape: Its shape; None for a teacher of another family, which is exported as it is.
        choice: What is cut out of the teacher; None for the teacher itself.
        kept: Share of the teacher's importance that it keeps, in [0, 1].
        predicted_ms: Predicted latency at the budget's percentile, end to end; None where it was measured at once.
        measured_ms: Measured latency at the budget's percentile, end to end; None if it was not measured. Of the one
            that was measured whole, more where its interval is so wide that the budget would not hold it.
        fits: Whether it is within the budget less headroom, by the measured value if there is one.
        note: Why it was not taken, or what is special about it.
    """

    kind: Literal["teacher", "student"]
    precision: Precision
    shape: EncoderShape | None
    choice: Slice | None
    kept: float
    predicted_ms: float | None
    measured_ms: float | None
    fits: bool
    note: str = ""

    @property
    def best_known_ms(self) -> float:
        """The measured latency, else the predicted one."""
        known = self.measured_ms if self.measured_ms is not None else self.predicted_ms
        return float("inf") if known is None else known

    def same_model(self, other: Candidate) -> bool:
        """Whether both would be deployed as the same file, whatever was predicted or measured of each."""
        return self.same_student(other) and self.precision == other.precision

    def same_student(self, other: Candidate) -> bool:
        """Whether both are the same of the teacher, and as wide, in whatever precision."""
        return (self.kind, self.choice, self.shape) == (other.kind, other.choice, other.shape)

    @property
    def shape_words(self) -> str:
        """The shape in words."""
        return "unchanged" if self.shape is None or self.kind == "teacher" else self.shape.describe()

    def describe(self) -> str:
        """A short name for people."""
        return f"{self.kind}, {self.shape_words}, {self.precision.upper()}"


class Plan(Spec):
    """The outcome of planning.

    Attributes:
        budget_ms: The limit.
        percentile: Of the end-to-end latency.
        limit_ms: The limit less headroom, which candidates must be within.
        max_length: Tokens a text at which it was planned.
        batch_size: Texts a call.
        overhead_ms: Median of tokenising and post-processing together.
        tail: The percentile over the median, as measured on this device near the budget.
        correction: What predictions are multiplied by: measured near the budget, and after an earlier try missed.
        session: onnxruntime's options, the fastest measured; None where no student was looked for.
        candidates: All considered, the frontier included.
        chosen: Index of the one chosen; None if nothing fits.
        reason: One sentence.
        tags: The scheme that a word's tags are read in, see `edgekd.runtime.tags`; empty for tasks without.
    """

    schema_version: Literal[1] = 1
    budget_ms: float
    percentile: float
    limit_ms: float
    max_length: int
    batch_size: int
    overhead_ms: float
    tail: float
    correction: float = 1.0
    session: SessionSpec | None = None
    candidates: tuple[Candidate, ...]
    chosen: int | None
    reason: str
    tags: str = ""

    @model_validator(mode="after")
    def _known(self) -> Plan:
        if self.chosen is not None and not 0 <= self.chosen < len(self.candidates):
            raise ValueError(f"chosen is {self.chosen}, of {len(self.candidates)} candidates")
        return self

    @property
    def choice(self) -> Candidate | None:
        """The chosen candidate."""
        return None if self.chosen is None else self.candidates[self.chosen]

    @property
    def headroom(self) -> float:
        """Share of the budget that is left free."""
        return 1.0 - self.limit_ms / self.budget_ms

    def said(self) -> str:
        """What was chosen and why, in a line."""
        name = f"nearest: {self.nearest().describe()}" if self.choice is None else self.choice.describe()
        return "; ".join(part for part in (name, self.reason, self.tags and f"tags are {self.tags}") if part)

    def nearest(self) -> Candidate:
        """The fastest student considered: the best that can be tried where nothing fits."""
        students = [c for c in self.candidates if c.kind == "student"]
        return min(students or self.candidates, key=lambda c: c.best_known_ms)


def read_plan(path: Path) -> Plan:
    """Read a plan that `edgekd plan` wrote.

    Raises:
        UsageError: Missing, broken, or of another schema.
    """
    try:
        plan = Plan.model_validate_json(read_text(path, "name for --plan what `edgekd plan` wrote"))
    except ValidationError as error:
        (first, *_) = error.errors()
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise UsageError(
            f"--plan {path}: not a plan of this version of edgekd ({where}: {first['msg']}); make it again with"
            " `edgekd plan`"
        ) from error
    if not plan.candidates:
        raise UsageError(f"--plan {path}: it has no candidate; make it again with `edgekd plan`")
    return plan


@dataclass(frozen=True)
class TeacherLatency:
    """The unchanged teacher, measured end to end on the target, or predicted where the device is elsewhere.

    Attributes:
        measured_ms: At the budget's percentile, by precision.
        median_ms: The median, by precision.
        p95_ms: The 95th percentile, by precision.
        overhead_ms: Median of tokenising plus post-processing.
        tail: Percentile over median.
        dropped: Precisions that cost too much of the metric, or are too large, with the reason.
        predicted: Where nothing was measured, what the latencies were predicted from.
    """

    measured_ms: dict[Precision, float]
    median_ms: dict[Precision, float]
    p95_ms: dict[Precision, float]
    overhead_ms: float
    tail: float
    dropped: dict[Precision, str]
    predicted: str = ""
