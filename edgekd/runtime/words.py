"""Plain text split into words, as the data's words were. Imports the standard library alone."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

Span = tuple[int, int]
"""(start, end) in characters."""

# Kana, and the ideographs of the basic plane: scripts written without spaces.
UNSPACED = (("\u3040", "\u30ff"), ("\u3400", "\u9fff"), ("\uf900", "\ufaff"))


# Words kept whole at most: each is looked up, and written into a bundle's config.json.
_MOST_WHOLE = 2000


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
        whole: Words of the data that keep marks which are else words of their own, such as "U.S." and "St.".
    """

    left: str = ""
    right: str = ""
    together: bool = False
    whole: tuple[str, ...] = ()

    @cached_property
    def _whole(self) -> frozenset[str]:
        return frozenset(self.whole)

    @staticmethod
    def of(texts: Iterable[Sequence[str]]) -> WordSplit:
        """As the words of some texts are written: a mark stays where it does so more often than it stands alone."""
        alone, left, right = Counter[str](), Counter[str](), Counter[str]()
        edged, parted = Counter[str](), Counter[str]()
        single = several = 0
        for words in texts:
            marked = (pair for pair in pairwise(words) if any(len(word) == 1 and _is_mark(word) for word in pair))
            parted.update(map("".join, marked))
            for word in words:
                if len(word) > 1:
                    left[word[0]] += _is_mark(word[0])
                    right[word[-1]] += _is_mark(word[-1])
                    edged[word] += _is_mark(word[0]) or _is_mark(word[-1])
                    several += any(map(_is_unspaced, word))
                elif word:
                    alone[word] += _is_mark(word)
                    single += _is_unspaced(word)
        first, last = ("".join(sorted(m for m, n in edge.items() if n > alone[m])) for edge in (left, right))
        plain = WordSplit(first, last, several > single)
        kept = [w for w, n in edged.most_common(_MOST_WHOLE) if n > parted[w] and len(plain.spans(w)) > 1]
        return replace(plain, whole=tuple(sorted(kept)))

    def spans(self, text: str) -> list[Span]:
        """The words of plain text."""
        spans: list[Span] = []
        start = 0
        for chunk in text.split():
            start = text.index(chunk, start)
            end = start + len(chunk)
            left, right = start, end
            while left < right and self._parts(text, left, right, left, self.left):
                left += 1
            while right > left and self._parts(text, left, right, right - 1, self.right):
                right -= 1
            spans += [(i, i + 1) for i in range(start, left)]
            spans += [(left, right)] if self.together and left < right else _unspaced(text, left, right)
            spans += [(i, i + 1) for i in range(right, end)]
            start = end
        return spans

    def _parts(self, text: str, start: int, end: int, edge: int, kept: str) -> bool:
        """Whether the mark at an edge of a word is a word of its own."""
        return _is_mark(text[edge]) and text[edge] not in kept and text[start:end] not in self._whole

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
