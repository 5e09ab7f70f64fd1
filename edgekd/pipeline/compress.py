"""`compress`: the steps in order. The only place that joins the stages."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.assistants.finals import by_accuracy
from edgekd.assistants.shapes import check_shapes
from edgekd.bundle import claimed, emptied, publish
from edgekd.data.split import TaskData
from edgekd.distill.calibration import calibrate
from edgekd.distill.elastic import ElasticRun
from edgekd.errors import UsageError
from edgekd.export.deploy import write_deploy
from edgekd.export.stage import exported_of
from edgekd.inputs.gather import Inputs, prepare
from edgekd.latency.machine import read_machine
from edgekd.latency.targets.build import build_target
from edgekd.latency.timer import Text
from edgekd.models.teacher import load_teacher
from edgekd.pipeline import collect
from edgekd.pipeline.attempt import Attempt, attempt, baselines, shipped_answers, teacher_rows
from edgekd.pipeline.blackbox import compare, outputs_row, read_with_outputs, teach_from_outputs
from edgekd.pipeline.demo import demo_profile, demo_sources, demo_tfidf, kept_request
from edgekd.plan.device import Device
from edgekd.plan.planner import Planner
from edgekd.plan.stage import make_plan
from edgekd.proof.evidence import write_evidence
from edgekd.proof.validate import fixed_texts, replay_texts
from edgekd.records.labels import OutputsSummary
from edgekd.records.plan import Plan, read_plan
from edgekd.records.result import Latency, QualityRow, Result, Try
from edgekd.remote.verify import keep_reference, make_verify_kit
from edgekd.report.write import write_reports
from edgekd.session import Session, read
from edgekd.settings.request import Request
from edgekd.settings.target import Precision

REPLANS = 2
"""How often at most a choice is planned again that does not meet the budget."""


@dataclass
class _Clock:
    """Seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


@dataclass(frozen=True)
class Planned:
    """A request that was planned before: a family plans all of its members before it trains the first.

    Attributes:
        planner: Teacher, data and device.
        shared: The elastic run that students are cut out of which are among its slices.
        origin: What the report is to say of such a student.
    """

    planner: Planner
    plan: Plan
    shared: ElasticRun | None = None
    origin: str = ""


def compress(
    session: Session,
    request: Request,
    out: Path,
    *,
    overwrite: bool = False,
    with_baselines: bool = True,
    planned: Planned | None = None,
) -> Result:
    """Make a bundle that meets the request's budget, or the best there is with its proof.

    Args:
        request: What is asked for; its budget must be set.
        overwrite: Replace a folder of another request.
        with_baselines: Train what the student is compared with; a benchmark over seeds needs it once.
        planned: The same request, planned before.

    Returns:
        The result, as the bundle's report and verdict hold it.

    Raises:
        EdgekdError: The request, the data or the machine make it impossible.
    """
    started, clock = datetime.now(UTC), _Clock()
    request = kept_request(request)
    pinned = read_plan(Path(request.plan)) if request.plan else None
    if pinned is not None and request.profile.search.select == "accuracy":
        raise UsageError("--select accuracy goes without --plan, which has chosen already")
    with claimed(out, request, overwrite) as work, _speed_sampled(session, request):
        planned = planned or _planned(session, request, pinned, clock)
        planner, device = planned.planner, planned.planner.device
        session.engine.progress.say(f"plan: {planned.plan.said()}")
        final, tries = _attempts(planned, work, clock, pinned is not None)
        # Known now; what follows is what it is compared with, and what `edgekd validate` compares with later.
        planner.progress.say(f"verdict: {final.outcome}; {final.criteria[0].name}: {final.criteria[0].explanation}")
        planner.progress.step("report")
        served = planner if final.student is None else planner.of_student
        with clock.stage("baselines"):
            rows = _quality(session, request, planner, final, with_baselines)
        with clock.stage("evidence"):
            _keep_evidence(served, final, work, own_texts=request.bundle_texts)
        result = _result(request, out.name, planner, final, tries, rows, clock.seconds, started)
        if final.elastic:
            result = result.model_copy(update={"origin": planned.origin})
        if device.probe is not None:
            _keep_reference(served, final, work)
        write_deploy(work)
        result = write_reports(work, result, request, final.plan)
        if device.probe is not None:
            _verify_kit(served, work)
        publish(work, out, request, overwrite)
    return result


def _speed_sampled(session: Session, request: Request) -> AbstractContextManager[None]:
    """Keep the machine's speed log over the run, where the budget is about this machine's CPU."""
    target = request.profile.target
    if target.kind != "onnxruntime-cpu" or target.device != "local":
        return nullcontext()
    return session.log.sampling()


def _planned(session: Session, request: Request, pinned: Plan | None, clock: _Clock) -> Planned:
    """Read teacher and data, and plan, unless a plan is given."""
    device = Device.of(build_target(request.profile.target, session.log), session.store)
    if session.log.note:
        session.engine.progress.say(session.log.note)
    session.engine.progress.step("teacher and data")
    with clock.stage("teacher and data"):
        inputs = gather(session, request)
        check_shapes(inputs)
    planner = planner_of(session, inputs, device)
    session.engine.progress.step("plan")
    with clock.stage("plan"):
        return Planned(planner, pinned or by_accuracy(planner, make_plan(planner)))


def gather(session: Session, request: Request) -> Inputs:
    """Read teacher and data; the demo makes its own, and a teacher's outputs make a local one."""
    profile = request.profile
    data: TaskData
    if request.demo:
        profile = demo_profile(profile)
        teacher_folder, data = demo_sources(session, profile)
        teacher = load_teacher(teacher_folder)
    elif request.teacher_outputs is not None:
        return _from_outputs(session, request, request.teacher_outputs)
    else:
        if not request.teacher or not request.data:
            raise UsageError("--teacher and --data go together: give both, or neither for the demo")
        teacher = load_teacher(request.teacher, trust_remote_code=request.trust_remote_code)
        data = read(session.engine.progress, request.data, request.task, request.columns, request.data_config)
    return prepare(session.store, session.engine, profile, teacher, data)


def _from_outputs(session: Session, request: Request, file: str) -> Inputs:
    """The inputs with a local teacher, made of the outputs in a file."""
    if not request.encoder:
        raise UsageError("--teacher-outputs need --encoder: the folder of an encoder to make a local teacher from")
    data, outputs = read_with_outputs(session, file, request.data, request.task, request.columns, request.data_config)
    taught = teach_from_outputs(session, request.encoder, data, outputs, request.profile)
    inputs = prepare(session.store, session.engine, request.profile, load_teacher(taught.path), data)
    return replace(inputs, outputs=outputs)


def planner_of(session: Session, inputs: Inputs, device: Device) -> Planner:
    """A planner for the request's budget."""
    budget = inputs.profile.budget.latency_ms
    if budget is None:
        raise UsageError("--latency-ms is missing: how many milliseconds may a call take?")
    texts = fixed_texts(inputs.teacher.tokenizer, inputs.transfer.split, inputs.max_length)
    return Planner(session, inputs, device, texts, budget)


def _attempts(planned: Planned, work: Path, clock: _Clock, pinned: bool) -> tuple[Attempt, list[Try]]:
    """Try the plan's choice; plan again where it does not meet the budget, train longer after a miss on quality.

    A try that was merely too near the budget is kept: where a smaller student does worse, it is what is shipped.
    """
    planner, plan, shared = planned.planner, planned.plan, planned.shared
    tries: list[Try] = []
    correction, longer, replans = 1.0, False, 0
    refused: tuple[Precision, ...] = ()
    made: Attempt | None = None
    with TemporaryDirectory(prefix="edgekd-kept-") as folder:
        kept = _Kept(Path(folder) / "bundle")
        while True:
            with clock.stage("distil, export, validate"):
                candidate = plan.choice or plan.nearest()
                made = attempt(planner, plan, candidate, work, longer=longer, previous=made, shared=shared)
            can_replan = not pinned and plan.chosen is not None and replans < REPLANS
            action = made.next_action(can_replan=can_replan, trained_longer=longer)
            if action == "without INT8":
                refused = ("int8",)
            elif action == "plan again":
                correction *= made.miss_factor
            if action in ("without INT8", "plan again"):
                replans += 1
                with clock.stage("plan"):
                    again = by_accuracy(planner, make_plan(planner, correction, refused))
                if _leads_on(again, made):
                    plan = again
                else:
                    action = made.next_action(can_replan=False, trained_longer=longer)
                    planner.progress.say("planned again: there is no smaller student to try")
            tries.append(made.as_try(action))
            if action == "done":
                return kept.better(made, work), tries
            planner.progress.say(f"again: {tries[-1].action}")
            if action in ("train alone", "train longer"):
                shared, longer = None, action == "train longer"
                continue
            if made.outcome == "inconclusive":
                kept.keep(made, work)
            planner.progress.say(f"plan: {plan.said()}")


def _leads_on(plan: Plan, made: Attempt) -> bool:
    """Whether a plan made after a try offers something else: the same again would be judged until it is met by luck.

    After a miss the nearest is worth a try too; what is only too near the budget is better than what surely misses it.
    """
    if plan.choice is None:
        return made.outcome == "missed"
    return not plan.choice.same_model(made.candidate)


@dataclass
class _Kept:
    """A try with its bundle, set aside while a smaller one is tried.

    Attributes:
        folder: Where the bundle is copied to.
        attempt: The try.
    """

    folder: Path
    attempt: Attempt | None = None

    def keep(self, attempt: Attempt, work: Path) -> None:
        """Set a try aside; an earlier one makes room."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(work, self.folder)
        self.attempt = attempt

    def better(self, last: Attempt, work: Path) -> Attempt:
        """The last try, or the one set aside where that came out better; its bundle is then in `work` again."""
        if self.attempt is None or last.outcome != "missed":
            return last
        shutil.copytree(self.folder, emptied(work), dirs_exist_ok=True)
        return self.attempt


def _result(
    request: Request,
    name: str,
    planner: Planner,
    final: Attempt,
    tries: Sequence[Try],
    rows: Sequence[QualityRow],
    seconds: dict[str, float],
    started: datetime,
) -> Result:
    """Everything that the run found, as the report and the verdict tell it."""
    inputs, probe = planner.inputs, planner.device.probe
    source = "embedded demo" if request.demo else Path(str(request.data or request.teacher_outputs)).name
    return Result(
        name=name,
        demo=request.demo,
        request=request.model_dump(mode="json"),
        budget_ms=planner.budget_ms,
        percentile=inputs.profile.budget.percentile,
        data=collect.data_summary(inputs.of_student, source),
        transfer=collect.transfer_summary(inputs.transfer),
        teacher=collect.teacher_summary(inputs, f"made of {Path(request.encoder).name}" if request.encoder else None),
        calibration=calibrate(inputs.task, inputs.validation, inputs.validation_rows),
        outputs=_outputs(request, planner, final),
        plan=final.plan,
        assistants=None if final.chain is None else final.chain.found,
        training=final.curves,
        quality=tuple(rows),
        latency=Latency(judge=inputs.profile.workload.judge, fixed=final.fixed, replay=final.replay),
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


def _keep_evidence(planner: Planner, final: Attempt, work: Path, *, own_texts: bool) -> None:
    """Keep in the bundle what `edgekd validate` compares with later."""
    inputs = planner.inputs
    write_evidence(
        work,
        planner.device.target,
        final.precision,
        planner.texts,
        inputs.profile.workload.batch_size,
        final.measured_ms or final.candidate.best_known_ms,
        planner.progress,
        replay_texts(inputs.transfer.split) if own_texts else (),
    )


def _keep_reference(planner: Planner, final: Attempt, work: Path) -> None:
    """Keep in the bundle what a device's answers will be compared with."""
    inputs = planner.inputs
    keep_reference(
        work,
        inputs.task,
        inputs.metric_name,
        inputs.test.gold,
        inputs.test.counts(inputs.task, inputs.test_rows),
        inputs.task.decide(shipped_answers(planner, final)),
        inputs.test.encodings,
    )


def _verify_kit(planner: Planner, work: Path) -> None:
    """Write the kit that proves the bundle on its device; it holds the user's texts, and they are told so."""
    inputs, test = planner.inputs, planner.inputs.test.split
    texts: Sequence[Text] | Sequence[Sequence[str]] = test.words or test.texts
    if test.pairs is not None:
        texts = list(zip(test.texts, test.pairs, strict=True))
    replay = replay_texts(inputs.transfer.split)
    kit = make_verify_kit(work, inputs.profile, planner.budget_ms, planner.texts, replay, texts)
    planner.progress.say(
        f"{kit.name}: run it on {inputs.profile.target.device}; it holds your test texts, so leave it out where you "
        "deploy the bundle"
    )


def _quality(
    session: Session, request: Request, planner: Planner, final: Attempt, with_baselines: bool
) -> list[QualityRow]:
    """The quality table: the teacher, what is shipped, and what it must be compared with."""
    compared = baselines(planner, final) if with_baselines else []
    rows = [*teacher_rows(planner, final), *outputs_row(planner.inputs), *compared, *final.rows]
    if request.demo:
        rows.append(QualityRow(name="TF-IDF + logistic regression", score=demo_tfidf(session.store)))
    return rows
