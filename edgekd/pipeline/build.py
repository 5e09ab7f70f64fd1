"""One try at the budget: train what the plan chose, export it, and measure it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekd.assistants.chain import lengthened, make_chain, refreshing
from edgekd.bundle import write_core
from edgekd.distill.elastic import ElasticRun
from edgekd.distill.student import Lesson, Start, distill, load_student
from edgekd.export.stage import export_student, exported_of, model_file
from edgekd.graph.stamp import stamp
from edgekd.inputs.gather import Inputs
from edgekd.latency.interval import Estimate
from edgekd.latency.judge import Judgement
from edgekd.latency.measure import Measurement
from edgekd.models.identity import folder_id
from edgekd.models.student import StudentModel, numpy_weights
from edgekd.output import emptied
from edgekd.pipeline import collect
from edgekd.pipeline.attempt import LONGER, Attempt
from edgekd.pipeline.quality import answers, kept_on_plain_text, student_rows, table_row
from edgekd.plan.device import Device, wanted_of
from edgekd.plan.planner import Planner, core_of
from edgekd.plan.weights import first_weights, weights_again
from edgekd.proof.criteria import latency_criterion, memory_criterion, quality_criterion, size_criterion
from edgekd.proof.latency import judge_latency, report_latency
from edgekd.proof.texts import replay_texts
from edgekd.records.plan import Candidate, Plan
from edgekd.records.result import Latency
from edgekd.remote.verify import unmeasured_latency, unmeasured_memory
from edgekd.session import Session
from edgekd.settings.distill import Distill
from edgekd.settings.target import Precision
from edgekd.store import Artefact


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
        return _measured(planner, plan, candidate, planner.exported, work)
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
    made = _measured(planner, plan, candidate, exported, work, start, tuple(stages))
    return replace(made, begun=begun, chain=chain, elastic=cut is not None, longer=longer)


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


def train_student(
    session: Session, inputs: Inputs, start: Start, lesson: Lesson, spec: Distill, *, longer: bool
) -> list[Artefact]:
    """Distil a student, its last stage `longer` than `spec` says where asked; one artefact a stage."""
    spec = lengthened(spec, LONGER) if longer else spec
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
    start: Start | None = None,
    stages: tuple[Artefact, ...] = (),
) -> Attempt:
    """Write the bundle, measure it, and hold it against all that was asked for."""
    precision: Precision = candidate.precision
    int8 = exported_of(exported).quantisation
    if precision == "int8" and not (int8 is not None and int8.kept):
        precision = "fp32"  # accuracy comes first; the plan learns of it afterwards
    _write(planner, plan, exported, precision, work, start, stages)
    planner.progress.step("validate")
    judged = reported = None
    if planner.device.probe is None:
        judged, reported = _judge(planner, work)
    latency = _latency(planner, judged, reported)
    if stages:
        rows, kept = student_rows(planner, exported, precision, latency.judged)
    else:
        rows, kept = [], table_row("teacher", planner, answers(planner, exported, precision))[1]
    metric, accept = planner.inputs.metric_name, planner.inputs.profile.accept
    criteria = [
        latency_criterion(judged)
        if judged is not None
        else unmeasured_latency(planner.inputs.profile, planner.budget_ms, candidate.best_known_ms),
        quality_criterion(kept, metric, accept.min_retained),
    ]
    if (served := kept_on_plain_text(planner, exported, precision)) is not None:
        criteria.append(quality_criterion(served, metric, accept.min_retained, plain=True))
    if accept.max_mb is not None:
        criteria.append(size_criterion(work / "model.onnx", accept.max_mb))
    if accept.max_memory_mb is not None:
        limit, peaks = accept.max_memory_mb, [m.peak_memory_mb for m in (judged and judged.measurement, reported) if m]
        criteria.append(memory_criterion(max(peaks), limit) if peaks else unmeasured_memory(limit))
    return Attempt(
        plan, candidate, exported, precision, judged, latency, tuple(criteria), tuple(rows), start, stages=stages
    )


def _latency(planner: Planner, judged: Judgement | None, reported: Measurement | None) -> Latency:
    """Both measurements as the report shows them; none where the device is elsewhere."""
    judge, target = planner.inputs.profile.workload.judge, planner.device.target
    if judged is None or reported is None:
        return Latency(judge=judge)
    found = {judge: judged.measurement, "replay" if judge == "fixed" else "fixed": reported}
    said = {"fixed": f"{planner.inputs.max_length} tokens", "replay": "real texts"}
    known: dict[str, dict[float, Estimate]] = {name: {} for name in found}
    known[judge][judged.percentile] = judged.estimate
    timings = {name: collect.timing(m, said[name], judged.percentile, target, known[name]) for name, m in found.items()}
    return Latency(judge=judge, fixed=timings["fixed"], replay=timings["replay"])


def _write(
    planner: Planner,
    plan: Plan,
    exported: Artefact,
    precision: Precision,
    work: Path,
    start: Start | None,
    stages: Sequence[Artefact],
) -> None:
    """Write what runs into the bundle: the model, its configuration and tokenizer, both precisions, the weights."""
    emptied(work)
    shape = start.shape if start is not None else planner.core("fp32").shape
    session = plan.session or planner.device.target.session_spec()
    core = core_of(planner.inputs, model_file(exported, precision), shape, session)
    write_core(work, core)
    # What is only measured and thrown away needs no name.
    facts = {
        "task": core.task.name,
        "labels": json.dumps(list(core.labels), ensure_ascii=False),
        "max_length": str(core.max_length),
        "source_sha256": folder_id(core.reader.folder),
    }
    stamp(work / "model.onnx", facts)
    (work / "onnx").mkdir()
    for name in ("model.onnx", "model_quantized.onnx", "model_fp16.onnx"):
        if (exported.path / name).is_file():
            shutil.copyfile(exported.path / name, work / "onnx" / name)
    if stages:
        (work / "student").mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(stages[-1].path / name, work / "student" / name)


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
