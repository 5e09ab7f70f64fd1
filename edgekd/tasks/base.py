"""What every task can do: encode, read targets and answers off logit rows, and score answers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgekd.data.split import Split
from edgekd.errors import DataError
from edgekd.runtime.tokenise import Encodings
from edgekd.tasks.spec import TaskSpec

if TYPE_CHECKING:
    import torch

# What one text gets: a label, or a tag a word.
Answer: TypeAlias = str | list[str]


class Task(ABC):
    """A task with its labels.

    Attributes:
        spec: The task by name.
        labels: Label names; their order is that of the logits.
        head: The model head it needs.
        metric_name: What `score` gives, for people.
    """

    head: ClassVar[Literal["sequence", "token"]]
    metric_name: ClassVar[str]

    def __init__(self, spec: TaskSpec, labels: Sequence[str]) -> None:
        self.spec = spec
        self.labels = tuple(labels)
        self._ids = {label: i for i, label in enumerate(self.labels)}

    @abstractmethod
    def encode(self, tokenizer: Tokenizer, split: Split, max_length: int | None) -> Encodings:
        """Encode a split's texts as the task's model takes them."""

    @abstractmethod
    def target_rows(self, split: Split, encodings: Encodings) -> NDArray[np.int64]:
        """The gold label id of every logit row, (rows,).

        Raises:
            DataError: The split has no labels, or one that the task does not know.
        """

    @abstractmethod
    def answers(self, row_ids: NDArray[Any], encodings: Encodings) -> Sequence[Answer]:
        """The answer of every text from the label ids of all its rows, (rows,)."""

    @abstractmethod
    def gold(self, split: Split) -> Sequence[Answer]:
        """The true answers.

        Raises:
            DataError: The split has no labels.
        """

    @abstractmethod
    def counts(self, gold: Sequence[Answer], predicted: Sequence[Answer]) -> NDArray[np.int64]:
        """What each text adds to the metric, (texts, k): sums of its rows are what `score` takes."""

    @abstractmethod
    def score(self, totals: NDArray[Any]) -> float:
        """The metric, between 0 and 1, from the sum of `counts` over texts, (k,)."""

    def metric(self, gold: Sequence[Answer], predicted: Sequence[Answer]) -> float:
        """The metric of predicted answers, between 0 and 1."""
        return self.score(self.counts(gold, predicted).sum(axis=0))

    def hard_loss(self, logit_rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of logit rows (rows, labels) against label ids (rows,)."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logit_rows, targets)

    def _id(self, label: str, split: Split) -> int:
        if label not in self._ids:
            raise DataError(f'{split.name}: label "{label}" is none of the task\'s {len(self.labels)} labels')
        return self._ids[label]


def align_labels(teacher_labels: Sequence[str], data_labels: Sequence[str]) -> tuple[int, ...]:
    """Find the data's labels among the teacher's.

    A teacher may know more labels than the data use. A teacher without names (LABEL_0, LABEL_1, ...) matches
    only data whose labels are as many integers.

    Returns:
        The teacher's column of each data label.

    Raises:
        DataError: The data have a label that the teacher lacks; the message names the first ones.
    """
    columns = {label: i for i, label in enumerate(teacher_labels)}
    if len(columns) < len(teacher_labels):
        raise DataError("the teacher has two labels of one name: mend id2label in its config.json")
    missing = [label for label in data_labels if label not in columns]
    if not missing:
        return tuple(columns[label] for label in data_labels)
    if all(re.fullmatch(r"LABEL_\d+", label) for label in teacher_labels):
        return _align_numbers(teacher_labels, data_labels)
    extra = [label for label in teacher_labels if label not in set(data_labels)]
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    raise DataError(
        f"the data have labels that the teacher lacks: {', '.join(missing[:3])}{more}"
        f" (the teacher has, among others: {', '.join(extra[:3]) or 'none that the data lack'});"
        " rename them in the data, or in id2label of the teacher's config.json"
    )


def _align_numbers(teacher_labels: Sequence[str], data_labels: Sequence[str]) -> tuple[int, ...]:
    numbers = all(label.isascii() and label.isdigit() for label in data_labels)
    if not numbers or len(teacher_labels) != len(data_labels):
        raise DataError(
            f"the teacher's {len(teacher_labels)} labels have no names ({teacher_labels[0]}, ...) and cannot"
            f" be matched to the data's {len(data_labels)} ({', '.join(data_labels[:3])}, ...):"
            " write the names into id2label of the teacher's config.json"
        )
    teacher = sorted(range(len(teacher_labels)), key=lambda i: int(teacher_labels[i].removeprefix("LABEL_")))
    rank = {label: i for i, label in enumerate(sorted(data_labels, key=int))}
    return tuple(teacher[rank[label]] for label in data_labels)
