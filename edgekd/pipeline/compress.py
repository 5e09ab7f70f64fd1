"""`compress`: the steps in order. The only place that joins the stages."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from edgekd.assistants.by_accuracy import choose_student
from edgekd.bundle import claimed, publish_bundle
from edgekd.errors import UsageError
from edgekd.export.deploy import write_deploy
from edgekd.latency.clocks import no_thread_clock
from edgekd.pipeline.demo import kept_request
from edgekd.pipeline.keep import keep_answers, keep_evidence, speedup_of, write_kit
from edgekd.pipeline.quality import quality_rows
from edgekd.pipeline.results import result_of
from edgekd.pipeline.sources import gather
from edgekd.pipeline.tries import Planned, StageClock, make_attempts
from edgekd.plan.device import device_of
from edgekd.plan.planner import planner_of
from edgekd.records.plan import Plan, read_plan
from edgekd.records.result import Result
from edgekd.report.write import write_reports
from edgekd.session import Session
from edgekd.settings.request import Request


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
    started, clock = datetime.now(UTC), StageClock()
    request = kept_request(request)
    request.profile.budget.asked_ms()  # refuses one that is missing, before the teacher labels a text
    pinned = read_plan(Path(request.plan)) if request.plan else None
    if pinned is not None and request.profile.search.select == "accuracy":
        raise UsageError("--select accuracy goes without --plan, which has chosen already")
    with claimed(out, request, overwrite) as work, _speed_sampled(session, request):
        planned = planned or _planned(session, request, pinned, clock)
        planner, device = planned.planner, planned.planner.device
        session.engine.progress.say(f"plan: {planned.plan.said()}")
        final, tries = make_attempts(planned, work, clock, pinned is not None)
        # Known now; what follows is what it is compared with, and what `edgekd validate` compares with later.
        planner.progress.say(f"verdict: {final.outcome}; {final.criteria[0].name}: {final.criteria[0].explanation}")
        planner.progress.step("report")
        served = planner if final.student is None else planner.of_student
        with clock.stage("baselines"):
            rows = quality_rows(session, request, planner, final, with_baselines)
        with clock.stage("evidence"):
            keep_evidence(served, final, work, own_texts=request.bundle_texts)
            speedup = speedup_of(planner, served, final, work)
        result = result_of(request, out.name, planner, final, tries, rows, speedup, clock.seconds, started)
        if final.elastic:
            result = result.model_copy(update={"origin": planned.origin})
        if device.probe is not None:
            keep_answers(served, final, work)
        write_deploy(work)
        result = write_reports(work, result, request, final.plan)
        if device.probe is not None:
            write_kit(served, work)
        publish_bundle(work, out, request, overwrite)
    return result


def _speed_sampled(session: Session, request: Request) -> AbstractContextManager[None]:
    """Keep the machine's speed log over the run, where the budget is about this machine's CPU."""
    target = request.profile.target
    if target.kind != "onnxruntime-cpu" or target.device != "local":
        return nullcontext()
    return session.log.sampling()


def _planned(session: Session, request: Request, pinned: Plan | None, clock: StageClock) -> Planned:
    """Read teacher and data, and plan, unless a plan is given."""
    device = device_of(session, request.profile.target)
    if session.log.note:
        session.engine.progress.say(session.log.note)
    if why := no_thread_clock():
        session.engine.progress.say(f"{why}: response time is judged")
    session.engine.progress.step("teacher and data")
    with clock.stage("teacher and data"):
        inputs = gather(session, request)
    planner = planner_of(session, inputs, device)
    session.engine.progress.step("plan")
    with clock.stage("plan"):
        return Planned(planner, pinned or choose_student(planner))
