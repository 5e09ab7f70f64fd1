"""Likeness in the teacher's space: the cosine to the nearest cluster of the target, and a choice of like lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], NDArray[Any]]

FEWEST, MOST = 8, 256
ITERATIONS = 25
# Enough texts to find a few hundred clusters; an encoder does some hundred a second.
TARGET_SAMPLE = 20_000
TEXTS_AT_ONCE, ROWS_AT_ONCE = 1024, 8192
LENGTH_BINS = 10


class TargetClusters:
    """Clusters of the target text.

    Args:
        target: The target texts; of more than 20,000 a sample is embedded.
        embed: Texts to vectors (texts, width), at most 1,024 at a time, alike in length.
        clusters: How many; None takes the root of half the number of texts, 8 to 256.
    """

    def __init__(self, target: Sequence[str], embed: Embed, clusters: int | None, seed: int) -> None:
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.permutation(len(target))[:TARGET_SAMPLE])
        vectors = np.concatenate([part for _, part in _embedded([target[i] for i in rows], embed)])
        wanted = clusters or int(np.clip(np.sqrt(len(rows) / 2), FEWEST, MOST))
        self._embed = embed
        self.centroids = kmeans(vectors, wanted, seed)

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The cosine of each text to its nearest centroid: (texts,). Memory does not grow with a vector a text."""
        found = np.empty(len(texts))
        for rows, vectors in _embedded(texts, self._embed):
            found[rows] = nearest(vectors, self.centroids)[0]
        return found


def kmeans(vectors: Vectors, clusters: int, seed: int, iterations: int = ITERATIONS) -> Vectors:
    """Spherical k-means: Lloyd's steps on unit vectors, begun by k-means++ (Arthur and Vassilvitskii 2007).

    Args:
        vectors: (rows, width).
        clusters: At most so many; fewer where there are fewer different vectors.
        iterations: At most so many steps.

    Returns:
        Unit centroids (clusters, width).
    """
    vectors = unit(vectors)
    centroids = _spread(vectors, clusters, np.random.default_rng(seed))
    members = np.full(len(vectors), -1)
    for _ in range(iterations):
        cosines, now = nearest(vectors, centroids)
        if np.array_equal(now, members):
            break
        members = now
        sums = np.zeros_like(centroids)
        np.add.at(sums, members, vectors)
        empty = np.flatnonzero(np.bincount(members, minlength=len(centroids)) == 0)
        sums[empty] = vectors[np.argsort(cosines, kind="stable")[: len(empty)]]  # begin again where it fits worst
        centroids = unit(sums)
    return centroids


def nearest(vectors: Vectors, centroids: Vectors) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The cosine to the nearest unit centroid and which it is; both (rows,)."""
    cosines, which = np.empty(len(vectors), np.float32), np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        here = slice(start, start + ROWS_AT_ONCE)
        table = unit(vectors[here]) @ centroids.T
        which[here] = table.argmax(axis=1)
        cosines[here] = table.max(axis=1)
    return cosines, which


def unit(vectors: NDArray[Any]) -> Vectors:
    """Rows of length 1; a row of zeros stays."""
    vectors = np.asarray(vectors, np.float32)
    found: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return found


def choose(
    scores: NDArray[np.float64], lengths: NDArray[np.int64], target_lengths: NDArray[np.int64], wanted: int
) -> NDArray[np.int64]:
    """The best texts, as long as the target's: each tenth of the target's lengths gets its share.

    What a tenth lacks, the best of the rest fill, whatever their length.

    Args:
        scores: (texts,).
        lengths: (texts,).
        target_lengths: (target texts,), in the same unit.
        wanted: How many.

    Returns:
        Rows, best first.
    """
    order = np.argsort(-scores, kind="stable")
    edges = np.unique(np.quantile(target_lengths, np.linspace(0, 1, LENGTH_BINS + 1)))
    if len(edges) == 1:
        edges = np.repeat(edges, 2)
    bins = np.clip(np.searchsorted(edges, lengths, side="right") - 1, 0, len(edges) - 2)
    bins[(lengths < edges[0]) | (lengths > edges[-1])] = -1
    target_bins = np.clip(np.searchsorted(edges, target_lengths, side="right") - 1, 0, len(edges) - 2)
    quota = wanted * np.bincount(target_bins, minlength=len(edges) - 1) / len(target_lengths)
    taken = np.zeros(len(scores), bool)
    for which, share in enumerate(np.floor(quota).astype(int)):
        taken[order[bins[order] == which][:share]] = True
    taken[order[~taken[order]][: max(wanted - int(taken.sum()), 0)]] = True
    return order[taken[order]]


def _spread(vectors: Vectors, clusters: int, rng: np.random.Generator) -> Vectors:
    """k-means++: each next centroid is a row drawn by its distance to those there are."""
    rows = [int(rng.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    while len(rows) < clusters:
        distance = np.minimum(distance, np.maximum(1 - vectors @ vectors[rows[-1]], 0))
        distance[distance < 1e-6] = 0  # rounding: the same vector
        if not distance.any():
            break
        rows.append(int(rng.choice(len(vectors), p=distance / distance.sum())))
    return vectors[rows].copy()


def _embedded(texts: Sequence[str], embed: Embed) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    """Rows and their vectors, texts of like length together: little padding."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    for start in range(0, len(order), TEXTS_AT_ONCE):
        rows = order[start : start + TEXTS_AT_ONCE]
        yield rows, np.asarray(embed([texts[i] for i in rows]), np.float32)
