"""Plain text split into words, as the data's words were. Imports the standard library alone."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Span = tuple[int, int]
"""(start, end) in characters."""

# Kana, and the ideographs of the basic plane: scripts written without spaces.
UNSPACED = (("\u3040", "\u30ff"), ("\u3400", "\u9fff"), ("\uf900", "\ufaff"))


@dataclass(frozen=True)
class WordSplit:
    """How plain text is split into words, where a task's answers are about words.

    White space separates words. A mark at a word's edge is a word of its own, unless the data's words keep it, as in
    "#jazz" or "U.S."; marks inside ("don't") never are. Chinese and Japanese characters, written without spaces, are a
    word each, unless the data's words hold several.

    Attributes:
        left: Marks that stay at the beginning of a word.
        right: Marks that stay at its end.
        together: Characters of scripts without spaces stay together.
    """

    left: str = ""
    right: str = ""
    together: bool = False

    @staticmethod
    def of(texts: Iterable[Sequence[str]]) -> WordSplit:
        """As the words of some texts are written: a mark stays where it does so more often than it stands alone."""
        alone, left, right = Counter[str](), Counter[str](), Counter[str]()
        single = several = 0
        for words in texts:
            for word in words:
                if len(word) > 1:
                    left[word[0]] += _is_mark(word[0])
                    right[word[-1]] += _is_mark(word[-1])
                    several += any(map(_is_unspaced, word))
                elif word:
                    alone[word] += _is_mark(word)
                    single += _is_unspaced(word)
        first, last = ("".join(sorted(m for m, n in edge.items() if n > alone[m])) for edge in (left, right))
        return WordSplit(first, last, several > single)

    def spans(self, text: str) -> list[Span]:
        """The words of plain text."""
        spans: list[Span] = []
        start = 0
        for chunk in text.split():
            start = text.index(chunk, start)
            end = start + len(chunk)
            left, right = start, end
            while left < right and _is_mark(text[left]) and text[left] not in self.left:
                left += 1
            while right > left and _is_mark(text[right - 1]) and text[right - 1] not in self.right:
                right -= 1
            spans += [(i, i + 1) for i in range(start, left)]
            spans += [(left, right)] if self.together and left < right else _unspaced(text, left, right)
            spans += [(i, i + 1) for i in range(right, end)]
            start = end
        return spans

    def words(self, text: str) -> list[str]:
        """The words of plain text, as strings."""
        return [text[start:end] for start, end in self.spans(text)]


PLAIN = WordSplit()
"""Where no data tell otherwise."""


def joined_spans(words: Sequence[str]) -> list[Span]:
    """Where words lie once they are joined by one space."""
    spans, start = [], 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return spans


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def _is_unspaced(character: str) -> bool:
    return any(first <= character <= last for first, last in UNSPACED)


def _unspaced(text: str, start: int, end: int) -> list[Span]:
    if start < end and text[start:end].isascii():
        return [(start, end)]
    cuts = {start, end}
    for i in range(start, end):
        if _is_unspaced(text[i]):
            cuts |= {i, i + 1}
    edges = sorted(cuts)
    return list(pairwise(edges))
