"""The student chosen by accuracy: those of a plan that fit compete in elastic runs, half of them going on each time."""

from __future__ import annotations

import math

from edgekd.errors import UsageError
from edgekd.models.initialize import Slice
from edgekd.pipeline.chain import elastic_flops, finetune_flops, lengthened
from edgekd.pipeline.together import train_together
from edgekd.plan.assistants import standard_error
from edgekd.plan.result import Candidate, Plan
from edgekd.plan.stage import Planner

# Students that compete at most; and what share of the student's training each round has, the last one ever after.
_MOST = 8
_ROUNDS = (0.25, 0.5)


def by_accuracy(planner: Planner, plan: Plan) -> Plan:
    """The plan with the most accurate of the students that fit as its choice, where `search.select` asks for it.

    All slices of a round share one elastic run with a schedule of its own, so each is trained on the same texts; what
    is common to all of them is trained every step, that none has an advantage. The two last must differ by more than
    the standard error of their difference on validation, else the one that keeps more importance is taken.

    Args:
        planner: Teacher and data.
        plan: The plan.

    Raises:
        UsageError: The student is not to be cut out of the teacher.
    """
    profile, choice = planner.inputs.profile, plan.choice
    if profile.search.select != "accuracy" or choice is None or choice.kind == "teacher":
        return plan
    init = profile.distill.init.name
    if init != "slice":
        raise UsageError(f"search.select accuracy compares slices of the teacher, but distill.init is {init}")
    found = fitting(planner, plan)
    if len(found) < 2:
        return _said(plan, "nothing else that fits is a slice of the teacher to compare its accuracy with")
    notes: dict[Slice, str] = {}
    best, why, spent = _compete(planner, list(found), notes)
    candidates = tuple(
        c.model_copy(update={"note": "; ".join(n for n in (c.note, notes[c.choice]) if n)}) if c.choice in notes else c
        for c in plan.candidates
    )
    cost = spent / finetune_flops(planner.inputs, profile.distill)
    plan = plan.model_copy(update={"candidates": candidates, "chosen": found[best]})
    return _said(plan, f"{why} of {len(found)} compared on validation, at the cost of {cost:.2f} fine-tunes")


def fitting(planner: Planner, plan: Plan) -> dict[Slice, int]:
    """The slices that fit, those that keep most first, and the candidate that each would be deployed as."""
    hosted = planner.inputs.teacher.hosted
    assert hosted is not None
    # Measured ones, unless nothing could be.
    measured = any(c.fits and c.measured_ms is not None for c in plan.candidates if c.kind == "student")

    def competes(c: Candidate) -> bool:
        known = c.measured_ms is not None or not measured
        return c.fits and known and c.choice is not None and c.shape is not None and c.shape.hidden == hosted[0].hidden

    places = [i for i, c in enumerate(plan.candidates) if competes(c)]
    # The exact precision of a slice first: it is taken where both fit.
    places.sort(key=lambda i: (-plan.candidates[i].kept, plan.candidates[i].precision != "fp32"))
    found: dict[Slice, int] = {}
    for i in places:
        kept = plan.candidates[i].choice
        assert kept is not None
        found.setdefault(kept, i)
    return dict(list(found.items())[:_MOST])


def _compete(planner: Planner, left: list[Slice], notes: dict[Slice, str]) -> tuple[Slice, str, float]:
    """The winner, in what it is best, and the floating-point operations; `left` is in the order of importance kept."""
    spent, number = 0.0, 0
    while True:
        share = _ROUNDS[min(number, len(_ROUNDS) - 1)]
        spec = lengthened(planner.inputs.profile.distill, share)
        run, place = train_together(planner, left, spec, f"select: round {number + 1}, {len(left)} students")
        spent += elastic_flops(planner.inputs, run, planner.inputs.profile.distill.stages[-1].training.batch_size)
        scores = [run.scores[place[choice]] for choice in left]
        notes |= {c: f"{100 * s:.1f}% in round {number + 1}" for c, s in zip(left, scores, strict=True)}
        if len(left) <= 2:
            break
        ranked = sorted(range(len(left)), key=lambda i: -scores[i])[: math.ceil(len(left) / 2)]
        left = [left[i] for i in sorted(ranked)]
        number += 1
    task = planner.inputs.task
    doubt = standard_error(task.score, *(run.counts[place[choice]] for choice in left))
    if scores[1] - scores[0] > doubt:
        return left[1], "the most accurate", spent
    if scores[0] - scores[1] > doubt:
        return left[0], "the most accurate", spent
    return left[0], "keeps most of the two best, which validation cannot tell apart,", spent


def _said(plan: Plan, why: str) -> Plan:
    return plan.model_copy(update={"reason": f"{plan.reason}; {why}"})
