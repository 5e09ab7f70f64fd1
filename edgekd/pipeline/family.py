"""Several budgets at once: one bundle each, everything but the students shared through the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from edgekd.assistants.by_accuracy import choose_student
from edgekd.assistants.chain import ELASTIC_LENGTH, REFRESH, check_chain, lengthened
from edgekd.assistants.one_run import cost_together, train_together
from edgekd.errors import UsageError
from edgekd.output import locked
from edgekd.pipeline.compress import compress
from edgekd.pipeline.members import requests_of
from edgekd.pipeline.sources import gather
from edgekd.pipeline.tries import Planned
from edgekd.plan.device import device_of
from edgekd.plan.planner import planner_of
from edgekd.records.base import Record
from edgekd.records.result import Outcome, Result
from edgekd.session import Session
from edgekd.settings.distill import Distill
from edgekd.settings.request import Request
from edgekd.settings.shape import Slice
from edgekd.store import write_json


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
        elastic: Whether the student was cut out of an elastic run that the family shares.
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
    elastic: bool = False


class Family(Record):
    """What family.json holds: the members, the tightest budget first."""

    schema_version: Literal[1] = 1
    metric: str
    members: tuple[Member, ...]


def compress_family(
    session: Session, request: Request, budgets: Sequence[float], out: Path, *, overwrite: bool = False
) -> tuple[Family, list[Result]]:
    """Make a bundle for every budget, in folders of `out`, and family.json beside them.

    The teacher's answers, importance and the device's table are made once. So is a student that two budgets lead to.
    Every budget is planned before the first student is trained. From three students on they are trained in one elastic
    run, and a little on their own after it, where that costs fewer floating-point operations than one by one.

    Args:
        request: What is asked for; its budget is replaced.
        budgets: In milliseconds, ascending.
        overwrite: Replace bundles of other requests.

    Raises:
        UsageError: See `requests_of`; or another run makes this family.
        EdgekdError: A request, the data or the machine make it impossible.
    """
    requests = requests_of(request, budgets, out, overwrite)
    with locked(out):
        return _make_all(session, requests, out, overwrite)


def _make_all(
    session: Session, requests: Mapping[str, Request], out: Path, overwrite: bool
) -> tuple[Family, list[Result]]:
    """Plan all members, then make one after the other; family.json grows with them."""
    planned = _plan_all(session, list(requests.values()))
    out.mkdir(parents=True, exist_ok=True)
    # Of a run before this one: its bundles stand until theirs are replaced.
    old = _members_in(out)
    members: dict[str, Member] = {}
    results: list[Result] = []
    students: dict[tuple[str, str], float] = {}
    for number, ((folder, asked), known) in enumerate(zip(requests.items(), planned, strict=True), 1):
        budget = known.planner.budget_ms
        session.engine.progress.say(f"family: {budget:g} ms, {number} of {len(requests)}")
        result = compress(session, asked, out / folder, overwrite=overwrite, planned=known)
        # The shipped file alone tells precision and weights; an unchanged teacher has no student.
        identity = (result.files[result.model_file], result.files.get("student/model.safetensors", ""))
        same = students.setdefault(identity, budget)
        if same != budget:
            session.engine.progress.say(f"family: {budget:g} ms leads to the model of {same:g} ms; it is trained once")
        members[folder] = _member(result, budget, folder, None if same == budget else same)
        results.append(result)
        later = [old[f] for f in requests if f in old and f not in members]
        family = Family(metric=result.data.metric, members=(*members.values(), *later))
        write_json(out / "family.json", family.model_dump(mode="json"))
    return family, results


def _members_in(out: Path) -> dict[str, Member]:
    """The members that a run before has left, by folder."""
    try:
        family = Family.model_validate_json((out / "family.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return {m.folder: m for m in family.members if (out / m.folder / "verdict.json").is_file()}


def _plan_all(session: Session, requests: Sequence[Request]) -> list[Planned]:
    """Every member's plan, before the first is trained: what is wrong with the last budget is known at once."""
    first, *_ = requests
    inputs = gather(session, first)
    base = planner_of(session, inputs, device_of(session, first.profile.target))
    found = []
    for request in requests:
        planner = base.for_budget(request.profile.budget.asked_ms())
        plan = choose_student(planner)
        try:
            check_chain(planner, plan)
        except UsageError as error:
            raise UsageError(f"--family {planner.budget_ms:g}: {error}") from error
        found.append(Planned(planner, plan))
    return _together(session, found)


def _together(session: Session, found: list[Planned]) -> list[Planned]:
    """The same, with the elastic run that the students are cut out of where training each alone costs more."""
    planner = found[0].planner
    slices = list(dict.fromkeys(s for s in map(_slice, found) if s is not None))
    if len(slices) < 2:
        return found
    cost = cost_together(planner.inputs, slices)
    alone = _needs_alone(planner.inputs.profile.distill)
    if alone or cost >= 1:
        why = alone or f"one elastic run would take {cost:.2f} times the operations"
        session.engine.progress.say(f"family: the students are trained one by one; {why}")
        return found
    what = f"one elastic run of {len(slices)} students, {cost:.2f} times the operations of one by one"
    session.engine.progress.say(f"family: {what}")
    spec = lengthened(planner.inputs.profile.distill, ELASTIC_LENGTH)
    run, _ = train_together(planner, slices, spec, f"family: elastic run of {len(slices)}")
    origin = (
        f"The student was cut out of {what}, and trained on alone for {100 * REFRESH:.0f}% of the steps; the same "
        f"--family makes it again, its budget alone another."
    )
    return [replace(each, shared=run, origin=origin) for each in found]


def _needs_alone(spec: Distill) -> str:
    """Why an elastic run, which learns the teacher's logits on the texts as they are, cannot train as asked; or ""."""
    last = spec.stages[-1]
    if spec.init.name != "slice":
        return f"distill.init is {spec.init.name}"
    if spec.assistants.name not in ("none", "auto"):
        return f"distill.assistants is {spec.assistants.name}"
    if len(spec.stages) > 1:
        return "distill has several stages"
    plain = last.loss.family == "prediction" and last.weight == 1 and last.data == "transfer"
    if last.online or last.hard_weight or not plain:
        return "its stage learns from more than the teacher's logits on the transfer set"
    return ""


def _slice(planned: Planned) -> Slice | None:
    """What the plan's student keeps of the teacher; None where it is no student, or a narrower one."""
    hosted, choice = planned.planner.inputs.teacher.hosted, planned.plan.choice
    if hosted is None or choice is None or choice.shape is None or choice.shape.hidden != hosted[0].hidden:
        return None
    return choice.choice


def _member(result: Result, budget: float, folder: str, same_as: float | None) -> Member:
    shipped, teacher, timing = result.shipped, result.row("teacher"), result.latency.judged
    assert shipped is not None
    at = None if timing is None else timing.at(result.percentile)
    chosen = result.chosen
    return Member(
        budget_ms=budget,
        folder=folder,
        outcome=result.outcome,
        shape="the fastest student considered" if chosen is None else chosen.shape_words,
        precision=shipped.precision or "fp32",
        latency_ms=None if at is None else at.value_ms,
        score=shipped.score,
        kept=None if teacher is None or not teacher.score else shipped.score / teacher.score,
        same_as=same_as,
        elastic=bool(result.origin),
    )
