"""verdict.json: what a program needs to know of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, JsonValue

from edgekd.records.base import Record, read_record
from edgekd.records.export import Quantisation
from edgekd.records.result import (
    Criterion,
    Outcome,
    QualityRow,
    Result,
    Timing,
)


class VerdictBudget(Record):
    """The promise: `percentile` percent of the calls take at most `latency_ms`, at `judge`'s texts, on `clock`."""

    latency_ms: float
    percentile: float
    judge: Literal["fixed", "replay"]
    clock: Literal["service", "response"] | None = None


class VerdictModel(Record):
    """The validated file, by its path in the bundle and its SHA-256 (None where no file was written)."""

    file: str
    sha256: str | None


class Verdict(Record):
    """The content of verdict.json; keys are only ever added while `schema_version` stays.

    Attributes:
        schema_version: 1.
        outcome: "met", "missed", "inconclusive" or "unmeasured".
        exit_code: What the command returned: 0, 1, 5 or 6.
        demo: Whether the data were synthetic.
        task: The task's Hugging Face name.
        metric: What every score is.
        budget: What was promised.
        criteria: Each with limit, value, interval and outcome.
        latency: "fixed" and "replay", whichever was measured, without their samples.
        quality: Scores on test, between 0 and 1.
        quantisation: Whether INT8 was kept, what it costs on validation, and the nodes left in FP32.
        model: The validated file.
        files: SHA-256 of each file of the bundle.
        machine: Where the latency was measured.
        speed: Slowest and fastest speed of the machine during the run, 1 being its usual one.
        versions: Of edgekd and the libraries.
        finished: ISO 8601, with the time zone.
    """

    schema_version: Literal[1] = 1
    outcome: Outcome
    exit_code: int
    demo: bool
    task: str
    metric: str
    budget: VerdictBudget
    criteria: tuple[Criterion, ...]
    latency: dict[Literal["fixed", "replay"], Timing]
    quality: tuple[QualityRow, ...]
    quantisation: Quantisation | None = None
    model: VerdictModel
    files: dict[str, str]
    machine: dict[str, JsonValue]
    speed: tuple[float, float] | None = None
    versions: dict[str, str]
    finished: AwareDatetime


def verdict_json(result: Result) -> dict[str, Any]:
    """What verdict.json holds, in plain types; `Verdict` documents its keys."""
    verdict = Verdict(
        outcome=result.outcome,
        exit_code=int(result.exit_code),
        demo=result.demo,
        task=result.data.task,
        metric=result.data.metric,
        budget=VerdictBudget(
            latency_ms=result.budget_ms,
            percentile=result.percentile,
            judge=result.latency.judge,
            clock=result.latency.judged.clock if result.latency.judged is not None else None,
        ),
        criteria=result.criteria,
        latency={k: t.model_copy(update={"samples_ms": ()}) for k, t in result.latency.timings.items()},
        quality=result.quality,
        quantisation=None if result.export is None else result.export.quantisation,
        model=VerdictModel(file=result.model_file, sha256=result.files.get(result.model_file)),
        files=result.files,
        machine=result.machine,
        speed=result.speed,
        versions=result.versions,
        finished=result.finished,
    )
    return verdict.model_dump(mode="json")


def read_verdict(path: Path) -> Verdict:
    """Read and check a verdict.json.

    Raises:
        UsageError: The file is missing, not JSON, of a newer schema, or not a verdict.
    """
    return read_record(path, Verdict)
