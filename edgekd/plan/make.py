"""From a measured device and a measured teacher to the student that keeps most within the budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgekd.plan.finalists import Bench, cautious_ms, measure_medians, pilot, prove
from edgekd.plan.space import SearchSpace, model_mb, over_size, score, too_slow
from edgekd.records.plan import Candidate, Plan, TeacherLatency
from edgekd.settings.profile import Profile
from edgekd.settings.shape import EncoderShape
from edgekd.settings.target import Precision

# What a graph is taken to need before anything is known of it.
_UNKNOWN_MS = 5.0

# Searches before the plan turns to the smallest of the space.
_TRIALS = 4

# A choice that uses less of the limit than this, where predictions proved this much too high, is worth another search.
_USED, _UNMOVED = 0.92, 0.97

# What is expected and what is measured differ by less than this because minutes differ; by more, the table is wrong.
_SLOW_MINUTE = 1.3

# A search in which better ones were just over the limit is followed by one that predicts at least so much more.
_SMALLER = 1.05


def frame(profile: Profile, budget_ms: float, max_length: int, latency: TeacherLatency, correction: float) -> Plan:
    """A plan that holds the unchanged teacher alone; it is chosen if it fits and no student is asked for."""
    limit = budget_ms * (1 - profile.budget.headroom)
    candidates = []
    for precision, measured in latency.measured_ms.items():
        known = measured * correction
        note = latency.dropped.get(precision, "")
        candidates.append(
            Candidate(
                kind="teacher", precision=precision, shape=None, choice=None, kept=1.0,
                predicted_ms=known if latency.predicted else None, measured_ms=None if latency.predicted else known,
                fits=known <= limit and not note, note=note or latency.predicted,
            )
        )  # fmt: skip
    fitting = [i for i, c in enumerate(candidates) if c.fits]
    chosen = fitting[0] if fitting and not profile.search.always_distill else None
    if chosen is not None:
        reason = "the unchanged teacher fits the budget: nothing to distil (--always-distill does it all the same)"
    else:
        reason = "a smaller model is needed" if not fitting else "the teacher fits, but a student was asked for"
    return Plan(
        budget_ms=budget_ms,
        percentile=profile.budget.percentile,
        limit_ms=limit,
        max_length=max_length,
        batch_size=profile.workload.batch_size,
        overhead_ms=latency.overhead_ms,
        tail=latency.tail,
        correction=correction,
        candidates=tuple(candidates),
        chosen=chosen,
        reason=reason,
    )


def with_students(plan: Plan, bench: Bench, space: SearchSpace, predicted: str = "") -> Plan:
    """Add the students that keep most at each depth, width and precision; measure the finalists and choose.

    A pilot near the budget is measured whole: it sets the session options, and how far the table and the tail are off
    there. Finalists are then measured beside the pilot, and the one that keeps most within the limit is taken. Where
    all are over it, or the choice leaves much of it unused, the search begins again with what was learned. It ends with
    the best that measures within the limit; without one only where the smallest of the space was measured and misses.

    Args:
        bench: Where finalists are measured.
        predicted: Why no finalist can be measured, where the device is elsewhere.
    """
    asked = plan.correction
    correction = asked * _teacher_gap(plan, space)
    plan = plan.model_copy(update={"session": bench.target.session_spec(), "correction": correction})
    found, finalists = space.finalists(plan)
    if predicted and finalists:
        return _choose(plan, [c.model_copy(update={"note": predicted}) for c in finalists], found, predicted)
    if predicted:
        return _nothing(plan, space, found)
    best: Plan | None = None
    if finalists:
        plan, known = _piloted(plan, bench, finalists[0], asked, finalists[0].predicted_ms)
        for _ in range(_TRIALS):
            found, finalists = space.finalists(plan)
            if not finalists:
                break
            measured, off = _beside(plan, bench, finalists, known)
            made = _choose(plan, measured, found, predicted)
            best = _better(best, made)
            if made.choice is not None and made.choice.best_known_ms >= _USED * plan.limit_ms:
                return best
            least = 0.0 if made.choice is None else score(made.choice)
            if any(not c.fits and score(c) > least for c in measured):
                off = max(off, _SMALLER)
            elif off > _UNMOVED:
                return best
            plan = plan.model_copy(update={"correction": plan.correction * off})
    if best is not None and best.choice is not None:
        return best
    if found and not finalists:
        return _nothing(plan, space, found)
    return _smallest(plan, bench, space, asked)


def _smallest(plan: Plan, bench: Bench, space: SearchSpace, asked: float) -> Plan:
    """The plan of the smallest student of the space, measured whole: refused only where it surely misses the budget.

    It may use the headroom: nothing smaller is left to go to, and the verdict on the file itself decides.
    """
    floor = space.floor(plan)
    assert floor.shape is not None
    note = over_size(model_mb(floor.shape, floor.precision), space.profile)
    if note:
        return plan.model_copy(update={"candidates": (*plan.candidates, floor), "reason": note})
    proof = prove(bench, floor, plan.session or bench.target.session_spec())
    if proof.against(plan.budget_ms / asked) == "missed":
        note = too_slow(plan, floor, asked * proof.value_ms, "was measured and takes")
    floor = floor.model_copy(update={"measured_ms": asked * proof.value_ms, "fits": not note, "note": note})
    candidates = (*plan.candidates, floor)
    if note:
        return plan.model_copy(update={"candidates": candidates, "reason": note})
    chosen, reason = len(plan.candidates), "the smallest student of the space: nothing larger measured within the limit"
    if asked * proof.value_ms > plan.budget_ms:
        reason += f"; it takes about {asked * proof.value_ms:.2f} ms itself, too near the budget to tell"
    return plan.model_copy(update={"candidates": candidates, "chosen": chosen, "reason": reason})


def _better(one: Plan | None, other: Plan) -> Plan:
    """The plan whose choice keeps more; one without a choice only where the other has none either."""
    if one is None or one.choice is None:
        return other
    return other if other.choice is not None and score(other.choice) > score(one.choice) else one


def with_checkpoint(
    plan: Plan, profile: Profile, bench: Bench, shape: EncoderShape, precisions: Sequence[Precision]
) -> Plan:
    """Add the one shape that a checkpoint has, in each precision, measured as finalists are; FP32 if it fits."""
    asked, session = plan.correction, bench.target.session_spec()
    found = []
    for precision in sorted(precisions):
        note = over_size(model_mb(shape, precision), profile)
        found.append(
            Candidate(
                kind="student", precision=precision, shape=shape, choice=None, kept=0.0, predicted_ms=None,
                measured_ms=None, fits=not note, note=note,
            )
        )  # fmt: skip
    light = [c for c in found if c.fits]
    if light:
        medians = measure_medians(bench, light, session, _UNKNOWN_MS)
        scale = plan.tail * plan.correction
        light = [
            c.model_copy(update={"predicted_ms": (ms + plan.overhead_ms) * scale})
            for c, ms in zip(light, medians, strict=True)
        ]
        plan, known = _piloted(plan.model_copy(update={"session": session}), bench, light[0], asked, None)
        light, _ = _beside(plan, bench, light, known)
    first = len(plan.candidates)
    candidates = (*plan.candidates, *light, *(c for c in found if not c.fits))
    chosen = next((first + i for i, c in enumerate(light) if c.fits), None)
    reason = "the checkpoint fits" if chosen is not None else "the checkpoint is over the limits: take a smaller one"
    return plan.model_copy(update={"candidates": candidates, "chosen": chosen, "reason": reason})


def _teacher_gap(plan: Plan, space: SearchSpace) -> float:
    """How much longer the teacher's bundle took than the table says: what a bundle has, and its graph has not."""
    gaps = []
    for known in plan.candidates:
        if known.kind != "teacher" or known.measured_ms is None:
            continue
        costs = [c for c in space.table.costs if (c.width, c.precision) == (space.shape.hidden, known.precision)]
        for cost in costs:
            model_ms = cost.whole_ms(space.shape.heads, space.shape.ffn)
            gaps.append(known.measured_ms / ((model_ms + plan.overhead_ms) * plan.tail * plan.correction))
    return float(np.median(gaps)) if gaps else 1.0


def _piloted(
    plan: Plan, bench: Bench, candidate: Candidate, asked: float, expected_ms: float | None
) -> tuple[Plan, Candidate]:
    """The plan with what a candidate near the budget told, and that candidate, measured whole.

    A shared machine keeps to a state for a minute, which the speed kernel does not always feel. So what is expected,
    which table and teacher told in minutes of their own, counts as much as what this minute shows: in the median,
    unless that is off by more than any minute is, and always in the tail, which is chance in so few seconds.

    Args:
        asked: The correction that the plan began with, which what is measured whole is subject to as well.
        expected_ms: What it is expected to take whole, correction included; None where only measuring can tell.
    """
    assert candidate.predicted_ms is not None
    expected = _model_ms(candidate.predicted_ms, plan)
    session, median_ms = pilot(bench, candidate, expected)
    median = median_ms + plan.overhead_ms
    off = median / (expected + plan.overhead_ms)
    whole = asked * cautious_ms(prove(bench, candidate, session), plan.headroom)
    if expected_ms is not None:
        level = math.sqrt(off) if 1 / _SLOW_MINUTE < off < _SLOW_MINUTE else off
        whole = level * math.sqrt(expected_ms * whole / off)
    learned = {"session": session, "correction": asked * off, "tail": whole / (asked * median)}
    return plan.model_copy(update=learned), candidate.model_copy(update={"measured_ms": whole})


def _beside(
    plan: Plan, bench: Bench, finalists: Sequence[Candidate], known: Candidate
) -> tuple[list[Candidate], float]:
    """Measure finalists beside one that was measured whole: what they take, as that one's share.

    Returns:
        The finalists with their latencies, and what the predictions of the next search are to be multiplied by.
    """
    session = plan.session or bench.target.session_spec()
    expected = _model_ms(min(c.best_known_ms for c in finalists), plan)
    medians = measure_medians(bench, [known, *finalists], session, expected)
    scale = known.best_known_ms / (medians[0] + plan.overhead_ms)
    measured = [_over(c, scale * (ms + plan.overhead_ms), plan) for c, ms in zip(finalists, medians[1:], strict=True)]
    off = [after.best_known_ms / before.best_known_ms for after, before in zip(measured, finalists, strict=True)]
    return measured, float(np.median(off))


def _over(candidate: Candidate, measured_ms: float, plan: Plan) -> Candidate:
    """The candidate with what was measured, and its verdict against the limit."""
    note = "" if measured_ms <= plan.limit_ms else "measured: over the budget less headroom"
    return candidate.model_copy(update={"measured_ms": measured_ms, "fits": not note, "note": note})


def _model_ms(percentile_ms: float, plan: Plan) -> float:
    """Median of the model alone behind a predicted percentile of the whole call."""
    return max(0.0, percentile_ms / (plan.tail * plan.correction) - plan.overhead_ms)


def _choose(plan: Plan, finalists: Sequence[Candidate], found: Sequence[Candidate], predicted: str) -> Plan:
    """Take the finalist that fits and keeps most."""
    keys = {(c.precision, c.shape, c.choice) for c in finalists}
    students = [*finalists, *(c for c in found if (c.precision, c.shape, c.choice) not in keys)]
    plan = plan.model_copy(update={"candidates": (*plan.candidates, *students)})
    fitting = [c for c in finalists if c.fits]
    if not fitting:
        return plan.model_copy(update={"reason": "no finalist measured within the budget"})
    best = max(fitting, key=score)
    reason = f"keeps {100 * best.kept:.0f}% of the teacher's importance, the most of {len(students)} frontier students"
    if predicted:
        reason += f"; {predicted}"
    return plan.model_copy(update={"chosen": plan.candidates.index(best), "reason": reason})


def _nothing(plan: Plan, space: SearchSpace, found: Sequence[Candidate]) -> Plan:
    """Why no student is within the limits, with the nearest."""
    if not found:
        floor = space.floor(plan)
        return plan.model_copy(update={"candidates": (*plan.candidates, floor), "reason": floor.note})
    smallest = min(model_mb(c.shape, c.precision) for c in found if c.shape is not None)
    reason = f"nothing is within --max-mb {space.profile.accept.max_mb:g}: the smallest in time is {smallest:.3g} MB"
    return plan.model_copy(update={"candidates": (*plan.candidates, *found), "reason": reason})
