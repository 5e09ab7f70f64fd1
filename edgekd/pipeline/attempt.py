"""One try at the budget: train what the plan chose, export it, measure it, and say what should follow."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.assistants.chain import Chain, lengthened, make_chain, refreshing, training_flops
from edgekd.bundle import emptied, write_core
from edgekd.distill.batches import fingerprint
from edgekd.distill.elastic import ElasticRun
from edgekd.distill.label import logits_of
from edgekd.distill.predict import predict_rows
from edgekd.distill.student import Lesson, Start, distill, load_student
from edgekd.export.stage import export_student, exported_of, model_file, onnx_rows
from edgekd.inputs.gather import Inputs
from edgekd.latency.estimate import Estimate
from edgekd.latency.measure import Judgement, Measurement
from edgekd.models.student import StudentModel, numpy_weights
from edgekd.pipeline import collect
from edgekd.plan.device import Device, wanted_of
from edgekd.plan.planner import Planner, core_of
from edgekd.plan.weights import first_weights, weights_again
from edgekd.proof.criteria import latency_criterion, memory_criterion, quality_criterion, size_criterion
from edgekd.proof.validate import Retained, judge_latency, replay_texts, report_latency
from edgekd.records.plan import Candidate, Plan
from edgekd.records.result import Contender, Criterion, Outcome, QualityRow, Timing, Try, overall
from edgekd.records.training import Curve
from edgekd.remote.verify import unmeasured_latency, unmeasured_memory
from edgekd.session import Session
from edgekd.settings.distill import Distill, Stage
from edgekd.settings.losses import HardCE
from edgekd.settings.target import Precision
from edgekd.store import Artefact

ANSWERS_VERSION = 1

# How much longer a student is trained after a miss on quality.
_LONGER = 2.0

# The student before training, by how it was made.
_UNTRAINED: Mapping[str, Contender] = {
    "slice": "student after slicing, untrained",
    "random": "student from random weights, untrained",
    "checkpoint": "student from a checkpoint, untrained",
}

# How much smaller at most the next choice is made because the verdict stayed open.
_MOST_DOUBT = 1.25


@dataclass(frozen=True)
class Attempt:
    """What one try gave.

    Attributes:
        plan: The plan it followed.
        candidate: What was tried.
        exported: The ONNX files.
        precision: Of the one that is shipped.
        judged: The measurement that decides; None where the device is elsewhere, as are the two below.
        fixed: At the fixed length.
        replay: On real texts.
        quality: How much of the teacher's metric the file keeps on test.
        criteria: Latency, quality, and what else was asked for.
        rows: Its lines of the quality table.
        curves: Its training.
        start: The student as cut out of the teacher; None for the unchanged teacher.
        student: The trained student; None for the unchanged teacher.
        chain: The assistants between teacher and student; None for the unchanged teacher.
        stages: What each stage of the student's training gave.
        begun: What its training began with: `start`, an assistant's slice, or that of the try before.
        elastic: Whether it was cut out of an elastic run, and trained on a little.
        longer: Whether it was trained longer than the profile says.
    """

    plan: Plan
    candidate: Candidate
    exported: Artefact
    precision: Precision
    judged: Judgement | None
    fixed: Timing | None
    replay: Timing | None
    quality: Retained
    criteria: tuple[Criterion, ...]
    rows: tuple[QualityRow, ...]
    curves: tuple[Curve, ...]
    start: Start | None = None
    student: Artefact | None = None
    chain: Chain | None = None
    stages: tuple[Artefact, ...] = ()
    begun: Start | None = None
    elastic: bool = False
    longer: bool = False

    @property
    def measured_ms(self) -> float | None:
        """Latency at the budget's percentile; None where the device is elsewhere."""
        return None if self.judged is None else self.judged.value_ms

    @property
    def outcome(self) -> Outcome:
        """Of all criteria together."""
        return overall(self.criteria)

    @property
    def miss_factor(self) -> float:
        """See `miss_factor`; 1 where nothing was measured."""
        if self.judged is None:
            return 1.0
        return miss_factor(self.judged, self.candidate.best_known_ms, self.plan.headroom)

    @property
    def int8_refused(self) -> bool:
        """Whether the precision that was planned cost too much quality."""
        int8 = exported_of(self.exported).quantisation
        return self.candidate.precision == "int8" and int8 is not None and not int8.kept

    def next_action(self, *, can_replan: bool, trained_longer: bool) -> str:
        """What should follow: "done", "without INT8", "plan again", "train alone" or "train longer"."""
        outcomes = {criterion.kind: criterion.outcome for criterion in self.criteria}
        if can_replan and self.int8_refused:
            return "without INT8"
        # Near the budget a smaller student is worth having only where this one keeps enough.
        doubtful = outcomes["latency"] == "inconclusive" and outcomes["quality"] != "missed"
        if can_replan and (outcomes["latency"] == "missed" or (doubtful and self.miss_factor > 1)):
            return "plan again"
        if outcomes["quality"] == "missed" and not trained_longer and self.student is not None:
            return "train alone" if self.elastic else "train longer"
        return "done"

    def as_try(self, action: str) -> Try:
        """The try as the report tells it."""
        missed = self.judged is not None and self.judged.outcome == "missed"
        where = "over the budget" if missed else "too near the budget to tell"
        said = {
            "done": "; ".join(f"{c.name}: {c.outcome}" for c in self.criteria),
            "without INT8": "INT8 costs too much quality: plan again without it",
            "plan again": f"{where}: plan again, predictions times {self.miss_factor:.2f}",
            "train alone": "too much quality lost: train it alone, for the whole schedule",
            "train longer": f"too much quality lost: train {_LONGER:g} times as long",
        }
        return Try(
            what=self.candidate.describe(),
            predicted_ms=self.candidate.best_known_ms,
            measured_ms=self.measured_ms,
            action=said[action],
        )


def miss_factor(judged: Judgement, planned_ms: float, headroom: float) -> float:
    """What predictions are to be multiplied by so that the next choice meets the budget; 1 where it need not be asked.

    After a miss, measured over planned. Where the verdict stayed open with the budget inside the interval, a smaller
    model is a way to a verdict: as much smaller as would have brought the interval's upper end within the budget less
    headroom, so that the same choice cannot come back, but no more than `_MOST_DOUBT`: one noisy tail must not cost a
    third of a student.

    Args:
        planned_ms: What the plan expected at the budget's percentile.
        headroom: Share of the budget that the plan leaves free.
    """
    value, (lower, upper) = judged.value_ms, judged.estimate.interval
    if judged.outcome == "missed":
        return value / planned_ms
    if judged.outcome == "met" or not lower <= judged.budget_ms < upper:
        return 1.0
    cautious = upper * (1 - headroom) / planned_ms if math.isfinite(upper) else _MOST_DOUBT
    return max(value / planned_ms, min(cautious, _MOST_DOUBT))


def attempt(
    planner: Planner,
    plan: Plan,
    candidate: Candidate,
    work: Path,
    *,
    longer: bool = False,
    previous: Attempt | None = None,
    shared: ElasticRun | None = None,
) -> Attempt:
    """Make and measure what the plan chose.

    Args:
        candidate: Its choice, or the nearest where nothing fits.
        longer: Train longer than the profile says.
        previous: The try before; a student that fits inside its student goes on from that one's weights, the same
            student begins where it began.
        shared: An elastic run that the student is cut out of, where it is among its slices.
    """
    if candidate.kind == "teacher":
        return _measured(planner, plan, candidate, planner.exported, work, None, [])
    planner = planner.of_student
    start = first_weights(planner.session, planner.inputs, candidate)
    chain = make_chain(planner.session, planner.inputs, candidate, start)
    cut = None if chain.taken else _out_of(shared, candidate, start.labels)
    begun = cut or _going_on(planner, candidate, previous) or chain.start
    spec = planner.inputs.profile.distill
    if cut is not None:
        planner.progress.say("student: cut out of the family's elastic run")
        spec = refreshing(spec)
    planner.progress.step("distil")
    stages = train_student(planner.session, planner.inputs, begun, chain.lesson, spec, longer=longer)
    student = stages[-1]
    planner.progress.step("export")
    exported = export_of(planner.session, planner.inputs, planner.device, load_student(student.path), student.id)
    made = _measured(planner, plan, candidate, exported, work, start, stages)
    return replace(made, begun=begun, chain=chain, stages=tuple(stages), elastic=cut is not None, longer=longer)


def _going_on(planner: Planner, candidate: Candidate, previous: Attempt | None) -> Start | None:
    """Where the try before leads: to what it began with, for the same student; for one inside it, to its weights."""
    if previous is None or previous.student is None:
        return None
    if previous.candidate.same_student(candidate):
        return None if previous.elastic else previous.begun
    return weights_again(
        planner.session, planner.inputs, load_student(previous.student.path), previous.candidate, candidate
    )


def _out_of(shared: ElasticRun | None, candidate: Candidate, labels: tuple[str, ...]) -> Start | None:
    """The student as an elastic run left it; None where it was not among the slices."""
    if shared is None or candidate.choice is None or candidate.choice not in shared.slices:
        return None
    assert candidate.shape is not None
    whole = candidate.shape.hidden == shared.base.config.encoder_shape.hidden
    return shared.cut(candidate.choice, labels) if whole else None


def baselines(planner: Planner, attempt: Attempt) -> list[QualityRow]:
    """What a student must be compared with: the same first weights fine-tuned without the teacher, and untrained."""
    if attempt.start is None:
        return []
    planner = planner.of_student
    inputs, engine, rows = planner.inputs, planner.session.engine, []
    if inputs.transfer.labelled is not None:
        spec = inputs.profile.distill
        last = spec.stages[-1]
        stage = Stage(loss=HardCE(), data="labelled", training=last.training, max_steps=last.max_steps)
        (tuned,) = distill(
            planner.session.store, engine, attempt.start, inputs.task, inputs.lesson(),
            spec.model_copy(update={"stages": (stage,)}), "baseline: fine-tune without distillation",
        )  # fmt: skip
        logits = predict_rows(load_student(tuned.path), inputs.test.encodings, engine)
        rows.append(_row("student, fine-tuned without distillation", planner, logits)[0])
    if attempt.chain is not None and attempt.chain.taken:
        direct = _without_assistants(planner, attempt, attempt.start, attempt.chain)
        logits = predict_rows(load_student(direct.path), inputs.test.encodings, engine)
        rows.append(_row("student, no assistant at the same compute", planner, logits)[0])
    untrained = predict_rows(attempt.start.model(), inputs.test.encodings, engine)
    rows.append(_row(_UNTRAINED[inputs.profile.distill.init.name], planner, untrained)[0])
    return rows


def _without_assistants(planner: Planner, attempt: Attempt, start: Start, chain: Chain) -> Artefact:
    """The student taught by the teacher itself, for as many floating-point operations as the whole chain took."""
    inputs, spec = planner.inputs, planner.inputs.profile.distill
    spec = lengthened(spec, _LONGER) if attempt.longer else spec
    # The last stage alone is stretched, so its own cost is what the chain's is a multiple of.
    last = spec.model_copy(update={"stages": spec.stages[-1:]})
    own = training_flops(inputs, last, start.shape, attempt.stages[-1:])
    longer = lengthened(spec, 1 + sum(chain.found.flops.values() if chain.found else ()) / own)
    return distill(
        planner.session.store, planner.session.engine, start, inputs.task, inputs.lesson(), longer,
        "baseline: no assistant at the same compute",
    )[-1]  # fmt: skip


def teacher_rows(planner: Planner, final: Attempt) -> list[QualityRow]:
    """The teacher's lines of the quality table: as it is, and quantised."""
    inputs, latency = planner.inputs, planner.latency
    rows = []
    for precision in planner.precisions:
        exact = precision == "fp32"
        logits = inputs.test_rows if exact else _answers(planner, planner.exported, precision)
        row, _ = _row(
            "teacher" if exact else "teacher, INT8",
            planner,
            logits,
            latency=None if latency.predicted else (latency.median_ms[precision], latency.p95_ms[precision]),
            file=model_file(planner.exported, precision),
            shipped=final.student is None and final.precision == precision,
        )
        rows.append(row)
    return rows


def shipped_answers(planner: Planner, attempt: Attempt) -> np.ndarray:
    """Logit rows (rows, labels) of the bundle's model on test, as it answers here."""
    return _answers(planner, attempt.exported, attempt.precision)


def train_student(
    session: Session, inputs: Inputs, start: Start, lesson: Lesson, spec: Distill, *, longer: bool
) -> list[Artefact]:
    """Distil a student, its last stage `longer` than `spec` says where asked; one artefact a stage."""
    spec = lengthened(spec, _LONGER) if longer else spec
    return distill(session.store, session.engine, start, inputs.task, lesson, spec, "student: distil")


def export_of(session: Session, inputs: Inputs, device: Device, model: StudentModel, model_id: str) -> Artefact:
    """Export a trained student as the profile says."""
    return export_student(
        session.store,
        session.engine,
        (model.config.encoder_shape, numpy_weights(model)),
        model_id,
        inputs.task,
        inputs.validation,
        wanted_of(inputs, device),
    )


def _measured(
    planner: Planner,
    plan: Plan,
    candidate: Candidate,
    exported: Artefact,
    work: Path,
    start: Start | None,
    stages: Sequence[Artefact],
) -> Attempt:
    student = stages[-1] if stages else None
    precision: Precision = candidate.precision
    int8 = exported_of(exported).quantisation
    if precision == "int8" and not (int8 is not None and int8.kept):
        precision = "fp32"  # accuracy comes first; the plan learns of it afterwards
    _write(planner, plan, exported, precision, work, start, student)
    planner.progress.step("validate")
    judged = reported = None
    if planner.device.probe is None:
        judged, reported = _judge(planner, work)
    timings = _timings(planner, judged, reported)
    timing = timings.get(planner.inputs.profile.workload.judge)
    rows, quality = _student_rows(planner, exported, precision, timing) if student is not None else ([], None)
    if quality is None:
        logits = _answers(planner, exported, precision)
        quality = _row("teacher", planner, logits)[1]
    accept = planner.inputs.profile.accept
    criteria = [
        latency_criterion(judged)
        if judged is not None
        else unmeasured_latency(planner.inputs.profile, planner.budget_ms, candidate.best_known_ms),
        quality_criterion(quality, planner.inputs.metric_name, accept.min_retained),
    ]
    if accept.max_mb is not None:
        criteria.append(size_criterion(work / "model.onnx", accept.max_mb))
    if accept.max_memory_mb is not None:
        limit = accept.max_memory_mb
        if judged is None or reported is None:
            criteria.append(unmeasured_memory(limit))
        else:
            peak = max(judged.measurement.peak_memory_mb, reported.peak_memory_mb)
            criteria.append(memory_criterion(peak, limit))
    curves = tuple(collect.curves(stages))
    return Attempt(
        plan, candidate, exported, precision, judged, timings.get("fixed"), timings.get("replay"),
        quality, tuple(criteria), tuple(rows), curves, start, student,
    )  # fmt: skip


def _timings(planner: Planner, judged: Judgement | None, reported: Measurement | None) -> dict[str, Timing]:
    """Both measurements as the report shows them, by what was fed; none where the device is elsewhere."""
    if judged is None or reported is None:
        return {}
    judge, target = planner.inputs.profile.workload.judge, planner.device.target
    found = {judge: judged.measurement, "replay" if judge == "fixed" else "fixed": reported}
    said = {"fixed": f"{planner.inputs.max_length} tokens", "replay": "real texts"}
    known: dict[str, dict[float, Estimate]] = {name: {} for name in found}
    known[judge][judged.percentile] = judged.estimate
    return {name: collect.timing(m, said[name], judged.percentile, target, known[name]) for name, m in found.items()}


def _write(
    planner: Planner,
    plan: Plan,
    exported: Artefact,
    precision: Precision,
    work: Path,
    start: Start | None,
    student: Artefact | None,
) -> None:
    """Write what runs into the bundle: the model, its configuration and tokenizer, both precisions, the weights."""
    emptied(work)
    shape = start.shape if start is not None else planner.core("fp32").shape
    session = plan.session or planner.device.target.session_spec()
    write_core(work, core_of(planner.inputs, model_file(exported, precision), shape, session))
    (work / "onnx").mkdir()
    for name in ("model.onnx", "model_quantized.onnx", "model_fp16.onnx"):
        if (exported.path / name).is_file():
            shutil.copyfile(exported.path / name, work / "onnx" / name)
    if student is not None:
        (work / "student").mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(student.path / name, work / "student" / name)


def _judge(planner: Planner, bundle: Path) -> tuple[Judgement, Measurement]:
    """Judge the bundle on the texts that the budget is about, and measure it briefly on the others."""
    profile, target = planner.inputs.profile, planner.device.target
    texts = {"fixed": planner.texts, "replay": replay_texts(planner.inputs.transfer.split)}
    judge, batch_size = profile.workload.judge, profile.workload.batch_size
    other = "replay" if judge == "fixed" else "fixed"
    judged = judge_latency(
        bundle, texts[judge], target, planner.budget_ms, profile.budget.percentile, planner.progress,
        f"validate: latency, {judge} texts", batch_size=batch_size,
    )  # fmt: skip
    reported = report_latency(
        bundle, texts[other], target, planner.progress, f"validate: latency, {other} texts", batch_size=batch_size
    )
    return judged, reported


def _student_rows(
    planner: Planner, exported: Artefact, shipped: Precision, timing: Timing | None
) -> tuple[list[QualityRow], Retained]:
    rows, quality = [], None
    for precision in planner.precisions:
        mine = precision == shipped
        known = {p.q: p.value_ms for p in timing.percentiles} if timing is not None and mine else None
        row, kept = _row(
            "student FP32" if precision == "fp32" else "student INT8",
            planner,
            _answers(planner, exported, precision),
            latency=None if known is None else (known[50.0], known[95.0]),
            file=model_file(exported, precision),
            shipped=mine,
        )
        rows.append(row)
        quality = kept if mine else quality
    assert quality is not None
    return rows, quality


def _answers(planner: Planner, exported: Artefact, precision: Precision) -> np.ndarray:
    """An exported file's logits on test, as it will be served; kept, since they cost a minute on a large test set."""
    test, batch_size = planner.inputs.test, planner.inputs.profile.workload.batch_size
    key: dict[str, Any] = {
        "model": exported.id,
        "precision": precision,
        "texts": fingerprint(test.encodings),
        "batch_size": batch_size,
        "machine": planner.device.fingerprint,
    }

    def build(folder: Path) -> None:
        rows = onnx_rows(
            model_file(exported, precision), test.encodings, batch_size, planner.progress,
            f"validate: answers on test, {precision.upper()}",
        )  # fmt: skip
        np.save(folder / "logits.npy", rows, allow_pickle=False)

    return logits_of(planner.session.store.make("answers", ANSWERS_VERSION, key, build))


def _row(name: Any, planner: Planner, logits: np.ndarray, **columns: Any) -> tuple[QualityRow, Retained]:
    inputs = planner.inputs
    return collect.quality_row(name, inputs.task, inputs.test, logits, inputs.test_rows, **columns)
