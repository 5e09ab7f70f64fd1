"""The student chosen by accuracy: those of a plan that fit compete in elastic runs, half of them going on each time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgekd.assistants.chain import elastic_flops, finetune_flops, lengthened
from edgekd.assistants.choose import standard_error
from edgekd.assistants.one_run import train_together
from edgekd.errors import UsageError
from edgekd.plan.planner import Planner
from edgekd.plan.stage import make_plan
from edgekd.records.plan import Candidate, Plan
from edgekd.settings.shape import Slice
from edgekd.settings.target import Precision

# Students that compete at most; and what share of the student's training each round has, the last one ever after.
_MOST = 8
_ROUNDS = (0.25, 0.5)


def choose_student(planner: Planner, correction: float = 1.0, without: Sequence[Precision] = ()) -> Plan:
    """The plan, its choice made as `search.select` asks for; see `make_plan` and `by_accuracy`."""
    return by_accuracy(planner, make_plan(planner, correction, without))


def by_accuracy(planner: Planner, plan: Plan) -> Plan:
    """The plan with the most accurate of the students that fit as its choice, where `search.select` asks for it.

    All slices of a round share one elastic run with a schedule of its own, so each is trained on the same texts. What
    is common to all of them is trained every step, and each of the others has its share. They are compared at the look
    where what is common and the last of them, which keeps least importance, are best (`train_elastic`): a small
    advantage for that one, and for one that holds no more than what is common.

    Where validation is too small to rank, importance decides: the one that keeps most of it goes on unless all that go
    on are ahead of it by more than the standard error of the difference; of the last two, the one that keeps more is
    taken unless the other is so far ahead.

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
        why = "accuracy was not compared: only slices of the teacher can be, and fewer than two fit"
        return plan.model_copy(update={"reason": f"{plan.reason}; {why}"})
    notes: dict[Slice, str] = {}
    best, why, spent = _compete(planner, list(found), notes)
    candidates = tuple(
        c.model_copy(update={"note": "; ".join(n for n in (c.note, notes[c.choice]) if n)}) if c.choice in notes else c
        for c in plan.candidates
    )
    cost = spent / finetune_flops(planner.inputs, profile.distill)
    kept = f"{100 * plan.candidates[found[best]].kept:.0f}%"
    reason = why.format(number=len(found), kept=kept) + f"; this comparison cost {cost:.2f} fine-tunes"
    # Why importance alone chose another is no longer true; what else is said of the plan is.
    _, _, other = plan.reason.partition("; ")
    reason = "; ".join(part for part in (reason, other) if part)
    return plan.model_copy(update={"candidates": candidates, "chosen": found[best], "reason": reason})


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
    """The winner, why it is, and the floating-point operations; `left` is in the order of importance kept.

    The reason has places for the `number` of competitors and for what the winner has `kept`.
    """
    spent, number = 0.0, 0
    while True:
        share = _ROUNDS[min(number, len(_ROUNDS) - 1)]
        spec = lengthened(planner.inputs.profile.distill, share)
        run, place = train_together(planner, left, spec, f"select: round {number + 1}, {len(left)} students")
        spent += elastic_flops(planner.inputs, run, planner.inputs.profile.distill.stages[-1].training.batch_size)
        scores = [run.scores[place[choice]] for choice in left]
        counts = [run.counts[place[choice]] for choice in left]
        notes |= {c: f"{100 * s:.1f}% in round {number + 1}" for c, s in zip(left, scores, strict=True)}
        if len(left) <= 2:
            break
        left = [left[i] for i in _better_half(planner, scores, counts)]
        number += 1
    ahead, doubt = abs(scores[1] - scores[0]), standard_error(planner.inputs.task.score, *counts)
    if ahead > doubt:
        best = left[scores.index(max(scores))]
        return (
            best,
            "the most accurate of {number} compared on validation, keeps {kept} of the teacher's importance",
            spent,
        )
    why = (
        "of the two best of {number} compared the one that keeps more of the teacher's importance, {kept}; validation "
        f"({_texts(planner)}) is too small to rank them: they differ by {_points(ahead, doubt)}"
    )
    return left[0], why, spent


def _better_half(planner: Planner, scores: Sequence[float], counts: Sequence[np.ndarray]) -> list[int]:
    """The places of those that go on, in order; the first only drops out where validation can tell that it is worse."""
    ranked = sorted(range(len(scores)), key=lambda i: -scores[i])[: math.ceil(len(scores) / 2)]
    if 0 not in ranked:
        last = ranked[-1]
        behind, doubt = scores[last] - scores[0], standard_error(planner.inputs.task.score, counts[last], counts[0])
        if behind <= doubt:
            ranked[-1] = 0
            planner.progress.say(
                f"select: validation ({_texts(planner)}) is too small to rank: the student that keeps most importance "
                f"goes on, though behind another by {_points(behind, doubt)}"
            )
    return sorted(ranked)


def _texts(planner: Planner) -> str:
    return f"{len(planner.inputs.validation.encodings)} texts"


def _points(difference: float, doubt: float) -> str:
    return f"{100 * difference:.2f} points, standard error {100 * doubt:.2f}"
