"""One label a text, or a pair of texts; the metric is accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.split import Split
from edgekd.errors import DataError
from edgekd.runtime.encodings import Encodings
from edgekd.tasks.base import Answer, TextTask, totals


class TextClassificationTask(TextTask):
    """Text classification: one logit row a text."""

    metric_name = "accuracy"

    def target_rows(self, split: Split, encodings: Encodings) -> NDArray[np.int64]:
        """See `Task.target_rows`."""
        return np.array([self._id(label, split) for label in self.gold(split)], dtype=np.int64)

    def answers(self, decided: NDArray[Any], encodings: Encodings) -> list[str]:
        """See `Task.answers`."""
        return [self.labels[i] for i in decided]

    def gold(self, split: Split) -> list[str]:
        """See `Task.gold`."""
        if split.labels is None:
            raise DataError(f"{split.name}: it has no labels")
        return split.labels

    def counts(self, gold: Sequence[Answer], predicted: Sequence[Answer]) -> NDArray[np.int64]:
        """Correct (0 or 1) and total (1) of each text, (texts, 2)."""
        rows = [(int(right == given), 1) for right, given in zip(gold, predicted, strict=True)]
        return np.array(rows, dtype=np.int64).reshape(-1, 2)

    def score(self, counts: NDArray[Any], times: NDArray[Any] | None = None) -> float:
        """Accuracy; 0 without texts."""
        correct, total = totals(counts, times)
        return float(correct / total) if total else 0.0
