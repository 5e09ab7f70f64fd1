"""Slot swap: mention replacement of Dai and Adel, 2020 (https://aclanthology.org/2020.coling-main.343)."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence

from edgekd.data.augment.sentence import Edited, Job, Sentence, draw
from edgekd.data.split import Split
from edgekd.runtime.tags import scheme_of, spans_of
from edgekd.settings.augment import SlotSwap

Values = Mapping[str, Sequence[tuple[str, ...]]]
"""The distinct values of each type of span, in words."""


def split_scheme(split: Split) -> str:
    """The scheme of a split's tags."""
    return scheme_of({tag for tags in split.tags or [] for tag in tags})


def slot_values(split: Split) -> Values:
    """What each type of span says somewhere in a split, sorted; nothing without words and tags."""
    seen: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    scheme = split_scheme(split)
    for words, tags in zip(split.words or [], split.tags or [], strict=True):
        for kind, start, end in spans_of(tags, scheme):
            seen[kind].add(tuple(words[start:end]))
    return {kind: sorted(values) for kind, values in seen.items()}


def slot_swap(spec: SlotSwap, values: Values, job: Job, scheme: str = "BIO") -> Edited | None:
    """Drawn spans get the words of another value of their type; None where no span has another."""
    words, spans = job.sentence.words, spans_of(job.sentence.tags or [], scheme)
    new: list[str] = []
    alignment: list[int] = []
    done = 0
    for i in draw(job.rng, [i for i, (kind, _, _) in enumerate(spans) if len(values[kind]) > 1], spec.ratio):
        kind, start, end = spans[i]
        value = _another(values[kind], tuple(words[start:end]), job)
        new += [*words[done:start], *value]
        # A value longer than the span takes the span's last place again and again.
        alignment += [*range(done, start), *(min(start + j, end - 1) for j in range(len(value)))]
        done = end
    if not done:
        return None
    return Edited(Sentence.from_words([*new, *words[done:]], None), [*alignment, *range(done, len(words))])


def _another(values: Sequence[tuple[str, ...]], own: tuple[str, ...], job: Job) -> tuple[str, ...]:
    """Any of the sorted values but the span's own, evenly."""
    at = int(job.rng.integers(len(values) - 1))
    return values[at + (at >= bisect_left(values, own))]
