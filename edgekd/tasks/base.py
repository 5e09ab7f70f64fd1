"""What every task can do: encode, read targets and answers off logit rows, and score answers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgekd.data.split import Split
from edgekd.errors import DataError
from edgekd.runtime.encodings import Encodings
from edgekd.runtime.tags import TagSpan, spans_of
from edgekd.runtime.tokenise import encode_texts
from edgekd.runtime.words import Span
from edgekd.settings.task import Output, TaskSpec

# What one text gets: a label, several (or a tag a word, after its intent in a joint task), or a number.
Answer: TypeAlias = str | list[str] | float


class Task(ABC):
    """A task with its labels.

    Attributes:
        spec: The task by name.
        labels: Label names; their order is that of the logits.
        head: The model head it needs.
        metric_name: What `score` gives, for people.
        scheme: What its tags are read in, see `edgekd.runtime.tags`; empty for tasks on whole texts.
    """

    head: ClassVar[Literal["sequence", "token", "joint"]]
    metric_name: ClassVar[str]
    scheme: str = ""

    def __init__(self, spec: TaskSpec, labels: Sequence[str]) -> None:
        self.spec = spec
        self.labels = tuple(labels)
        self._ids = {label: i for i, label in enumerate(self.labels)}

    @property
    def output(self) -> Output:
        """What a logit row means: it decides losses and answers."""
        return self.spec.output

    @property
    def sizes(self) -> tuple[int, ...]:
        """Labels of each of the head's outputs."""
        return (len(self.labels),)

    @abstractmethod
    def encode(self, tokenizer: Tokenizer, split: Split, max_length: int | None) -> Encodings:
        """Encode a split's texts as the task's model takes them."""

    @abstractmethod
    def target_rows(self, split: Split, encodings: Encodings) -> NDArray[Any]:
        """The gold target of every logit row: a label id each, (rows,) int64, or numbers, (rows, labels) float32.

        Raises:
            DataError: The split has no labels, or one that the task does not know.
        """

    def no_targets(self, rows: int) -> NDArray[Any]:
        """Targets as `target_rows` gives them, for rows without gold: -100, or NaN where targets are numbers."""
        if self.output in ("classes", "joint"):
            return np.full(rows, -100, dtype=np.int64)
        return np.full((rows, len(self.labels)), np.nan, dtype=np.float32)

    def decide(self, rows: NDArray[Any]) -> NDArray[Any]:
        """What logit rows (rows, labels) say: a label id each, (rows,), unless the task's answers are others."""
        ids: NDArray[Any] = rows.argmax(axis=-1)
        return ids

    @abstractmethod
    def answers(self, decided: NDArray[Any], encodings: Encodings) -> Sequence[Answer]:
        """The answer of every text from what `decide` gave for all its rows."""

    @abstractmethod
    def gold(self, split: Split) -> Sequence[Answer]:
        """The true answers.

        Raises:
            DataError: The split has no labels.
        """

    @abstractmethod
    def counts(self, gold: Sequence[Answer], predicted: Sequence[Answer]) -> NDArray[Any]:
        """What each text brings to the metric, (texts, k); `score` takes these rows."""

    @abstractmethod
    def score(self, counts: NDArray[Any], times: NDArray[Any] | None = None) -> float:
        """The metric of texts, at most 1.

        Args:
            counts: What each text brings, (texts, k).
            times: How often each text counts, (texts,), as a bootstrap draws them; None: once.
        """

    def parts(self, counts: NDArray[Any]) -> dict[str, float]:
        """What the metric is made of, by name, for those who ask further; empty for most tasks."""
        return {}

    def metric(self, gold: Sequence[Answer], predicted: Sequence[Answer]) -> float:
        """The metric of predicted answers, at most 1."""
        return self.score(self.counts(gold, predicted))

    def _id(self, label: str, split: Split) -> int:
        if label not in self._ids:
            raise DataError(f'{split.name}: label "{label}" is none of the task\'s {len(self.labels)} labels')
        return self._ids[label]


class TaggingTask(Task):
    """A task on words, whose spans are found."""

    @abstractmethod
    def row(self, gold: Sequence[str], predicted: Sequence[str], true: set[TagSpan], found: set[TagSpan]) -> list[int]:
        """What a text brings to the metric: a row of `counts`, of its answers and the spans in them."""

    def tags(self, answer: Answer) -> list[str]:
        """The tags of an answer."""
        assert isinstance(answer, list)
        return answer[self.head == "joint" :]

    def counts(self, gold: Sequence[Answer], predicted: Sequence[Answer]) -> NDArray[np.int64]:
        """See `Task.counts`; both are of the same words."""
        words = [[(i, i + 1) for i in range(len(self.tags(answer)))] for answer in gold]
        return self.counts_in_text(gold, words, predicted, words)

    def counts_in_text(
        self,
        gold: Sequence[Answer],
        gold_words: Sequence[Sequence[Span]],
        predicted: Sequence[Answer],
        words: Sequence[Sequence[Span]],
    ) -> NDArray[np.int64]:
        """`counts` of answers about words that are split in two ways: spans are equal where their characters are."""
        rows = []
        for right, there, given, here in zip(gold, gold_words, predicted, words, strict=True):
            true, found = (
                {
                    (kind, at[first][0], at[after - 1][1])
                    for kind, first, after in spans_of(self.tags(tags), self.scheme)
                }
                for tags, at in ((right, there), (given, here))
            )
            assert isinstance(right, list)
            assert isinstance(given, list)
            rows.append(self.row(right, given, true, found))
        return np.array(rows, dtype=np.int64).reshape(len(rows), -1)


class TextTask(Task):
    """A task on whole texts, or on pairs of them: one logit row each."""

    head = "sequence"

    def encode(self, tokenizer: Tokenizer, split: Split, max_length: int | None) -> Encodings:
        """See `Task.encode`."""
        return encode_texts(tokenizer, split.texts, split.pairs, max_length)


def totals(counts: NDArray[Any], times: NDArray[Any] | None) -> NDArray[Any]:
    """Sums of `counts` (texts, k) over texts, each counted `times`, (k,): for metrics that are made of sums."""
    summed: NDArray[Any] = counts.sum(axis=0) if times is None else times @ counts
    return summed


def align_labels(teacher_labels: Sequence[str], data_labels: Sequence[str]) -> tuple[int, ...]:
    """Find the data's labels among the teacher's.

    A teacher may know more labels than the data use; capitals do not tell labels apart where the names are the same
    without. A teacher without names (LABEL_0, LABEL_1, ...) matches
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
    folded = {label.casefold().strip(): i for label, i in columns.items()}
    wanted = [label.casefold().strip() for label in data_labels]
    numbers = _by_number(teacher_labels, data_labels)
    if numbers is not None:
        return numbers
    if len(folded) == len(columns) and len(set(wanted)) == len(wanted) and all(label in folded for label in wanted):
        return tuple(folded[label] for label in wanted)
    if all(re.fullmatch(r"LABEL_\d+", label) for label in teacher_labels):
        return _align_numbers(teacher_labels, data_labels)
    extra = [label for label in teacher_labels if label not in set(data_labels)]
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    raise DataError(
        f"the data have labels that the teacher lacks: {', '.join(missing[:3])}{more}"
        f" (the teacher has, among others: {', '.join(extra[:3]) or 'none that the data lack'});"
        " rename them in the data, or in id2label of the teacher's config.json"
    )


def _by_number(teacher_labels: Sequence[str], data_labels: Sequence[str]) -> tuple[int, ...] | None:
    """The teacher's columns where both name their labels by numbers, written otherwise ("1.0" and "1")."""
    try:
        columns = {float(label): i for i, label in enumerate(teacher_labels)}
        found = [columns.get(float(label)) for label in data_labels]
    except ValueError:
        return None
    known = tuple(i for i in found if i is not None)
    return known if len(set(known)) == len(data_labels) and len(columns) == len(teacher_labels) else None


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
