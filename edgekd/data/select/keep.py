"""The best of a stream of texts, near-equal ones once, in memory that does not grow with the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.data.select.dedup import THRESHOLD, Signatures, near_equal, signatures

# Texts that may wait beside the best ones before all are sorted anew.
WAITING = 50_000


@dataclass(frozen=True)
class Kept:
    """What a stream left, best first.

    Attributes:
        sources: A number for each text's source (texts,).
        scores: (texts,).
    """

    texts: list[str]
    sources: NDArray[np.int64]
    scores: NDArray[np.float64]


class Best:
    """Keeps the `size` best texts. Of near-equal ones the better stays, so they crowd nothing out.

    Args:
        size: How many to keep.
        target: Signatures of texts that are there already.
        held_out: Signatures of texts of validation and test. Nothing near-equal to either is kept.
        distinct: Leave out near-equal texts; False keeps rows as they come, for a plain sample.
        threshold: See `dedup.THRESHOLD`.

    Attributes:
        repeated: Texts left out so far because they were near-equal to a better one or to the target. Texts that
            were no candidates by their score are not looked at.
        leaks: Texts left out so far because they were near-equal to a held-out one.
    """

    def __init__(
        self,
        size: int,
        target: Signatures | None = None,
        held_out: Signatures | None = None,
        *,
        distinct: bool = True,
        threshold: float = THRESHOLD,
    ) -> None:
        none = signatures([])
        held_out = none if held_out is None else held_out
        self._fixed = np.concatenate([held_out, none if target is None else target])
        self._held_out = len(held_out)
        # A late text can be near-equal to several: without room for that, fewer than asked for would be left.
        self._room = size + max(size // 10, 100)
        self._size, self._distinct, self._threshold = size, distinct, threshold
        self._texts: list[str] = []
        self._sources: list[NDArray[np.int64]] = []
        self._scores: list[NDArray[np.float64]] = []
        self._signed: list[Signatures] = []
        self._floor = -np.inf
        self.repeated = self.leaks = 0

    def add(self, texts: Sequence[str], source: int, scores: NDArray[np.float64]) -> None:
        """Offer texts of one source with their scores (texts,)."""
        rows = np.flatnonzero(scores > self._floor)
        if not len(rows):
            return
        fresh = [texts[i] for i in rows.tolist()]
        self._texts += fresh
        self._sources.append(np.full(len(rows), source, np.int64))
        self._scores.append(scores[rows])
        if self._distinct:
            self._signed.append(signatures(fresh))
        if len(self._texts) >= self._room + max(self._room, WAITING):
            self._settle()

    def result(self) -> Kept:
        """The best texts so far."""
        self._settle()
        if not self._scores:
            return Kept([], np.empty(0, np.int64), np.empty(0))
        here = slice(self._size)
        return Kept(self._texts[here], self._sources[0][here], self._scores[0][here])

    def _settle(self) -> None:
        """Leave out near-equal texts, then all but the best."""
        if not self._texts:
            return
        scores, sources = np.concatenate(self._scores), np.concatenate(self._sources)
        order = np.argsort(-scores, kind="stable")
        if self._distinct:
            signed = np.concatenate(self._signed)
            order = self._fresh(order, signed)
        if len(order) >= self._room:
            order = order[: self._room]
            self._floor = float(scores[order[-1]])
        if self._distinct:
            self._signed = [signed[order]]
        self._texts = [self._texts[i] for i in order]
        self._sources, self._scores = [sources[order]], [scores[order]]

    def _fresh(self, order: NDArray[np.int64], signed: Signatures) -> NDArray[np.int64]:
        fixed = len(self._fixed)
        found = near_equal(np.concatenate([self._fixed, signed[order]]), self._threshold, fixed)[fixed:]
        leaks = int(np.count_nonzero((found >= 0) & (found < self._held_out)))
        self.leaks += leaks
        self.repeated += int(np.count_nonzero(found >= 0)) - leaks
        return order[found < 0]
