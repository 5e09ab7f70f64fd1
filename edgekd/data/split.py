"""The canonical form of a task's data: splits of texts with their labels or tags."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from edgekd.runtime.tags import begins_with_i, scheme_of
from edgekd.runtime.words import WordSplit
from edgekd.settings.task import TaskSpec


@dataclass(frozen=True)
class Split:
    """Texts of one split, row by row.

    Attributes:
        name: "train", "validation", "test" or "unlabeled".
        texts: The texts; for token tasks the words joined by one space.
        pairs: The second texts, if the task takes pairs.
        words: The words of each text, for token tasks.
        labels: The label of each text, if known.
        tags: The BIO tag of each word, if known.
        label_sets: The labels of each text of a multi-label task, if known.
        values: The value of each text of a regression, if known.
    """

    name: str
    texts: list[str]
    pairs: list[str] | None = None
    words: list[list[str]] | None = None
    labels: list[str] | None = None
    tags: list[list[str]] | None = None
    label_sets: list[list[str]] | None = None
    values: list[float] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def has_gold(self) -> bool:
        """Whether labels, tags or values are known."""
        return any(gold is not None for gold in (self.labels, self.tags, self.label_sets, self.values))

    def keys(self) -> list[tuple[str, str]]:
        """What identifies each row: its text and its second text."""
        return list(zip(self.texts, self.pairs or [""] * len(self), strict=True))

    def take(self, indices: Sequence[int] | np.ndarray, name: str | None = None) -> Split:
        """The named rows alone, in that order."""

        def pick(column: list[Any] | None) -> list[Any] | None:
            return None if column is None else [column[i] for i in indices]

        return Split(name or self.name, *(pick(column) for column in self._columns))  # type: ignore[arg-type]

    def without_labels(self, name: str | None = None) -> Split:
        """The same texts, their labels, tags and values forgotten."""
        return replace(self, name=name or self.name, labels=None, tags=None, label_sets=None, values=None)

    def concat(self, other: Split) -> Split:
        """This split's rows, then the other's, under this split's name; both have the same columns."""

        def both(mine: list[Any] | None, theirs: list[Any] | None) -> list[Any] | None:
            return None if mine is None or theirs is None else mine + theirs

        joined = (both(mine, theirs) for mine, theirs in zip(self._columns, other._columns, strict=True))
        return Split(self.name, *joined)  # type: ignore[arg-type]

    def classes(self) -> set[str]:
        """The labels and tags that occur."""
        listed = [*(self.tags or ()), *(self.label_sets or ())]
        return {name for names in listed for name in names} | set(self.labels or ())

    @property
    def _columns(self) -> list[list[Any] | None]:
        """All columns, in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)[1:]]


@dataclass(frozen=True)
class TaskData:
    """All that is known of a task's data.

    Attributes:
        labels: Label names in a stable order ("O" first for BIO tags); empty without gold labels.
        train: Labelled texts to learn from.
        validation: Texts to choose by.
        test: Texts to report on.
        unlabeled: Texts without labels.
        notes: Everything that was done to the data, one line each.
    """

    task: TaskSpec
    labels: tuple[str, ...]
    train: Split | None = None
    validation: Split | None = None
    test: Split | None = None
    unlabeled: Split | None = None
    notes: tuple[str, ...] = ()

    @property
    def has_gold(self) -> bool:
        """Whether test has labels; without, quality means agreement with the teacher."""
        return self.test is not None and self.test.has_gold

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that exist."""
        every = (self.train, self.validation, self.test, self.unlabeled)
        return tuple(split for split in every if split is not None)

    @cached_property
    def word_split(self) -> WordSplit:
        """How plain text is split into words, as the words of labelled texts are."""
        labelled = (split.words for split in (self.train, self.validation, self.test) if split is not None)
        return WordSplit.of(text for words in labelled if words is not None for text in words)

    @cached_property
    def tag_scheme(self) -> str:
        """The scheme of the gold tags, where there are any: see `edgekd.runtime.tags`, and IOB1."""
        tags = [text for split in self.splits for text in split.tags or ()]
        known = scheme_of({tag for text in tags for tag in text})
        return "" if not tags else "IOB1" if known == "BIO" and begins_with_i(tags) else known

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the task, the labels and every row, in order; notes do not count."""
        digest = hashlib.sha256(json.dumps([self.task.model_dump(mode="json"), self.labels]).encode())
        for place in ("train", "validation", "test", "unlabeled"):
            split: Split | None = getattr(self, place)
            if split is None:
                continue
            for part in (place, split.texts, split.pairs, split.words, split.labels, split.tags):
                digest.update(json.dumps(part).encode())
            for gold in (split.label_sets, split.values):
                if gold is not None:
                    digest.update(json.dumps(gold).encode())
        return digest.hexdigest()


def ordered_labels(classes: set[str], bio: bool = False) -> tuple[str, ...]:
    """Labels in a stable order: by number if all are numbers, else by name; BIO tags by type, "O" first.

    Args:
        classes: The labels or tags that occur.
        bio: They are BIO tags; then "O" is always among them.
    """
    if bio:
        tags = sorted(classes - {"O"}, key=lambda tag: (tag[2:], tag[0], tag))
        return ("O", *tags)
    if all(label.isascii() and label.isdigit() for label in classes):
        return tuple(sorted(classes, key=lambda label: (int(label), label)))
    return tuple(sorted(classes))
