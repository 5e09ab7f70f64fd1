"""A number a text, or a pair of texts; the metric is Spearman's rank correlation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.split import Split
from edgekd.errors import DataError
from edgekd.runtime.encodings import Encodings
from edgekd.tasks.base import Answer, TextTask


class TextRegressionTask(TextTask):
    """Regression: one logit a text, the value itself."""

    metric_name = "Spearman correlation"

    def target_rows(self, split: Split, encodings: Encodings) -> NDArray[np.float32]:
        """The values, (texts, 1)."""
        return np.array(self.gold(split), dtype=np.float32).reshape(-1, 1)

    def decide(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The values, (texts,)."""
        return rows[:, 0]

    def answers(self, decided: NDArray[Any], encodings: Encodings) -> list[float]:
        """See `Task.answers`."""
        values: list[float] = decided.tolist()
        return values

    def gold(self, split: Split) -> list[float]:
        """See `Task.gold`."""
        if split.values is None:
            raise DataError(f"{split.name}: it has no values")
        return split.values

    def counts(self, gold: Sequence[Answer], predicted: Sequence[Answer]) -> NDArray[np.float64]:
        """The true and the given value of each text, (texts, 2): a rank needs all texts, so nothing is summed."""
        return np.array([gold, predicted], dtype=np.float64).T.reshape(-1, 2)

    def score(self, counts: NDArray[Any], times: NDArray[Any] | None = None) -> float:
        """See `Task.score`: the correlation of the ranks, equal values sharing theirs; 0 where either is constant."""
        true, given = (counts if times is None else np.repeat(counts, times, axis=0)).T
        if not len(true):
            return 0.0
        x, y = (ranks - ranks.mean() for ranks in (_ranks(true), _ranks(given)))
        size = float(np.sqrt((x @ x) * (y @ y)))
        return float(x @ y) / size if size else 0.0


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Rank of each value from 0, equal values sharing the mean of theirs."""
    _, place, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    shared: NDArray[np.float64] = (last - 1 - (sizes - 1) / 2)[place]
    return shared
