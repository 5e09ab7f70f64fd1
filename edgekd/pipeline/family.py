"""Several budgets at once: one bundle each, everything but the students shared through the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from edgekd.bundle import check_out
from edgekd.distill.elastic import ElasticRun
from edgekd.errors import UsageError
from edgekd.models.initialize import Slice
from edgekd.pipeline.compress import compress, gather, planner_of
from edgekd.pipeline.finals import by_accuracy
from edgekd.pipeline.together import cost_together, train_together
from edgekd.plan.stage import Device
from edgekd.profile import override
from edgekd.report.record import Record
from edgekd.report.result import Outcome, Result
from edgekd.request import Request
from edgekd.session import Session
from edgekd.store import write_json
from edgekd.targets.build import build_target


class Member(Record):
    """One budget of a family.

    Attributes:
        budget_ms: The limit.
        folder: Its bundle, inside the family's folder.
        outcome: The verdict.
        shape: The model in words.
        precision: As deployed.
        latency_ms: Measured at the budget's percentile; None where the device is elsewhere.
        score: The metric on test.
        kept: Share of the teacher's metric.
        same_as: The budget, in ms, whose student this is too; None where it is its own.
    """

    budget_ms: float
    folder: str
    outcome: Outcome
    shape: str
    precision: str
    latency_ms: float | None
    score: float
    kept: float | None
    same_as: float | None = None


class Family(Record):
    """What family.json holds: the members, the tightest budget first.

    Attributes:
        metric: Of their scores.
        elastic: Whether their students were trained in one elastic run.
    """

    schema_version: Literal[1] = 1
    metric: str
    elastic: bool = False
    members: tuple[Member, ...]


def folder_of(budget_ms: float) -> str:
    """Name of a member's folder, such as "2.5ms"."""
    return f"{budget_ms:g}ms"


def compress_family(
    session: Session, request: Request, budgets: Sequence[float], out: Path, *, overwrite: bool = False
) -> tuple[Family, list[Result]]:
    """Make a bundle for every budget, in folders of `out`, and family.json beside them.

    The teacher's answers, importance and the device's table are made once. So is a student that two budgets lead to.
    The students are trained in one elastic run and a little on their own after it where that costs fewer
    floating-point operations than one by one; it does from four on.

    Args:
        session: Store and engine.
        request: What is asked for; its budget is replaced.
        budgets: In milliseconds, ascending.
        out: Folder of the family.
        overwrite: Replace bundles of other requests.

    Raises:
        UsageError: `out` is a bundle, or a file.
        EdgekdError: A request, the data or the machine make it impossible.
    """
    if out.is_file() or (out / "verdict.json").is_file():
        raise UsageError(f"--out {out} is {'a file' if out.is_file() else 'a bundle'}: a family needs its own folder")
    requests = {
        folder_of(budget): request.model_copy(
            update={"profile": override(request.profile, {"budget.latency_ms": budget})}
        )
        for budget in budgets
    }
    if len(requests) < len(budgets):
        raise UsageError("--family: two budgets are too near to each other to have folders of their own")
    for folder, asked in requests.items():
        check_out(out / folder, asked, overwrite)
    out.mkdir(parents=True, exist_ok=True)
    shared = _shared_run(session, list(requests.values()))
    members: list[Member] = []
    results: list[Result] = []
    students: dict[tuple[str, str], float] = {}
    for number, budget in enumerate(budgets, 1):
        session.engine.progress.say(f"family: {budget:g} ms, {number} of {len(budgets)}")
        folder = folder_of(budget)
        result = compress(session, requests[folder], out / folder, overwrite=overwrite, shared=shared)
        # The shipped file alone tells precision and weights; an unchanged teacher has no student.
        identity = (result.files[result.model_file], result.files.get("student/model.safetensors", ""))
        same = students.setdefault(identity, budget)
        if same != budget:
            session.engine.progress.say(f"family: {budget:g} ms leads to the model of {same:g} ms; it is trained once")
        members.append(_member(result, budget, folder, None if same == budget else same))
        results.append(result)
        family = Family(metric=result.data.metric, elastic=shared is not None, members=tuple(members))
        write_json(out / "family.json", family.model_dump(mode="json"))
    return family, results


def _shared_run(session: Session, requests: Sequence[Request]) -> ElasticRun | None:
    """The elastic run that the members' students are cut out of; None where training each alone costs less."""
    spec = requests[0].profile.distill
    last = spec.stages[-1]
    # An elastic run learns the teacher's logits alone. Up to three members it trains as many slices a step as there are
    # members, and each of them on its own after it.
    plain = len(spec.stages) == 1 and last.loss.family == "prediction" and last.data == "transfer"
    if len(requests) < 4 or not plain or spec.init.name != "slice" or spec.assistants.name not in ("none", "auto"):
        return None
    planners = []
    slices: list[Slice] = []
    for request in requests:
        device = Device.of(build_target(request.profile.target), session.store)
        planner = planner_of(session, gather(session, request), device)
        planners.append(planner)
        hosted, choice = planner.inputs.teacher.hosted, by_accuracy(planner, planner.make()).choice
        if hosted is None or choice is None or choice.choice is None or choice.shape is None:
            continue  # the unchanged teacher, or nothing, fits
        if choice.shape.hidden == hosted[0].hidden and choice.choice not in slices:
            slices.append(choice.choice)
    if len(slices) < 4:
        return None
    cost = cost_together(planners[0].inputs, slices)
    if cost >= 1:
        return None
    session.engine.progress.say(
        f"family: {len(slices)} students in one elastic run, {cost:.2f} times the operations of one by one"
    )
    run, _ = train_together(planners[0], slices, spec, f"family: elastic run of {len(slices)} students")
    return run


def _member(result: Result, budget: float, folder: str, same_as: float | None) -> Member:
    shipped, teacher, timing = result.shipped, result.row("teacher"), result.latency.judged
    assert shipped is not None
    at = None if timing is None else timing.at(result.percentile)
    chosen = result.chosen
    return Member(
        budget_ms=budget,
        folder=folder,
        outcome=result.outcome,
        shape="the fastest student considered" if chosen is None else chosen.shape,
        precision="int8" if shipped.name.endswith("INT8") else "fp32",
        latency_ms=None if at is None else at.value_ms,
        score=shipped.score,
        kept=None if teacher is None or not teacher.score else shipped.score / teacher.score,
        same_as=same_as,
    )
