"""Stage `make_plan`, whole: the teacher measured, the device's table, the search, the finalists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from edgekd.bundle import Core, write_core
from edgekd.distill.batches import fingerprint as fingerprint_of
from edgekd.distill.student import Start
from edgekd.errors import UsageError
from edgekd.export.choice import Place
from edgekd.export.stage import Wanted, export_teacher, exported_of, model_file
from edgekd.graph.writer import WRITER_VERSION
from edgekd.inputs.gather import Inputs
from edgekd.latency.machine import detect_instruction_set, fingerprint, read_machine
from edgekd.latency.table import LatencyTable, measure_table, write_graph
from edgekd.latency.targets.base import Target
from edgekd.latency.targets.build import build_target
from edgekd.latency.timer import BundleJob, Text
from edgekd.models.checkpoint import checkpoint_shape, checkpoint_weights
from edgekd.models.families import Hosted
from edgekd.models.identity import folder_id
from edgekd.models.initialize import (
    Weights,
    project_width,
    random_initial,
    scaled_output,
    slice_again,
    slice_weights,
)
from edgekd.models.student import StudentModel, numpy_weights
from edgekd.models.teacher import Encoder
from edgekd.plan.finalists import Bench
from edgekd.plan.importance import Measured, importance_stage, read_importance
from edgekd.plan.make import (
    SearchInput,
    explained_by_width,
    frame,
    over_size,
    widths_of,
    with_checkpoint,
    with_students,
)
from edgekd.plan.teacher import measure_teacher
from edgekd.plan.value import value_of
from edgekd.progress import Progress
from edgekd.proof.validate import fixed_texts
from edgekd.records.plan import Candidate, Plan, TeacherLatency
from edgekd.remote.devices import check_probe, find_probe
from edgekd.remote.predict import overhead_there, predict_teacher
from edgekd.remote.probe import Probe
from edgekd.session import Session
from edgekd.settings.profile import override
from edgekd.settings.shape import EncoderShape
from edgekd.settings.target import CpuTarget, FakeTarget, Precision, SessionSpec
from edgekd.store import Artefact, Store

TABLE_VERSION = 4
PLAN_VERSION = 7


@dataclass(frozen=True)
class Device:
    """The target, ready to be measured on.

    Attributes:
        target: The target.
        fingerprint: The machine's.
        instruction_set: Preset of the INT8 quantiser; None where INT8 is not deployed.
        probe: What the device's probe said, where it is elsewhere.
    """

    target: Target
    fingerprint: str
    instruction_set: str | None
    probe: Probe | None = None

    @cached_property
    def here(self) -> Target:
        """The target, or this machine's CPU where the device is elsewhere: tokenising is measured on it."""
        return self.target if self.probe is None else build_target(CpuTarget())

    @staticmethod
    def of(target: Target, store: Store) -> Device:
        """Check the target and read the machine, or find the probe of a device that is elsewhere.

        Raises:
            UnavailableError: It cannot run here, and there is no probe of it.
        """
        spec, instruction_set = target.spec, None
        probe = find_probe(store, spec.device)
        if probe is not None:
            chosen = probe.instruction_set if "int8" in spec.precisions else None
            return Device(target, probe.fingerprint, chosen, probe)
        target.check()
        if "int8" in spec.precisions:
            asked = spec.instruction_set if isinstance(spec, CpuTarget) else "auto"
            instruction_set = detect_instruction_set() if asked == "auto" else asked
        machine = "fake" if isinstance(spec, FakeTarget) else fingerprint(read_machine())
        return Device(target, machine, instruction_set)


def wanted_of(inputs: Inputs, device: Device) -> Wanted:
    """The ONNX files that the profile asks for.

    Raises:
        UsageError: Forms of the graph are to be measured on a device that is elsewhere.
    """
    profile = inputs.profile
    batch_size = profile.workload.batch_size
    place = Place(device.here, device.fingerprint, inputs.max_length, batch_size, device.probe is not None)
    if profile.export.choose == "measured":
        place.check()
    return Wanted(
        options=profile.export,
        quantize=device.instruction_set,
        max_drop=profile.accept.max_drop,
        batch_size=batch_size,
        texts=inputs.encodings,
        place=place,
        fp16="fp16" in profile.target.precisions,
    )


class _NothingFitsError(Exception):
    """A plan without a choice: it is told, and never stored."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.reason)
        self.plan = plan


@dataclass(frozen=True)
class Planner:
    """Plans for one teacher, one data set and one device.

    Attributes:
        session: Store and engine.
        inputs: Teacher and data.
        device: The device.
        texts: Fixed-length texts of the workload.
        budget_ms: The limit.
        known: What was measured of teacher and device, whatever the budget.
    """

    session: Session
    inputs: Inputs
    device: Device
    texts: Sequence[Text]
    budget_ms: float
    known: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def for_budget(self, budget_ms: float) -> Planner:
        """The same for another budget: nothing is read or measured again."""

        def changed(inputs: Inputs) -> Inputs:
            profile = override(inputs.profile, {"budget.latency_ms": budget_ms})
            return replace(inputs, profile=profile, own=None if inputs.own is None else changed(inputs.own))

        return replace(self, inputs=changed(self.inputs), budget_ms=budget_ms)

    @property
    def progress(self) -> Progress:
        """Where progress is shown."""
        return self.session.engine.progress

    @cached_property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that the planner may choose from on this target."""
        return tuple(p for p in self.inputs.profile.target.precisions if p in ("fp32", "int8"))

    @cached_property
    def exported(self) -> Artefact:
        """The unchanged teacher as ONNX."""
        return export_teacher(
            self.session.store,
            self.session.engine,
            self.inputs.teacher,
            self.inputs.teacher_id,
            self.inputs.task,
            self.inputs.validation,
            wanted_of(self.inputs, self.device),
        )

    def core(self, precision: Precision) -> Core:
        """The unchanged teacher as a bundle's core."""
        hosted = self.inputs.teacher.hosted
        shape = hosted[0] if hosted is not None else None
        return core_of(self.inputs, model_file(self.exported, precision), shape, self.device.target.session_spec())

    @property
    def latency(self) -> TeacherLatency:
        """The unchanged teacher, measured end to end."""
        if "teacher" not in self.known:
            self.known["teacher"] = self._measure_teacher()
        found: TeacherLatency = self.known["teacher"]
        return found

    def _measure_teacher(self) -> TeacherLatency:
        int8 = exported_of(self.exported).quantisation
        dropped: dict[Precision, str] = {}
        if int8 is not None and not int8.kept:
            dropped["int8"] = f"INT8 costs {int8.drop_points:.2f} points on validation (at most {int8.limit_points:g})"
        for precision in self.precisions:
            size = model_file(self.exported, precision).stat().st_size / 1e6
            note = over_size(size, self.inputs.profile)
            if note:
                dropped.setdefault(precision, note)
        if self.device.probe is not None:
            return self._predicted(self.device.probe, dropped)
        return measure_teacher(
            self.session.store,
            self.device.target,
            self.device.fingerprint,
            {precision: self.core(precision) for precision in self.precisions},
            self.exported.id,
            self.texts,
            self.inputs.profile.budget.percentile,
            dropped,
            self.inputs.profile.workload.batch_size,
            self.progress,
        )

    def _predicted(self, probe: Probe, dropped: Mapping[Precision, str]) -> TeacherLatency:
        inputs = self.inputs
        profile, hosted = inputs.profile, inputs.teacher.hosted
        check_probe(probe, profile, self.precisions)
        if hosted is None:
            kind = inputs.teacher.model.config.model_type
            raise UsageError(f"a probe tells nothing of a {kind} teacher: compress it on the device itself")
        overhead = overhead_there(
            self.session.store, self.device.here, probe, self.core("fp32"), inputs.teacher_id, self.texts,
            profile.workload.batch_size, self.progress,
        )  # fmt: skip
        return predict_teacher(
            probe, profile.target.device, hosted[0], self.precisions, inputs.max_length, profile.budget.percentile,
            overhead, dropped,
        )  # fmt: skip

    @cached_property
    def measured(self) -> Measured:
        """Importance of the teacher's parts."""
        return importance_of(self.session, self.inputs)

    def make(self, correction: float = 1.0, without: Sequence[Precision] = ()) -> Plan:
        """Plan: the teacher first, then, unless it fits, the students.

        Kept, so that a run that was killed goes on with the student it had begun.

        Args:
            correction: Factor on predictions, after a try that missed.
            without: Precisions that were refused for their quality.
        """
        asked = self.inputs.profile.model_dump(
            mode="json",
            include={"budget", "workload", "target", "search", "export", "accept"},
            exclude={"search": {"select"}},  # decides after the plan is made
        )
        key: dict[str, Any] = {
            "machine": self.device.fingerprint,
            "probe": None if self.device.probe is None else str(self.device.probe.finished),
            "teacher": self.exported.id,
            "texts": fingerprint_of(self.inputs.encodings),
            "profile": asked,
            "writer": WRITER_VERSION,
            "correction": correction,
            "without": list(without),
        }
        if self.inputs.checkpoint is not None:
            key["checkpoint"] = folder_id(self.inputs.checkpoint.folder)

        def build(_: Path) -> dict[str, Any]:
            plan = self._make(correction, without)
            if plan.chosen is None:
                raise _NothingFitsError(plan)
            return plan.model_dump(mode="json")

        try:
            return Plan.model_validate(self.session.store.make("make_plan", PLAN_VERSION, key, build).result)
        except _NothingFitsError as nothing:
            return nothing.plan

    def _make(self, correction: float, without: Sequence[Precision]) -> Plan:
        inputs = self.inputs
        plan = frame(inputs.profile, self.budget_ms, inputs.max_length, self.latency, correction)
        precisions = [p for p in self.precisions if p not in without]
        if plan.chosen is None and inputs.checkpoint is not None:
            return self._with_checkpoint(plan, inputs.checkpoint, precisions)
        if plan.chosen is not None or inputs.teacher.hosted is None:
            return plan
        search = self._search(inputs.teacher.hosted)
        return with_students(plan, inputs.profile, self.bench(), search, precisions, self.latency.predicted)

    def _with_checkpoint(self, plan: Plan, checkpoint: Encoder, precisions: Sequence[Precision]) -> Plan:
        if self.device.probe is not None:
            raise UsageError("distill.init checkpoint: it must be measured, and this device is elsewhere; plan there")
        served = self.of_student
        shape = checkpoint_shape(checkpoint, served.inputs.task.head, *served.inputs.task.sizes)
        plan = plan.model_copy(update={"max_length": served.inputs.max_length})
        return with_checkpoint(plan, served.inputs.profile, served.bench(), shape, precisions)

    @cached_property
    def of_student(self) -> Planner:
        """The same where the student has a tokenizer of its own: texts and tokens are as that reads them."""
        own = self.inputs.own
        if own is None:
            return self
        texts = fixed_texts(own.reader.tokenizer, own.transfer.split, own.max_length)
        return replace(self, inputs=own, texts=texts, known={})

    def bench(self) -> Bench:
        """Where this planner's candidates are measured."""
        profile = self.inputs.profile
        return Bench(
            target=self.device.target,
            batch_size=profile.workload.batch_size,
            length=self.inputs.max_length,
            percentile=profile.budget.percentile,
            options=profile.export,
            instruction_set=self.device.instruction_set or "",
            progress=self.progress,
            bundle_of=self.random_bundle,
        )

    def random_bundle(self, candidate: Candidate, session: SessionSpec, folder: Path) -> BundleJob:
        """A candidate with random weights as the bundle that it would become."""
        inputs, shape = self.inputs, candidate.shape
        assert shape is not None
        model = write_graph(
            folder / "random.onnx", shape, candidate.precision, inputs.profile.export,
            self.device.instruction_set or "", shape.vocabulary,
        )  # fmt: skip
        write_core(folder / "bundle", core_of(inputs, model, shape, session))
        model.unlink()
        return BundleJob("proof", folder / "bundle", tuple(self.texts), inputs.profile.workload.batch_size)

    def _search(self, hosted: Hosted) -> SearchInput:
        shape = hosted[0]
        widths = widths_of(shape, self.inputs.profile.search.widths)
        return SearchInput(
            shape=shape,
            value=value_of(self.measured.importance),
            explained=explained_by_width(self.measured.states, widths, shape.hidden),
            table=self.table(widths),
            instruction_set=self.device.instruction_set or "",
        )

    def table(self, widths: Sequence[int]) -> LatencyTable:
        """The device's latency table, measured once for this kind of teacher and workload."""
        if "table" not in self.known:
            self.known["table"] = self._measure_table(widths)
        found: LatencyTable = self.known["table"]
        return found

    def _measure_table(self, widths: Sequence[int]) -> LatencyTable:
        profile, hosted = self.inputs.profile, self.inputs.teacher.hosted
        assert hosted is not None
        if self.device.probe is not None:
            return self.device.probe.table(hosted[0], widths, self.precisions, self.inputs.max_length)
        shape = hosted[0].model_copy(update={"vocabulary": 1})  # the vocabulary never moves latency
        key: dict[str, Any] = {
            "machine": self.device.fingerprint,
            "target": profile.target.model_dump(mode="json"),
            "teacher": shape.model_dump(mode="json"),
            "widths": list(widths),
            "batch_size": profile.workload.batch_size,
            "length": self.inputs.max_length,
            "graph": profile.export.graph.model_dump(mode="json"),
            "writer": WRITER_VERSION,
        }

        def build(work: Path) -> dict[str, Any]:
            return measure_table(
                self.device.target,
                hosted[0],
                widths,
                self.precisions,
                batch_size=profile.workload.batch_size,
                length=self.inputs.max_length,
                options=profile.export,
                instruction_set=self.device.instruction_set or "",
                progress=self.progress,
            ).model_dump(mode="json")

        return LatencyTable.model_validate(self.session.store.make("measure_device", TABLE_VERSION, key, build).result)


def core_of(inputs: Inputs, model: Path, shape: EncoderShape | None, session: SessionSpec) -> Core:
    """A model of these inputs' task and tokenizer as a bundle's core."""
    return Core(
        model=model,
        task=inputs.task.spec,
        labels=inputs.task.labels,
        reader=inputs.reader,
        shape=shape,
        max_length=inputs.max_length,
        session=session.model_dump(mode="json"),
    )


def importance_of(session: Session, inputs: Inputs) -> Measured:
    """Importance of the teacher's parts, measured once.

    Raises:
        UsageError: The teacher is of a family that no student can be cut out of.
    """
    hosted = inputs.teacher.hosted
    if hosted is None:
        kind = inputs.teacher.model.config.model_type
        raise UsageError(f"no student can be cut out of a {kind} teacher: BERT, RoBERTa, XLM-R, ELECTRA and DistilBERT")
    return read_importance(
        importance_stage(
            session.store, session.engine, hosted, inputs.teacher_id, inputs.encodings, inputs.rows, inputs.task.output
        )
    )


def first_weights(session: Session, inputs: Inputs, candidate: Candidate) -> Start:
    """First weights of a student, as `distill.init` says.

    Raises:
        UsageError: The plan is not of a student, or was made for another `distill.init`.
    """
    distill, labels = inputs.profile.distill, inputs.task.labels
    if candidate.shape is None or candidate.kind == "teacher":
        raise UsageError("the plan's choice is the unchanged teacher: there is no student to start")
    if inputs.checkpoint is not None:
        shape = checkpoint_shape(inputs.checkpoint, inputs.task.head, *inputs.task.sizes)
        if candidate.shape != shape:
            raise UsageError(f"the plan's student is not {inputs.checkpoint.folder} of distill.init: plan again")
        return Start(shape, _with_scale(inputs, checkpoint_weights(inputs.checkpoint, shape, distill.seed)), labels)
    if candidate.choice is None:
        raise UsageError(f"the plan's student is a checkpoint, but distill.init is {distill.init.name}: plan again")
    if distill.init.name == "random":
        return Start(candidate.shape, _with_scale(inputs, random_initial(candidate.shape, distill.seed)), labels)
    measured, hosted = importance_of(session, inputs), inputs.teacher.hosted
    assert hosted is not None
    shape, weights = slice_weights(*hosted, measured.importance, candidate.choice)
    if candidate.shape.hidden < shape.hidden:
        shape, weights, _ = project_width(shape, weights, measured.states, candidate.shape.hidden)
    return Start(shape, weights, labels)


def _with_scale(inputs: Inputs, weights: Weights) -> Weights:
    """Weights with a new head; that of a regression begins at the teacher's mean and spread, far off as they may be."""
    return scaled_output(weights, inputs.rows) if inputs.task.output == "value" else weights


def weights_again(
    session: Session, inputs: Inputs, student: StudentModel, old: Candidate, new: Candidate
) -> Start | None:
    """First weights of a smaller student, cut out of one that was trained already; None where it is not inside."""
    if old.choice is None or new.choice is None or old.shape is None or new.shape is None:
        return None
    if old.shape.hidden != new.shape.hidden:
        return None
    importance = importance_of(session, inputs).importance
    shape = student.config.encoder_shape
    cut = slice_again(shape, numpy_weights(student), importance, old.choice, new.choice)
    return None if cut is None else Start(*cut, inputs.task.labels)
