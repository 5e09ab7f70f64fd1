"""Which assistants stand between teacher and student: the candidates, the rules that choose, and why.

Sizes are shares s of the teacher's encoder parameters. Sources: MiniDisc's t = m + lambda (1 - s) (arXiv:2205.14570),
the law of capacity gap's 2.5 (arXiv:2311.07052). On MiniDisc's own figures size alone ranks the assistants almost as
well as t does, so t decides only where it can: see `by_tradeoff`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Literal

import numpy as np

from edgekd.errors import UsageError
from edgekd.records.assistants import Assistant, Choice
from edgekd.settings.base import Spec
from edgekd.settings.shape import EncoderShape, Slice

# The assistant's encoder over the student's (law of capacity gap), and the share above which a student needs none.
RATIO, NEEDS_NONE = 2.5, 0.35

# Candidates' sizes over the student's, and the largest share that is still a step down from the teacher.
MULTIPLES = (1.5, 2.0, 2.5, 3.5, 5.0)
LARGEST = 0.7

# An assistant that keeps less than this is itself too far from the teacher: its gap is wider than RATIO twice.
_TOO_FAR = RATIO**-2

LAMBDAS = (0.1, 0.15, 0.2, 0.3)

# Sizes tried between student and teacher, and what FFN widths are rounded up to.
_GRID, _ROUNDED = 400, 8

_RESAMPLES = 500


@dataclass(frozen=True)
class Gap:
    """What lies between a teacher and its student.

    Attributes:
        teacher: The teacher's shape.
        student: What the student keeps of it.
        width: The student's width, where it is narrower.
        order: The teacher's layers, the most important first.
    """

    teacher: EncoderShape
    student: Slice
    width: int
    order: tuple[int, ...]

    @cached_property
    def share(self) -> float:
        """The student's share."""
        return self._share(self._shape(self.student, self.width))

    def assistant(self, choice: Slice) -> Assistant:
        """The assistant that keeps this."""
        shape = self._shape(choice, self.teacher.hidden)
        return Assistant(choice=choice, shape=shape, share=self._share(shape))

    def near(self, share: float) -> Assistant | None:
        """The assistant nearest to this share that holds the student and is larger; None beyond `LARGEST`."""
        if share > LARGEST + 0.5 / _GRID:
            return None
        larger = [a for a in self._path if a.share > self.share]
        return min(larger, key=lambda a: abs(a.share - share), default=None)

    def candidates(self) -> tuple[Assistant, ...]:
        """The five sizes, as many of them as there is room for, the smallest first."""
        found = {a.choice: a for m in MULTIPLES if (a := self.near(min(m * self.share, LARGEST))) is not None}
        return tuple(sorted(found.values(), key=lambda a: a.share))

    def beyond(self, first: Assistant, trained: Sequence[Assistant] = ()) -> tuple[Assistant, ...]:
        """The chain that an assistant needs before it, the largest first: one more wherever it is too far.

        Args:
            first: The one that teaches the student.
            trained: Those that are trained already: where some are near enough to the teacher, the nearest in size is
                taken.
        """
        chain = [first]
        while chain[0].share < _TOO_FAR:
            share = RATIO * chain[0].share
            ready = [a for a in trained if a.share >= _TOO_FAR and holds(a.choice, chain[0].choice)]
            more = min(ready, key=lambda a: abs(a.share - share)) if ready else self.near(share)
            if more is None:
                break
            chain.insert(0, more)
        return tuple(chain)

    @cached_property
    def _path(self) -> list[Assistant]:
        """Assistants of growing size, each inside the next: from the student straight to the teacher."""
        choices = dict.fromkeys(self._between(step / _GRID) for step in range(1, _GRID))
        return [a for a in map(self.assistant, choices) if a.share <= LARGEST + 0.5 / _GRID]

    def _between(self, way: float) -> Slice:
        """This part of the way from the student, 0, to the teacher, 1."""
        student = self.student
        # A layer that the student has grows all the way; the others begin one after the other, from nothing.
        starts = {layer: (0.0, h, f) for layer, h, f in zip(student.layers, student.heads, student.ffn, strict=True)}
        missing = [layer for layer in self.order if layer not in starts]
        for i, layer in enumerate(missing, 1):
            if way > i / (len(missing) + 1):
                starts[layer] = (i / (len(missing) + 1), 0, 0)
        layers, heads, ffn = sorted(starts), [], []
        for layer in layers:
            start, *sizes = starts[layer]
            done = (way - start) / (1 - start)
            grown = [
                a + done * (b - a)
                for a, b in zip(sizes, (self.teacher.heads[layer], self.teacher.ffn[layer]), strict=True)
            ]
            heads.append(math.ceil(grown[0]))
            ffn.append(min(self.teacher.ffn[layer], _ROUNDED * math.ceil(grown[1] / _ROUNDED)))
        return Slice(layers=tuple(layers), heads=tuple(heads), ffn=tuple(ffn))

    def _shape(self, choice: Slice, width: int) -> EncoderShape:
        return self.teacher.model_copy(update={"heads": choice.heads, "ffn": choice.ffn, "hidden": width})

    def _share(self, shape: EncoderShape) -> float:
        return shape.encoder_parameters() / self.teacher.encoder_parameters()


class Regime(Spec):
    """Where the benchmark showed a gain of `ratio` over no assistant.

    Attributes:
        task: The task's name.
        largest_share: Of the teacher's encoder that a student kept.
        gain: Mean gain on test over no assistant at the same compute, in points.
        interval: Of the gain; a regime counts only where all of it is above 0.
        source: The record in benchmarks/results.
    """

    task: str
    largest_share: float
    gain: float
    interval: tuple[float, float]
    source: str


class PaidRecord(Spec):
    """Where assistants paid, as `auto` goes by it."""

    schema_version: Literal[1] = 1
    regimes: tuple[Regime, ...] = ()


def paid() -> PaidRecord:
    """The record that is shipped."""
    return PaidRecord.model_validate_json((files("edgekd.assistants") / "assistants.json").read_text(encoding="utf-8"))


def recorded(record: PaidRecord, task: str, share: float) -> Regime | None:
    """The regime in which a student of this share is, if an assistant paid there."""
    return next((r for r in record.regimes if r.task == task and share <= r.largest_share and r.interval[0] > 0), None)


def by_ratio(gap: Gap) -> Choice:
    """One assistant of 2.5 times the student, and one more before it while the gap above is wider than that twice."""
    taken, reason = _ratio(gap)
    return Choice(considered=taken[::-1], taken=taken, reason=reason, picks=_by_size(gap))


def none_because(gap: Gap, reason: str) -> Choice:
    """No assistant; what `ratio` would have taken is told all the same."""
    other = by_ratio(gap)
    return other.model_copy(update={"taken": (), "reason": reason})


def fixed(gap: Gap, shapes: Sequence[Slice]) -> Choice:
    """These assistants, the largest first.

    Raises:
        UsageError: One cannot be cut out of the teacher, is not smaller than it, or does not hold what follows.
    """
    chain = []
    for i, choice in enumerate(shapes):
        where = f"distill.assistants.shapes.{i}"
        for layer, heads, ffn in zip(choice.layers, choice.heads, choice.ffn, strict=True):
            if layer >= gap.teacher.depth:
                raise UsageError(
                    f"{where}: keeps layer {layer}, but the teacher's layers end at {gap.teacher.depth - 1}"
                )
            if heads > gap.teacher.heads[layer] or ffn > gap.teacher.ffn[layer]:
                raise UsageError(
                    f"{where}: keeps {heads} heads and {ffn} neurons of layer {layer}, but the teacher has "
                    f"{gap.teacher.heads[layer]} and {gap.teacher.ffn[layer]} there"
                )
        chain.append(gap.assistant(choice))
        if chain[-1].share >= 1:
            raise UsageError(f"{where}: is as large as the teacher; leave it out")
    names = [f"distill.assistants.shapes.{i}" for i in range(len(chain))]
    for name, larger, smaller in zip(names, shapes, [*shapes[1:], gap.student], strict=True):
        what = "the student" if smaller is gap.student else "the next"
        if not holds(larger, smaller):
            raise UsageError(
                f"{name}: {what} cannot be cut out of it: it must keep all layers, heads and neurons of it"
            )
    for name, assistant, after in zip(names, chain, [*(a.share for a in chain[1:]), gap.share], strict=True):
        if assistant.share <= after:
            raise UsageError(f"{name}: is not larger than what it teaches; leave it out")
    return Choice(considered=tuple(chain[::-1]), taken=tuple(chain), reason="as the profile says", picks=_by_size(gap))


def holds(larger: Slice, smaller: Slice) -> bool:
    """Whether a slice can be cut out of another."""
    sizes = dict(zip(larger.layers, zip(larger.heads, larger.ffn, strict=True), strict=True))
    return all(
        layer in sizes and heads <= sizes[layer][0] and ffn <= sizes[layer][1]
        for layer, heads, ffn in zip(smaller.layers, smaller.heads, smaller.ffn, strict=True)
    )


def by_tradeoff(
    gap: Gap, considered: Sequence[Assistant], weight: float, error: Callable[[int, int], float], texts: int
) -> Choice:
    """MiniDisc's rule, with two guards: validation must tell the two best apart, and the lambdas must agree.

    Args:
        gap: Teacher and student.
        considered: Candidates with their scores, the smallest first.
        weight: Lambda.
        error: Standard error of the difference of two candidates' scores, by their indices.
    """
    ranked = sorted(range(len(considered)), key=lambda i: -considered[i].tradeoff(weight))
    picks = {f"lambda {value:g}": _best(considered, value) for value in dict.fromkeys((weight, *LAMBDAS))}
    nearest = min(considered, key=lambda a: abs(a.share - RATIO * gap.share))
    others: dict[str, Assistant | None] = {
        "ratio": _last(_ratio(gap)[0]),
        "smallest": considered[0],
        "most accurate": max(considered, key=lambda a: a.score or 0.0),
    }
    best = considered[ranked[0]]
    chain = gap.beyond(best, considered)
    reason = f"the best t = m + {weight:g} (1 - s), and the other lambdas agree"
    if len(considered) > 1:
        ahead = best.tradeoff(weight) - considered[ranked[1]].tradeoff(weight)
        doubt = error(ranked[0], ranked[1])
        if ahead < doubt:
            chain, ratio = _ratio(gap, considered)
            reason = (
                f"validation ({texts} texts) is too small to rank: the two best differ by {100 * ahead:.2f} points of "
                f"t, standard error {100 * doubt:.2f}; by size instead: {ratio}"
            )
        elif len({a.choice for a in picks.values()}) > 1:
            chain = gap.beyond(nearest, considered)
            reason = f"the lambdas disagree: the one nearest to {RATIO:g} times the student"
    return Choice(considered=tuple(considered), taken=chain, reason=reason, picks={**picks, **others})


def by_exhaustion(gap: Gap, considered: Sequence[Assistant]) -> Choice:
    """The candidate whose student was best on validation."""
    best = max(considered, key=lambda a: a.reached or 0.0)
    reason = "its student is the best on validation"
    return Choice(considered=tuple(considered), taken=gap.beyond(best), reason=reason, picks=_by_size(gap))


def standard_error(score: Callable[[np.ndarray, np.ndarray], float], one: np.ndarray, other: np.ndarray) -> float:
    """Of the difference of two scores on the same texts, by a paired bootstrap.

    At least what one text brings: two models that agree on all of a few texts are not known to be alike.

    Args:
        score: The metric, from what each text brings to it (texts, k) and how often each counts (texts,).
        one: What each text brings to a model's metric.
        other: The same of another model.
    """
    rng, n = np.random.default_rng(0), len(one)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    return max(1 / n, float(np.std([score(one, times) - score(other, times) for times in drawn])))


def scored(assistants: Sequence[Assistant], scores: Sequence[float]) -> list[Assistant]:
    """The candidates with their scores of the elastic run."""
    return [a.model_copy(update={"score": score}) for a, score in zip(assistants, scores, strict=True)]


def _by_size(gap: Gap) -> dict[str, Assistant | None]:
    """What the rules take that need no training."""
    return {"ratio": _last(_ratio(gap)[0]), "smallest": next(iter(gap.candidates()), None)}


def _ratio(gap: Gap, trained: Sequence[Assistant] = ()) -> tuple[tuple[Assistant, ...], str]:
    kept = f"the student keeps {100 * gap.share:.0f}% of the teacher's encoder"
    if gap.share >= NEEDS_NONE:
        return (), f"{kept}: an assistant pays only below {100 * NEEDS_NONE:.0f}%"
    first = gap.near(min(RATIO * gap.share, LARGEST))
    if first is None:
        return (), f"{kept}: nothing lies between them"
    return gap.beyond(first, trained), f"{kept}: {RATIO:g} times that is taken"


def _best(considered: Sequence[Assistant], weight: float) -> Assistant:
    return max(considered, key=lambda a: a.tradeoff(weight))


def _last(chain: Sequence[Assistant]) -> Assistant | None:
    return chain[-1] if chain else None
