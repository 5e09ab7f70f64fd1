"""Generic text by its likeness to the target: n-grams keep the best, clusters of the target choose among them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.select.clusters import Embed, TargetClusters, choose
from edgekd.data.select.dedup import THRESHOLD, signatures
from edgekd.data.select.keep import Best, Kept
from edgekd.data.select.ngrams import Counts, Hasher, ImportanceWeights, kl_reduction
from edgekd.data.select.pool import Chunk
from edgekd.errors import DataError
from edgekd.records.transfer import GenericSummary, Likeness
from edgekd.settings.select import Method

Lengths = Callable[[Sequence[str]], NDArray[np.int64]]
Score = Callable[[Sequence[str]], NDArray[Any]]

# What the n-grams keep for the clusters to choose from, in multiples of what is wanted.
CANDIDATES = 5
# The pool's n-grams are counted on a sample of it; likenesses of chosen and refused are compared on smaller ones.
SAMPLE, COMPARED = 200_000, 2_000
EXAMPLES, BINS = 10, 20


@dataclass(frozen=True)
class Selection:
    """Generic texts chosen from a pool.

    Attributes:
        texts: The chosen ones, best first.
        scores: What they were chosen by (texts,): cosines, log importance weights (with noise), or random numbers.
        summary: How they were chosen.
        notes: What was left out, one line each.
    """

    texts: list[str]
    scores: NDArray[np.float64]
    summary: GenericSummary
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Survey:
    """A first look at the pool: its size and a uniform sample in random order."""

    size: int
    sample: list[str]
    sources: dict[str, int]


@dataclass(frozen=True)
class _Goal:
    """The target's n-grams."""

    hasher: Hasher
    counts: Counts
    weights: ImportanceWeights

    @classmethod
    def of(cls, target: Sequence[str], survey: _Survey, buckets: int) -> _Goal:
        hasher = Hasher(buckets)
        counts = hasher.counts(target)
        return cls(hasher, counts, ImportanceWeights(hasher, counts, hasher.counts(survey.sample)))


def select(
    pool: Iterable[Chunk],
    target: Sequence[str],
    wanted: int,
    *,
    method: Method = "cascade",
    seed: int = 0,
    held_out: Sequence[str] = (),
    embed: Embed | None = None,
    clusters: int | None = None,
    buckets: int = 10_000,
    noise: bool = True,
    lengths: Lengths | None = None,
    threshold: float = THRESHOLD,
) -> Selection:
    """Choose texts of a pool that are like the target.

    Nothing near-equal to a target text, a held-out text or a better choice is chosen. The same pool in the same order
    gives the same choice, however it is cut into chunks.

    Args:
        pool: Read twice, so no iterator; see `Pool`.
        wanted: How many to choose. A pool with fewer gives all it has, and a note.
        method: See `GenericText`.
        seed: Decides noise, samples and the start of k-means.
        held_out: Texts of validation and test.
        embed: Texts to vectors (texts, width); "cascade" and "clusters" need it, the others report by it.
        clusters: Clusters of the target; None takes a number that suits it.
        buckets: Buckets that n-grams are hashed into.
        noise: Add Gumbel noise to the importance weights.
        lengths: The unit in which chosen texts are to be as long as the target's; None counts characters.
        threshold: Jaccard similarity of character 4-grams from which texts are near-equal.

    Raises:
        DataError: The pool is empty, or has nothing that is not in target, validation or test.
    """
    _check(pool, target, method, embed)
    watch = _Watch()
    survey = _look(pool, seed)
    goal = _Goal.of(target, survey, buckets)
    watch.stop("survey")
    near = None if embed is None else TargetClusters(target, embed, clusters, seed)
    watch.stop("clusters")
    two_stages = method in ("cascade", "clusters")
    best = Best(
        wanted * (CANDIDATES if two_stages else 1), signatures(target), signatures(held_out), threshold=threshold
    )
    score = _scorer(method, goal.weights, near, noise, seed)
    for source, texts in pool:
        best.add(texts, survey.sources[source], score(texts))
    kept = _some(best.result(), survey)
    watch.stop("scan")
    if two_stages and near is not None:
        scores = near.score(kept.texts) if method == "cascade" else kept.scores
        kept = _nearest(kept, scores, lengths or _characters, target, wanted)
    watch.stop("clusters")
    return _describe(kept, wanted, survey, goal, near, watch, _notes(len(kept.texts), wanted, survey.size, best))


def _some(kept: Kept, survey: _Survey) -> Kept:
    """What was kept, if anything was."""
    if not kept.texts:
        raise DataError(
            f"none of the pool's {survey.size} texts is new: all are near-equal to target or held-out texts"
        )
    return kept


def _nearest(kept: Kept, scores: NDArray[np.float64], lengths: Lengths, target: Sequence[str], wanted: int) -> Kept:
    """The best of what was kept, as long as the target's texts are."""
    rows = choose(scores, lengths(kept.texts), lengths(target), wanted)
    return Kept([kept.texts[i] for i in rows], kept.sources[rows], scores[rows])


def _describe(
    kept: Kept,
    wanted: int,
    survey: _Survey,
    goal: _Goal,
    near: TargetClusters | None,
    watch: _Watch,
    notes: tuple[str, ...],
) -> Selection:
    """The choice with its likeness to the target beside that of the pool's sample."""
    measures: list[tuple[str, Score]] = [("n-grams", lambda texts: goal.weights.score(texts)[1])]
    if near is not None:
        measures.append(("clusters", near.score))
    mine = [kept.texts[i] for i in _spread(len(kept.texts), COMPARED)]
    theirs = survey.sample[:COMPARED]
    found = [(name, measure(mine), measure(theirs)) for name, measure in measures]
    known, (_, mine_last, theirs_last) = set(kept.texts), found[-1]
    equally_many = min(len(kept.texts), len(survey.sample))
    reduction = kl_reduction(
        goal.counts,
        goal.hasher.counts(survey.sample[:equally_many]),
        goal.hasher.counts([kept.texts[i] for i in _spread(len(kept.texts), equally_many)]),
    )
    names = list(survey.sources)
    watch.stop("report")
    summary = GenericSummary(
        wanted=wanted,
        pool_size=survey.size,
        sources={names[i]: n for i, n in Counter(kept.sources.tolist()).most_common()},
        likeness=tuple(_likeness(*one) for one in found),
        kl_reduction=reduction,
        chosen_examples=_examples(mine, mine_last, set()),
        refused_examples=_examples(theirs, theirs_last, known),
        seconds=watch.seconds,
    )
    return Selection(kept.texts, kept.scores, summary, notes)


class _Watch:
    """Seconds since the last stop, added up by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def stop(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def _check(pool: Iterable[Chunk], target: Sequence[str], method: Method, embed: Embed | None) -> None:
    if isinstance(pool, Iterator):
        raise TypeError("the pool is read twice: give something that can be iterated anew, such as Pool or a list")
    if embed is None and method in ("cascade", "clusters"):
        raise ValueError(f'method "{method}" needs embed')
    if not target:
        raise DataError("no target text to choose generic text by; give train or unlabeled texts")


def _look(pool: Iterable[Chunk], seed: int) -> _Survey:
    rng = np.random.default_rng([seed, 1])
    sample, sources, size = Best(SAMPLE, distinct=False), dict[str, int](), 0
    for source, texts in pool:
        sources.setdefault(source, len(sources))
        size += len(texts)
        sample.add(texts, 0, rng.random(len(texts)))
    if not size:
        raise DataError("the pool of generic text is empty")
    return _Survey(size, sample.result().texts, sources)


def _scorer(method: Method, weights: ImportanceWeights, near: TargetClusters | None, noise: bool, seed: int) -> Score:
    rng = np.random.default_rng([seed, 2])
    if method == "random":
        return lambda texts: rng.random(len(texts))
    if method == "clusters" and near is not None:
        return near.score
    if noise:
        return lambda texts: weights.score(texts)[0] + rng.gumbel(size=len(texts))
    return lambda texts: weights.score(texts)[0]


def _likeness(name: str, chosen: NDArray[Any], pool: NDArray[Any]) -> Likeness:
    edges = np.histogram_bin_edges(np.concatenate([chosen, pool]), BINS)
    return Likeness(
        name=name,
        edges=tuple(edges.tolist()),
        chosen=tuple(np.histogram(chosen, edges)[0].tolist()),
        pool=tuple(np.histogram(pool, edges)[0].tolist()),
        chosen_mean=float(chosen.mean()),
        pool_mean=float(pool.mean()),
    )


def _examples(texts: list[str], scores: NDArray[Any], without: set[str]) -> tuple[tuple[str, float], ...]:
    """Some, evenly spread from the most to the least like."""
    ranked = [(texts[i], float(scores[i])) for i in np.argsort(-scores, kind="stable") if texts[i] not in without]
    return tuple(ranked[i] for i in _spread(len(ranked), EXAMPLES))


def _spread(count: int, at_most: int) -> list[int]:
    """Positions evenly spread over `count` rows."""
    found: list[int] = np.linspace(0, count - 1, min(at_most, count)).astype(int).tolist()
    return found


def _notes(chosen: int, wanted: int, size: int, best: Best) -> tuple[str, ...]:
    notes = []
    if chosen < wanted:
        notes.append(
            f"the pool has fewer texts than asked for: {chosen} of {wanted} chosen, all that are new of {size}"
        )
    if best.leaks:
        notes.append(f"{best.leaks} generic texts left out: near-equal to a text of validation or test")
    if best.repeated:
        notes.append(f"{best.repeated} generic texts left out: near-equal to a target text or to a better one")
    return tuple(notes)


def _characters(texts: Sequence[str]) -> NDArray[np.int64]:
    return np.fromiter(map(len, texts), np.int64, len(texts))
