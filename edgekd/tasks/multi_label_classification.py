"""Any number of labels a text, or a pair of texts; the metric is macro F1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.split import Split
from edgekd.errors import DataError
from edgekd.runtime.encodings import Encodings
from edgekd.settings.task import MultiLabelClassification
from edgekd.tasks.base import Answer, TextTask, totals


class MultiLabelClassificationTask(TextTask):
    """Multi-label classification: one logit row a text, a yes or no a label."""

    metric_name = "macro F1"

    def target_rows(self, split: Split, encodings: Encodings) -> NDArray[np.float32]:
        """1 where a text has the label, else 0, (texts, labels)."""
        targets = np.zeros((len(split), len(self.labels)), dtype=np.float32)
        for row, labels in zip(targets, self.gold(split), strict=True):
            row[[self._id(label, split) for label in labels]] = 1.0
        return targets

    def decide(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """1 where the label's probability is above the threshold, else 0, (texts, labels)."""
        assert isinstance(self.spec, MultiLabelClassification)
        cut = math.log(self.spec.threshold / (1 - self.spec.threshold))
        return (rows > cut).astype(np.int64)

    def answers(self, decided: NDArray[Any], encodings: Encodings) -> list[list[str]]:
        """See `Task.answers`."""
        return [[self.labels[i] for i in np.flatnonzero(row)] for row in decided]

    def gold(self, split: Split) -> list[list[str]]:
        """See `Task.gold`."""
        if split.label_sets is None:
            raise DataError(f"{split.name}: it has no labels")
        return split.label_sets

    def counts(self, gold: Sequence[Answer], predicted: Sequence[Answer]) -> NDArray[np.int64]:
        """For each label whether it is right, wrong or missed (tp, fp, fn) on each text, (texts, 3 labels)."""
        true, given = self._flags(gold), self._flags(predicted)
        return np.concatenate([true & given, given & ~true, true & ~given], axis=1).astype(np.int64)

    def score(self, counts: NDArray[Any], times: NDArray[Any] | None = None) -> float:
        """Mean over labels of each label's F1; labels that neither gold nor answers have do not count."""
        hits, wrong, missed = totals(counts, times).reshape(3, -1)
        whole = 2 * hits + wrong + missed
        seen = whole > 0
        return float(np.mean(2 * hits[seen] / whole[seen])) if seen.any() else 0.0

    def _flags(self, answers: Sequence[Answer]) -> NDArray[np.bool_]:
        flags = np.zeros((len(answers), len(self.labels)), dtype=np.bool_)
        for row, labels in zip(flags, answers, strict=True):
            assert isinstance(labels, list)
            row[[self._ids[label] for label in labels]] = True
        return flags
