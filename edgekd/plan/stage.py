"""Stage `make_plan`: the teacher measured, the device's table, the search, the finalists; kept in the store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgekd.bundle import write_core
from edgekd.distill.batches import fingerprint as fingerprint_of
from edgekd.errors import UsageError
from edgekd.graph.writer import WRITER_VERSION
from edgekd.inputs.gather import no_student
from edgekd.latency.table import LatencyTable, measure_table, write_graph
from edgekd.latency.timer import BundleJob
from edgekd.models.checkpoint import checkpoint_shape
from edgekd.models.families import Hosted
from edgekd.models.identity import folder_id
from edgekd.models.teacher import Encoder
from edgekd.plan.finalists import Bench
from edgekd.plan.make import frame, with_checkpoint, with_students
from edgekd.plan.planner import Planner, core_of
from edgekd.plan.space import SearchSpace, explained_by_width, widths_of
from edgekd.plan.value import value_of
from edgekd.records.base import record_of
from edgekd.records.plan import Candidate, Plan
from edgekd.settings.target import Precision, SessionSpec

TABLE_VERSION = 4
PLAN_VERSION = 9


class _NothingFitsError(Exception):
    """A plan without a choice: it is told, and never stored."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.reason)
        self.plan = plan


def make_plan(planner: Planner, correction: float = 1.0, without: Sequence[Precision] = ()) -> Plan:
    """Plan: the teacher first, then, unless it fits, the students.

    Kept, so that a run that was killed goes on with the student it had begun.

    Args:
        correction: Factor on predictions, after a try that missed.
        without: Precisions that were refused for their quality.
    """
    asked = planner.inputs.profile.model_dump(
        mode="json",
        include={"budget", "workload", "target", "search", "export", "accept"},
        exclude={"search": {"select"}},  # decides after the plan is made
    )
    key: dict[str, Any] = {
        "machine": planner.device.fingerprint,
        "probe": None if planner.device.probe is None else str(planner.device.probe.finished),
        "teacher": planner.exported.id,
        "texts": fingerprint_of(planner.inputs.encodings),
        "profile": asked,
        "writer": WRITER_VERSION,
        "correction": correction,
        "without": list(without),
    }
    if planner.inputs.checkpoint is not None:
        key["checkpoint"] = folder_id(planner.inputs.checkpoint.folder)

    def build(_: Path) -> dict[str, Any]:
        plan = _make(planner, correction, without).model_copy(update={"tags": planner.inputs.tags})
        if plan.chosen is None:
            raise _NothingFitsError(plan)
        return plan.model_dump(mode="json")

    try:
        return record_of(planner.session.store.make("make_plan", PLAN_VERSION, key, build), Plan)
    except _NothingFitsError as nothing:
        return nothing.plan


def _make(planner: Planner, correction: float, without: Sequence[Precision]) -> Plan:
    inputs = planner.inputs
    plan = frame(inputs.profile, planner.budget_ms, inputs.max_length, planner.latency, correction)
    precisions = [p for p in planner.precisions if p not in without]
    if plan.chosen is None and inputs.checkpoint is not None:
        return _with_checkpoint(planner, plan, inputs.checkpoint, precisions)
    if plan.chosen is not None:
        return plan
    if inputs.teacher.hosted is None:
        return plan.model_copy(update={"reason": f"the teacher is over the limits, and {no_student(inputs.teacher)}"})
    space = _space(planner, inputs.teacher.hosted, precisions)
    return with_students(plan, bench_of(planner), space, planner.latency.predicted)


def _with_checkpoint(planner: Planner, plan: Plan, checkpoint: Encoder, precisions: Sequence[Precision]) -> Plan:
    if planner.device.probe is not None:
        raise UsageError("distill.init checkpoint: it must be measured, and this device is elsewhere; plan there")
    served = planner.of_student
    shape = checkpoint_shape(checkpoint, served.inputs.task.head, *served.inputs.task.sizes)
    plan = plan.model_copy(update={"max_length": served.inputs.max_length})
    return with_checkpoint(plan, served.inputs.profile, bench_of(served), shape, precisions)


def bench_of(planner: Planner) -> Bench:
    """Where this planner's candidates are measured."""
    profile = planner.inputs.profile
    return Bench(
        target=planner.device.target,
        batch_size=profile.workload.batch_size,
        length=planner.inputs.max_length,
        percentile=profile.budget.percentile,
        options=profile.export,
        instruction_set=planner.device.instruction_set or "",
        progress=planner.progress,
        bundle_of=partial(random_bundle, planner),
    )


def random_bundle(planner: Planner, candidate: Candidate, session: SessionSpec, folder: Path) -> BundleJob:
    """A candidate with random weights as the bundle that it would become."""
    inputs, shape = planner.inputs, candidate.shape
    assert shape is not None
    model = write_graph(
        folder / "random.onnx", shape, candidate.precision, inputs.profile.export,
        planner.device.instruction_set or "", shape.vocabulary,
    )  # fmt: skip
    write_core(folder / "bundle", core_of(inputs, model, shape, session))
    model.unlink()
    return BundleJob("proof", folder / "bundle", tuple(planner.texts), inputs.profile.workload.batch_size)


def _space(planner: Planner, hosted: Hosted, precisions: Sequence[Precision]) -> SearchSpace:
    shape, profile = hosted[0], planner.inputs.profile
    widths = widths_of(shape, profile.search.widths)
    return SearchSpace(
        profile=profile,
        precisions=precisions,
        shape=shape,
        value=value_of(planner.measured.importance),
        explained=explained_by_width(planner.measured.states, widths, shape.hidden),
        table=latency_table(planner, widths),
    )


def latency_table(planner: Planner, widths: Sequence[int]) -> LatencyTable:
    """The device's latency table, measured once for this kind of teacher and workload."""
    profile, hosted = planner.inputs.profile, planner.inputs.teacher.hosted
    assert hosted is not None
    if planner.device.probe is not None:
        return planner.device.probe.table(hosted[0], widths, planner.precisions, planner.inputs.max_length)
    shape = hosted[0].model_copy(update={"vocabulary": 1})  # the vocabulary never moves latency
    key: dict[str, Any] = {
        "machine": planner.device.fingerprint,
        "target": profile.target.model_dump(mode="json"),
        "teacher": shape.model_dump(mode="json"),
        "widths": list(widths),
        "batch_size": profile.workload.batch_size,
        "length": planner.inputs.max_length,
        "graph": profile.export.graph.model_dump(mode="json"),
        "writer": WRITER_VERSION,
    }

    def build(work: Path) -> dict[str, Any]:
        return measure_table(
            planner.device.target,
            hosted[0],
            widths,
            planner.precisions,
            batch_size=profile.workload.batch_size,
            length=planner.inputs.max_length,
            options=profile.export,
            instruction_set=planner.device.instruction_set or "",
            progress=planner.progress,
        ).model_dump(mode="json")

    return record_of(planner.session.store.make("measure_device", TABLE_VERSION, key, build), LatencyTable)
