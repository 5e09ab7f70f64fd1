"""Stage `make_plan`: from a measured device and a measured teacher to the student that keeps most within the budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.latency.table import LatencyTable, narrowed
from edgekd.plan.finalists import Bench, cautious_ms, measure_medians, pilot, prove
from edgekd.plan.search import best_slices
from edgekd.plan.value import Value
from edgekd.records.plan import Candidate, Plan, TeacherLatency
from edgekd.settings.profile import Profile
from edgekd.settings.shape import EncoderShape, Slice
from edgekd.settings.target import Precision

# INT8 moves the answers a little: of two that keep the same, the exact one is taken.
_INT8_PENALTY = 0.99

# What a graph is taken to need before anything is known of it.
_UNKNOWN_MS = 5.0

# Names and nodes of a layer in the file.
_LAYER_BYTES = {"fp32": 4000, "int8": 8000, "fp16": 4000}

# The whole room and a little less: what fills it by prediction is over it as often as not when it is measured.
_SPARE = (1.0, 0.96, 0.92)

# Rooms tried below that, where a smaller file is wanted than what fills the time.
_TIGHTER = (0.7, 0.5, 0.35, 0.25, 0.18, 0.12)

# Searches before the plan turns to the smallest of the space.
_TRIALS = 4

# A choice that uses less of the limit than this, where predictions proved this much too high, is worth another search.
_USED, _UNMOVED = 0.92, 0.97

# What is expected and what is measured differ by less than this because minutes differ; by more, the table is wrong.
_SLOW_MINUTE = 1.3

# A search in which better ones were just over the limit is followed by one that predicts at least so much more.
_SMALLER = 1.05


@dataclass(frozen=True)
class SearchInput:
    """What the search over students needs; None of it where the teacher cannot be cut.

    Attributes:
        shape: The teacher's.
        value: Importance shares.
        explained: Share of the hidden states' energy kept, by width.
        table: The device's latency table.
        instruction_set: Preset of the INT8 quantiser.
    """

    shape: EncoderShape
    value: Value
    explained: dict[int, float]
    table: LatencyTable
    instruction_set: str


def widths_of(shape: EncoderShape, shares: Sequence[float]) -> list[int]:
    """Hidden widths tried, widest first: multiples of 32, as kernels like them."""
    widths = {shape.hidden if share >= 1 else max(32, round(shape.hidden * share / 32) * 32) for share in shares}
    return sorted((w for w in widths if w <= shape.hidden), reverse=True)


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


def with_students(
    plan: Plan,
    profile: Profile,
    bench: Bench,
    search: SearchInput,
    precisions: Sequence[Precision],
    predicted: str = "",
) -> Plan:
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
    correction = asked * _teacher_gap(plan, search)
    plan = plan.model_copy(update={"session": bench.target.session_spec(), "correction": correction})
    found, finalists = _finalists(plan, profile, search, precisions)
    if predicted and finalists:
        return _choose(plan, [c.model_copy(update={"note": predicted}) for c in finalists], found, predicted)
    if predicted:
        return _nothing(plan, profile, search, precisions, found)
    best: Plan | None = None
    if finalists:
        plan, known = _piloted(plan, bench, finalists[0], asked, finalists[0].predicted_ms)
        for _ in range(_TRIALS):
            found, finalists = _finalists(plan, profile, search, precisions)
            if not finalists:
                break
            measured, off = _beside(plan, bench, finalists, known)
            made = _choose(plan, measured, found, predicted)
            best = _better(best, made)
            if made.choice is not None and made.choice.best_known_ms >= _USED * plan.limit_ms:
                return best
            least = 0.0 if made.choice is None else _score(made.choice)
            if any(not c.fits and _score(c) > least for c in measured):
                off = max(off, _SMALLER)
            elif off > _UNMOVED:
                return best
            plan = plan.model_copy(update={"correction": plan.correction * off})
    if best is not None and best.choice is not None:
        return best
    if found and not finalists:
        return _nothing(plan, profile, search, precisions, found)
    return _smallest(plan, profile, bench, search, precisions, asked)


def _smallest(
    plan: Plan, profile: Profile, bench: Bench, search: SearchInput, precisions: Sequence[Precision], asked: float
) -> Plan:
    """The plan of the smallest student of the space, measured whole: refused only where it surely misses the budget.

    It may use the headroom: nothing smaller is left to go to, and the verdict on the file itself decides.
    """
    floor = _floor(plan, profile, search, precisions)
    assert floor.shape is not None
    note = over_size(model_mb(floor.shape, floor.precision), profile)
    if note:
        return plan.model_copy(update={"candidates": (*plan.candidates, floor), "reason": note})
    proof = prove(bench, floor, plan.session or bench.target.session_spec())
    if proof.against(plan.budget_ms / asked) == "missed":
        note = _too_slow(plan, floor.shape, floor.precision, asked * proof.value_ms, "was measured and takes")
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
    return other if other.choice is not None and _score(other.choice) > _score(one.choice) else one


def _finalists(
    plan: Plan, profile: Profile, search: SearchInput, precisions: Sequence[Precision]
) -> tuple[list[Candidate], list[Candidate]]:
    """The frontier, and those of it to be measured, best first; none where all are too large."""
    found = _frontier(plan, profile, search, precisions)
    light = sorted((c for c in found if c.fits), key=lambda c: (-_score(c), c.predicted_ms))
    return found, light[: profile.search.finalists]


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


def _teacher_gap(plan: Plan, search: SearchInput) -> float:
    """How much longer the teacher's bundle took than the table says: what a bundle has, and its graph has not."""
    gaps = []
    for known in plan.candidates:
        if known.kind != "teacher" or known.measured_ms is None:
            continue
        costs = [c for c in search.table.costs if (c.width, c.precision) == (search.shape.hidden, known.precision)]
        for cost in costs:
            model_ms = cost.whole_ms(search.shape.heads, search.shape.ffn)
            gaps.append(known.measured_ms / ((model_ms + plan.overhead_ms) * plan.tail * plan.correction))
    return float(np.median(gaps)) if gaps else 1.0


def _piloted(
    plan: Plan, bench: Bench, candidate: Candidate, asked: float, expected_ms: float | None
) -> tuple[Plan, Candidate]:
    """The plan with what a candidate near the budget told, and that candidate, measured whole.

    A shared machine keeps to a state for a minute, which the speed kernel does not always feel. So what is expected,
    which table and teacher told in minutes of their own, counts as much as what this minute shows.

    Args:
        asked: The correction that the plan began with, which what is measured whole is subject to as well.
        expected_ms: What it is expected to take whole, correction included; None where only measuring can tell.
    """
    assert candidate.predicted_ms is not None
    expected = _model_ms(candidate.predicted_ms, plan)
    told = pilot(bench, candidate, expected)
    whole = asked * cautious_ms(prove(bench, candidate, told.session), plan.headroom)
    if expected_ms is not None and 1 / _SLOW_MINUTE < whole / expected_ms < _SLOW_MINUTE:
        whole = math.sqrt(whole * expected_ms)
    median = told.median_ms + plan.overhead_ms
    off = median / (expected + plan.overhead_ms)
    learned = {"session": told.session, "correction": asked * off, "tail": whole / (asked * median)}
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
    best = max(fitting, key=_score)
    reason = f"keeps {100 * best.kept:.0f}% of the teacher's importance, the most of {len(students)} frontier students"
    if predicted:
        reason += f"; {predicted}"
    return plan.model_copy(update={"chosen": plan.candidates.index(best), "reason": reason})


def _nothing(
    plan: Plan, profile: Profile, search: SearchInput, precisions: Sequence[Precision], found: Sequence[Candidate]
) -> Plan:
    """Why no student is within the limits, with the nearest."""
    if not found:
        floor = _floor(plan, profile, search, precisions)
        return plan.model_copy(update={"candidates": (*plan.candidates, floor), "reason": floor.note})
    smallest = min(model_mb(c.shape, c.precision) for c in found if c.shape is not None)
    reason = f"nothing is within --max-mb {profile.accept.max_mb:g}: the smallest in time is {smallest:.3g} MB"
    return plan.model_copy(update={"candidates": (*plan.candidates, *found), "reason": reason})


def over_size(size_mb: float, profile: Profile) -> str:
    """Why a file of this size is not taken; empty where it may be."""
    limit = profile.accept.max_mb
    return f"{size_mb:.3g} MB, over --max-mb {limit:g}" if limit is not None and size_mb > limit else ""


def model_mb(shape: EncoderShape, precision: Precision) -> float:
    """Size of the file that the graph writer, and for INT8 the quantiser, makes of a shape, in MB of 10^6 bytes.

    INT8 holds a byte for each entry of a table or a product, and a scale and a zero point for each column of a
    product. Positions, and the product that yields the logits, stay FP32.
    """
    total = 0.0
    for name, size in shape.weight_shapes().items():
        entries = math.prod(size)
        if precision == "fp32" or len(size) < 2 or name.startswith(("head.output", "embeddings.position")):
            total += 4 * entries
        elif name.startswith("embeddings."):
            total += entries
        else:
            total += entries + 5 * size[0]
    return (total + _LAYER_BYTES[precision] * (1 + shape.depth)) / 1e6


def _score(candidate: Candidate) -> float:
    return candidate.kept * (_INT8_PENALTY if candidate.precision == "int8" else 1.0)


def _frontier(plan: Plan, profile: Profile, search: SearchInput, precisions: Sequence[Precision]) -> list[Candidate]:
    heads, ffn = ladders(search.shape, profile)
    # Predictions are of the median of the model alone; the budget is a percentile of the whole call.
    room = plan.limit_ms / (plan.tail * plan.correction) - plan.overhead_ms
    shares = _SPARE if profile.accept.max_mb is None else (*_SPARE, *_TIGHTER)
    rooms = [share * room for share in shares]
    found = []
    for costs in search.table.costs:
        if costs.precision not in precisions or costs.width not in search.explained:
            continue
        slices = (s for r in rooms for s in best_slices(search.value, costs, heads, ffn, r))
        for slice_ in {s.choice: s for s in slices}.values():
            shape = narrowed_slice(search.shape, costs.width, slice_.choice)
            note = over_size(model_mb(shape, costs.precision), profile)
            found.append(
                Candidate(
                    kind="student",
                    precision=costs.precision,
                    shape=shape,
                    choice=slice_.choice,
                    kept=slice_.kept * search.explained[costs.width] ** len(slice_.choice.layers),
                    predicted_ms=(slice_.median_ms + plan.overhead_ms) * plan.tail * plan.correction,
                    measured_ms=None,
                    fits=not note,
                    note=note,
                )
            )
    return found


def ladders(shape: EncoderShape, profile: Profile) -> tuple[list[int], list[int]]:
    """Numbers of heads and of neurons that a layer may have."""
    heads = {max(1, round(share * max(shape.heads))) for share in profile.search.head_shares}
    step = 8 if max(shape.ffn) >= 64 else 1  # kernels like multiples of 8
    ffn = {max(1, round(share * max(shape.ffn) / step) * step) for share in profile.search.ffn_shares}
    return sorted(heads), sorted(f for f in ffn if f <= max(shape.ffn))


def narrowed_slice(shape: EncoderShape, width: int, choice: Slice) -> EncoderShape:
    """The shape of a slice of the teacher at a width."""
    if width == shape.hidden:
        return shape.model_copy(update={"heads": choice.heads, "ffn": choice.ffn})
    narrow = narrowed(shape, width, choice.heads, choice.ffn)
    return narrow if shape.embedding == shape.hidden else narrow.model_copy(update={"embedding": shape.embedding})


def _floor(plan: Plan, profile: Profile, search: SearchInput, precisions: Sequence[Precision]) -> Candidate:
    """The fastest student there is, with what it would take and why nothing is faster."""
    heads, ffn = ladders(search.shape, profile)
    costs = min(
        (c for c in search.table.costs if c.precision in precisions),
        key=lambda c: c.whole_ms(heads[:1], ffn[:1]),
    )
    whole = (costs.whole_ms(heads[:1], ffn[:1]) + plan.overhead_ms) * plan.tail * plan.correction
    layers = [search.value.layer(layer, heads[0], ffn[0]) for layer in range(search.shape.depth)]
    choice = Slice(layers=(int(np.argmax(layers)),), heads=(heads[0],), ffn=(ffn[0],))
    shape = narrowed_slice(search.shape, costs.width, choice)
    return Candidate(
        kind="student",
        precision=costs.precision,
        shape=shape,
        choice=choice,
        kept=search.value.kept(choice) * search.explained[costs.width],
        predicted_ms=whole,
        measured_ms=None,
        fits=False,
        note=_too_slow(plan, shape, costs.precision, whole, "would take"),
    )


def _too_slow(plan: Plan, shape: EncoderShape, precision: Precision, whole_ms: float, takes: str) -> str:
    """Why not even the smallest student fits."""
    work = plan.overhead_ms * plan.tail * plan.correction
    if work >= plan.budget_ms:
        return (
            f"nothing fits {plan.budget_ms:g} ms: tokenising and answering alone take {work:.2f} ms at "
            f"{plan.max_length} tokens, so no model can meet it; ask for more, or for a smaller --max-length"
        )
    return (
        f"nothing fits {plan.budget_ms:g} ms: the smallest student, one layer of {shape.heads[0]} heads and "
        f"{shape.ffn[0]} neurons at width {shape.hidden}, {precision.upper()}, {takes} {whole_ms:.2f} ms, with "
        f"{work:.2f} ms of tokenising and answering, at {plan.max_length} tokens"
    )


def explained_by_width(states: np.ndarray, widths: Sequence[int], full: int) -> dict[int, float]:
    """Share of the hidden states' energy that the best directions hold at each width."""
    centred = states.astype(np.float64) - states.mean(axis=1, keepdims=True)
    energy = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1]
    return {w: 1.0 if w == full else float(energy[:w].sum() / energy.sum()) for w in widths}
