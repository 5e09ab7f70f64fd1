"""From all that a run found to the one result that every rendering reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from edgekd.distill.calibration import calibrate
from edgekd.export.stage import exported_of
from edgekd.latency.machine import read_machine
from edgekd.pipeline import collect
from edgekd.pipeline.attempt import Attempt
from edgekd.pipeline.blackbox import compare
from edgekd.pipeline.quality import shipped_answers
from edgekd.plan.planner import Planner
from edgekd.records.labels import OutputsSummary
from edgekd.records.result import QualityRow, Result, Speedup, Try
from edgekd.settings.request import Request


def result_of(
    request: Request,
    name: str,
    planner: Planner,
    final: Attempt,
    tries: Sequence[Try],
    rows: Sequence[QualityRow],
    speedup: Speedup | None,
    seconds: dict[str, float],
    started: datetime,
) -> Result:
    """Everything that the run found, as the report and the verdict tell it."""
    inputs, probe = planner.inputs, planner.device.probe
    return Result(
        name=name,
        demo=request.demo,
        request=request.model_dump(mode="json"),
        budget_ms=planner.budget_ms,
        percentile=inputs.profile.budget.percentile,
        data=collect.data_summary(inputs.of_student, request),
        transfer=collect.transfer_summary(inputs.transfer),
        teacher=collect.teacher_summary(inputs, request),
        calibration=calibrate(inputs.task, inputs.validation, inputs.validation_rows),
        outputs=_outputs(request, planner, final),
        plan=final.plan,
        assistants=None if final.chain is None else final.chain.found,
        training=tuple(collect.curves(final.stages)),
        quality=tuple(rows),
        latency=final.latency,
        speedup=speedup,
        export=exported_of(final.exported),
        criteria=final.criteria,
        speed=planner.session.log.summary() if probe is None else None,
        tries=tuple(tries),
        machine=read_machine().to_json() if probe is None else dict(probe.machine),
        versions=collect.versions(),
        timings=seconds,
        started=started,
        finished=datetime.now(UTC),
    )


def _outputs(request: Request, planner: Planner, final: Attempt) -> OutputsSummary | None:
    """The teacher's outputs against what became of them."""
    if request.teacher_outputs is None:
        return None
    served = planner if final.student is None else planner.of_student
    return compare(planner.inputs, Path(request.teacher_outputs).name, shipped_answers(served, final))
