"""The score of a model on a split, as a function the training loop can call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from edgekd.data.split import Split
from edgekd.distill.engine import Engine
from edgekd.distill.predict import predict_rows
from edgekd.runtime.encodings import Encodings
from edgekd.tasks.base import Answer, Task


@dataclass(frozen=True)
class Judged:
    """A split with the answers that models are compared with.

    Attributes:
        encodings: Their tokens.
        gold: The right answer of each text: the data's, or the teacher's where the data have none.
        agreement: True where the answers are the teacher's; the metric is then "agreement with the teacher".
    """

    split: Split
    encodings: Encodings
    gold: Sequence[Answer]
    agreement: bool = False

    def counts(self, task: Task, rows: np.ndarray) -> np.ndarray:
        """What each text brings to the metric (n, k), of logit rows (rows, labels)."""
        return task.counts(self.gold, task.answers(task.decide(rows), self.encodings))

    def score(self, task: Task, rows: np.ndarray) -> float:
        """The metric, at most 1, of logit rows (rows, labels)."""
        return task.score(self.counts(task, rows))

    def scorer(self, task: Task, engine: Engine) -> Callable[[nn.Module], float]:
        """A function from model to metric."""
        return lambda model: self.score(task, predict_rows(model, self.encodings, engine))
