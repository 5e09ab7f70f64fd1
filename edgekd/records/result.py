"""Everything that a compress run knows, as one JSON-able value that every rendering reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field, JsonValue, model_validator

from edgekd.errors import ExitCode
from edgekd.records.assistants import Assistants
from edgekd.records.base import Interval, Record, read_record
from edgekd.records.export import Exported
from edgekd.records.labels import CalibrationSummary, OutputsSummary
from edgekd.records.plan import Candidate, Plan
from edgekd.records.training import Curve
from edgekd.records.transfer import TransferSummary
from edgekd.settings.target import Precision

# What is told otherwise since schema 2: a result of schema 1 is read without it.
_OF_SCHEMA_1 = ("candidates", "chain", "chain_summary", "training", "parity", "quantisation", "graphs")

MAX_SAMPLES = 500

Outcome = Literal["met", "missed", "inconclusive", "unmeasured"]
Kind = Literal["latency", "quality", "plain text", "size", "memory", "files", "answers", "drift"]
Contender = Literal[
    "teacher",
    "teacher, INT8",
    "teacher outputs, as given",
    "student INT8",
    "student FP32",
    "student, no assistant at the same compute",
    "student, fine-tuned without distillation",
    "student after slicing, untrained",
    "student from random weights, untrained",
    "student from a checkpoint, untrained",
    "TF-IDF + logistic regression",
]

_WORST_FIRST: tuple[Outcome, ...] = ("missed", "inconclusive", "unmeasured", "met")
EXIT_CODES = {
    "met": ExitCode.MET,
    "missed": ExitCode.MISSED,
    "inconclusive": ExitCode.INCONCLUSIVE,
    "unmeasured": ExitCode.UNMEASURED,
}


class DataSummary(Record):
    """The data that the run saw.

    Attributes:
        name: The folder's or hub set's name, without its path.
        hub_id: Its name on the hub, where it was taken from there.
        task: The task's Hugging Face name.
        metric: What every score of the result is; scores are between 0 and 1.
        labels: Number of labels.
        rows: Rows of each split.
        notes: What was done to the data, such as a split that was made.
    """

    name: str = ""
    hub_id: str | None = None
    task: str
    metric: str
    labels: int
    rows: dict[str, int]
    notes: tuple[str, ...] = ()


class TeacherSummary(Record):
    """The model to be compressed.

    Attributes:
        name: Its folder's name, or what it was made of.
        hub_id: Its name on the hub, where it was taken from there.
        license: As its own card names it.
        family: Its `model_type`.
        shape: Its shape in words.
        parameters: All parameters.
        validation: Score on validation.
        test: Score on test.
    """

    name: str
    hub_id: str | None = None
    license: str | None = None
    family: str
    shape: str
    parameters: int
    validation: float | None = None
    test: float | None = None


class QualityRow(Record):
    """One line of the quality table.

    Attributes:
        name: Which model.
        score: Metric on test.
        interval: Of the score.
        p50_ms: Median latency, at the length of the budget.
        p95_ms: 95th percentile.
        size_mb: Size of the file.
        shipped: Whether it is the bundle's model.onnx.
        precision: Of the file; None where there is none.
    """

    name: Contender
    score: float
    interval: Interval | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    size_mb: float | None = None
    shipped: bool = False
    precision: Precision | None = None


def speed_words(speeds: tuple[float, float]) -> str:
    """How fast the machine was, in a sentence; 1 is its usual speed."""
    return f"during this run the machine ran at {speeds[0]:.2f} to {speeds[1]:.2f} of its usual speed"


class Percentile(Record):
    """Percentile `q` (in percent) of the calls' durations, and its interval, in ms.

    Attributes:
        q: Percent.
        value_ms: On the clock that is judged; service time at the machine's usual speed.
        interval: Of it.
        service_ms: CPU time of the calling thread, as it was; None where no clock tells.
        response_ms: On the wall, as it was.
    """

    q: float
    value_ms: float
    interval: Interval | None = None
    service_ms: float | None = None
    response_ms: float | None = None


class Timing(Record):
    """The exported model measured end to end, at a fixed length or on real texts.

    Attributes:
        texts: What was fed, such as "128 tokens".
        calls: Calls behind the percentiles.
        percentiles: p50, p95, p99 and the budget's own.
        parts: Median ms of "tokenise", "model" and "postprocess".
        load_ms: Median time to load.
        first_call_ms: Median duration of the first call.
        peak_memory_mb: Greatest peak resident memory.
        clock: What the percentiles' values and the samples are.
        waited_share: Share of the response time that the thread only waited; None where no clock tells.
        slowdown: How many times slower the machine was than usual while it was measured.
        samples_ms: At most `MAX_SAMPLES` durations, see `thin`.
    """

    texts: str
    calls: int
    percentiles: tuple[Percentile, ...]
    parts: dict[str, float] = {}
    load_ms: float | None = None
    first_call_ms: float | None = None
    peak_memory_mb: float | None = None
    clock: Literal["service", "response"] = "service"
    waited_share: float | None = None
    slowdown: float = 1.0
    samples_ms: tuple[float, ...] = Field(default=(), max_length=MAX_SAMPLES)

    def at(self, q: float) -> Percentile | None:
        """Percentile `q`, or None where it was not taken."""
        return next((p for p in self.percentiles if p.q == q), None)


class Latency(Record):
    """Both measurements; `judge` names the one that the budget is judged on."""

    judge: Literal["fixed", "replay"] = "fixed"
    fixed: Timing | None = None
    replay: Timing | None = None

    @property
    def judged(self) -> Timing | None:
        """The measurement that the budget is judged on."""
        return self.fixed if self.judge == "fixed" else self.replay

    @property
    def timings(self) -> dict[str, Timing]:
        """Those that were measured, by name."""
        both = (("fixed", self.fixed), ("replay", self.replay))
        return {name: timing for name, timing in both if timing is not None}


class Speedup(Record):
    """How many times as long the unchanged FP32 teacher takes: the ratio of medians, measured in turns.

    Attributes:
        value: Teacher over bundle.
        interval: Of it.
    """

    value: float
    interval: Interval


class Criterion(Record):
    """One thing that was asked for, and what was found.

    Attributes:
        kind: What it is about, for programs.
        name: The same for people, such as "latency p95".
        limit: What was asked for.
        bound: Which side of the limit is wanted.
        unit: Of limit, value and interval; a "share" is between 0 and 1 and printed in percent.
        value: What was found.
        interval: Of the value.
        outcome: By the interval, not by the value alone.
        explanation: One sentence.
    """

    kind: Kind | None = None
    name: str
    limit: float
    bound: Literal["at most", "at least"] = "at most"
    unit: Literal["ms", "MB", "share", "points", ""] = ""
    value: float | None = None
    interval: Interval | None = None
    outcome: Outcome
    explanation: str = ""


class Try(Record):
    """One round of plan, train, measure; `action` says what followed from it."""

    what: str
    predicted_ms: float | None = None
    measured_ms: float | None = None
    action: str


class Result(Record):
    """Everything that a compress run knows.

    Attributes:
        schema_version: Raised when a field changes its meaning or goes.
        name: The bundle's name.
        demo: Whether the data are the embedded, synthetic ones.
        request: The resolved profile, and teacher, data and flags as given.
        budget_ms: The limit.
        percentile: Which percentile the limit is on, in percent.
        data: What the run saw.
        transfer: What the student learned from.
        teacher: What it compressed.
        calibration: How far its labels can be trusted, where there are gold labels.
        outputs: What that was made of, where it was made of another's outputs.
        plan: What was considered, and what was chosen.
        assistants: How teacher assistants were chosen, and their cost; None where no student was cut out of a teacher.
        training: One curve a run.
        origin: Where the student came from, if it was not trained alone.
        quality: The quality table.
        latency: The exported model's, where it was measured.
        speedup: Against the FP32 teacher; None where that is shipped itself, or the device is elsewhere.
        export: The files, proven and judged.
        criteria: What was asked for, and what was found.
        tries: In the order of time.
        machine: Where the latency was measured.
        speed: Slowest and fastest speed of that machine during the run, 1 being its usual one.
        versions: Of edgekd and the libraries.
        model_file: The validated file, one of `files`.
        files: SHA-256 of each file of the bundle, by its path in the bundle.
        timings: Seconds of each stage.
        command: What makes the bundle again.
        started: When the run began, with its time zone.
        finished: When it ended.
    """

    schema_version: Literal[2] = 2
    name: str
    demo: bool = False
    request: dict[str, JsonValue] = {}
    budget_ms: float
    percentile: float = 95
    data: DataSummary
    transfer: TransferSummary | None = None
    teacher: TeacherSummary
    calibration: CalibrationSummary | None = None
    outputs: OutputsSummary | None = None
    plan: Plan | None = None
    assistants: Assistants | None = None
    training: tuple[Curve, ...] = ()
    origin: str = ""
    quality: tuple[QualityRow, ...] = ()
    latency: Latency = Latency()
    speedup: Speedup | None = None
    export: Exported | None = None
    criteria: tuple[Criterion, ...] = ()
    tries: tuple[Try, ...] = ()
    machine: dict[str, JsonValue] = {}
    speed: tuple[float, float] | None = None
    versions: dict[str, str] = {}
    model_file: str = "model.onnx"
    files: dict[str, str] = {}
    timings: dict[str, float] = {}
    command: str = "edgekd compress -c edgekd.yaml"
    started: AwareDatetime
    finished: AwareDatetime

    @model_validator(mode="before")
    @classmethod
    def _of_schema_1(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("schema_version") != 1:
            return content
        return {k: v for k, v in content.items() if k not in _OF_SCHEMA_1} | {"schema_version": 2}

    @property
    def outcome(self) -> Outcome:
        """The verdict on the whole run."""
        return overall(self.criteria)

    @property
    def exit_code(self) -> ExitCode:
        """What the command returns to the shell."""
        return EXIT_CODES[self.outcome]

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All that the plan considered."""
        return () if self.plan is None else self.plan.candidates

    @property
    def chosen(self) -> Candidate | None:
        """The candidate that became the student."""
        return None if self.plan is None else self.plan.choice

    @property
    def shipped(self) -> QualityRow | None:
        """The quality row of the bundle's model.onnx."""
        return next((row for row in self.quality if row.shipped), None)

    def row(self, name: Contender) -> QualityRow | None:
        """The quality row of that name, where there is one."""
        return next((row for row in self.quality if row.name == name), None)


def overall(criteria: Sequence[Criterion]) -> Outcome:
    """The worst outcome: missed, then inconclusive, then unmeasured, then met; nothing asked is unmeasured."""
    found = {criterion.outcome for criterion in criteria} or {"unmeasured"}
    return next(outcome for outcome in _WORST_FIRST if outcome in found)


def thin(samples: Sequence[float], limit: int = MAX_SAMPLES) -> tuple[float, ...]:
    """At most `limit` of the samples, evenly spaced in their order of size, both ends kept."""
    ordered = sorted(float(sample) for sample in samples)
    if len(ordered) <= limit:
        return tuple(ordered)
    return tuple(ordered[round(i * (len(ordered) - 1) / (limit - 1))] for i in range(limit))


def read_result(path: Path) -> Result:
    """Read a result that was written with `model_dump_json`.

    Raises:
        UsageError: The file is missing, not JSON, of a newer schema, or not a result.
    """
    return read_record(path, Result)
