"""A text as its words and what stands between them: what policies edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from itertools import pairwise

import numpy as np

from edgekd.runtime.tags import TagSpan
from edgekd.runtime.words import PLAIN, Span
from edgekd.settings.augment import Augmentation


@dataclass(frozen=True)
class Sentence:
    """A text in words.

    Attributes:
        words: Its n words.
        gaps: What stands before each word, and after the last, n + 1.
        tags: A tag a word, where known.
    """

    words: list[str]
    gaps: list[str]
    tags: list[str] | None = None

    @staticmethod
    def from_text(text: str) -> Sentence:
        """Plain text, split into words as the runtime does; `text` gives it back exactly."""
        spans = PLAIN.spans(text)
        edges = [(0, 0), *spans, (len(text), len(text))]
        gaps = [text[before[1] : after[0]] for before, after in pairwise(edges)]
        return Sentence([text[start:end] for start, end in spans], gaps)

    @staticmethod
    def from_words(words: Sequence[str], tags: Sequence[str] | None) -> Sentence:
        """The words of a token task, one space between them."""
        gaps = ["", *[" "] * (len(words) - 1), ""]
        return Sentence(list(words), gaps, None if tags is None else list(tags))

    @property
    def text(self) -> str:
        """The words with their gaps."""
        return "".join(gap + word for gap, word in zip(self.gaps, [*self.words, ""], strict=True))

    @property
    def spans(self) -> list[Span]:
        """(start, end) characters of each word."""
        spans, start = [], 0
        for gap, word in zip(self.gaps, self.words, strict=False):
            start += len(gap)
            spans.append((start, start + len(word)))
            start += len(word)
        return spans

    def editable(self) -> list[int]:
        """The words with a letter or digit: marks stay where they are."""
        return [i for i, word in enumerate(self.words) if any(map(str.isalnum, word))]

    def outside(self) -> list[int]:
        """The editable words that are in no tagged span; without tags all of them."""
        return [i for i in self.editable() if self.tags is None or self.tags[i] == "O"]


@dataclass(frozen=True)
class Edited:
    """What a policy made of a sentence.

    Attributes:
        sentence: The new sentence, without tags.
        alignment: For each new word the old word whose place it takes; a place taken twice in a row is a span
            that grew. Empty where words have no counterpart.
    """

    sentence: Sentence
    alignment: list[int]


@dataclass(frozen=True)
class Job:
    """One new text to make.

    Attributes:
        sentence: The original.
        rng: What the policy draws from, the job's own.
    """

    sentence: Sentence
    rng: np.random.Generator


Policy = Callable[[Sequence[Job]], list[Edited | None]]
"""Makes a text a job; None where there is nothing to change."""


@singledispatch
def edit(spec: Augmentation, job: Job) -> Edited | None:
    """One text edited as its policy says, None where there is nothing to change; policies of single texts register."""
    raise TypeError(f"{type(spec).__name__} edits no single text")


def replaced(sentence: Sentence, changes: Mapping[int, str]) -> Edited | None:
    """Other words in the same places; None if none differs."""
    words = [changes.get(i, word) for i, word in enumerate(sentence.words)]
    if words == sentence.words:
        return None
    return Edited(replace(sentence, words=words, tags=None), list(range(len(words))))


def draw(rng: np.random.Generator, candidates: Sequence[int], ratio: float) -> list[int]:
    """Each candidate with probability `ratio`, at least one if there is any."""
    if not candidates:
        return []
    taken = [candidate for candidate, lot in zip(candidates, rng.random(len(candidates)), strict=True) if lot < ratio]
    return taken or [candidates[int(rng.integers(len(candidates)))]]


def moved_spans(spans: Sequence[TagSpan], alignment: Sequence[int]) -> list[TagSpan]:
    """The spans of a sentence at their words' new places.

    Args:
        spans: Of the old words.
        alignment: For each new word its old word, see `Edited`.
    """
    moved = []
    for kind, start, end in spans:
        places = [new for new, old in enumerate(alignment) if start <= old < end]
        if places:
            moved.append((kind, places[0], places[-1] + 1))
    return sorted(moved, key=lambda span: span[1])
