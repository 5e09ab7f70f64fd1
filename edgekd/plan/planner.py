"""What a plan is made of: one teacher, one data set, one device, and what was measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from edgekd.bundle import Core
from edgekd.errors import UsageError
from edgekd.export.stage import export_teacher, exported_of, model_file
from edgekd.inputs.gather import Inputs
from edgekd.latency.timer import Text
from edgekd.plan.device import Device, wanted_of
from edgekd.plan.importance import Measured
from edgekd.plan.measure_teacher import measure_teacher
from edgekd.plan.space import over_size
from edgekd.plan.weights import importance_of
from edgekd.progress import Progress
from edgekd.proof.texts import fixed_texts
from edgekd.records.plan import TeacherLatency
from edgekd.remote.devices import check_probe
from edgekd.remote.predict import overhead_there, predict_teacher
from edgekd.remote.probe import Probe
from edgekd.session import Session
from edgekd.settings.profile import override
from edgekd.settings.shape import EncoderShape
from edgekd.settings.target import Precision, SessionSpec, planned_precisions
from edgekd.store import Artefact


@dataclass(frozen=True)
class Planner:
    """Plans for one teacher, one data set and one device.

    Attributes:
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
        return planned_precisions(self.inputs.profile.target)

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

    @cached_property
    def of_student(self) -> Planner:
        """The same where the student has a tokenizer of its own: texts and tokens are as that reads them."""
        own = self.inputs.own
        if own is None:
            return self
        texts = fixed_texts(own.reader.tokenizer, own.transfer.split, own.max_length)
        return replace(self, inputs=own, texts=texts, known={})


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
        words=inputs.data.word_split,
    )


def planner_of(session: Session, inputs: Inputs, device: Device) -> Planner:
    """A planner for the request's budget."""
    texts = fixed_texts(inputs.teacher.tokenizer, inputs.transfer.split, inputs.max_length)
    return Planner(session, inputs, device, texts, inputs.profile.budget.asked_ms())
