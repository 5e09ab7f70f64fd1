"""A tag a word, and the spans that tags mean, in every common scheme. Imports the standard library alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

TagSpan = tuple[str, int, int]
"""(type, first word, word after the last)."""

OUTSIDE = "O"

# First and last word of a span, and a span of one word, where a scheme marks its ends.
_MARKED = {"BILOU": ("B", "L", "U"), "IOBES": ("B", "E", "S")}


# Marks in other writings: "b-per", "B_PER", "PER-B", and M and W for inside and single.
_BEFORE = re.compile(r"([BILUESMWbiluesmw])[-_].+")
_AFTER = re.compile(r".+[-_]([BILUESMW])")
_USUAL = {"M": "I"}


def split_tag(tag: str) -> tuple[str, str]:
    """A tag's prefix and type: "B-city" gives ("B", "city"), "O" gives ("O", "")."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def scheme_of(labels: Iterable[str]) -> str:
    """The scheme that a set of tags is of: "BIO", "BILOU", "IOBES", or "IO".

    "IO" are types without prefixes, or with I- alone. IOB1 has the tags of BIO, and is read as BIO is: its spans begin
    with I-, and with B- only after a span of their type. Beside tags with prefixes, those without ("X", "[PAD]") mark
    no span.
    """
    labels = list(labels)
    prefixes = {prefix for prefix, kind in map(split_tag, labels) if kind}
    if not any(tag.startswith(("B-", "I-", "U-", "S-")) for tag in labels) or not prefixes <= set("BILUES"):
        return "IO"
    if prefixes & set("LU"):
        return "BILOU"
    if prefixes & set("ES"):
        return "IOBES" if prefixes & set("BS") else "IO"
    return "BIO" if "B" in prefixes else "IO"


def unknown_scheme(labels: Iterable[str]) -> str:
    """What to say of tags that are marked in a way that is not read here; empty for those of a known scheme."""
    tags = [label for label in labels if label != OUTSIDE]
    if scheme_of(tags) != "IO" or len(tags) < 2 or all(tag.startswith("I-") for tag in tags):
        return ""
    for pattern, where in ((_BEFORE, "before"), (_AFTER, "after")):
        marks = [found.group(1).upper() for tag in tags if (found := pattern.fullmatch(tag))]
        if len(marks) == len(tags) and len(set(marks)) > 1 and "I" in {_USUAL.get(mark, mark) for mark in marks}:
            return (
                f"tags such as {tags[0]!r} carry a mark {where} their type that is not read: write B-TYPE and I-TYPE "
                "(BIO), or BILOU or IOBES in the same way"
            )
    return ""


def spans_of(tags: Sequence[str], scheme: str) -> list[TagSpan]:
    """The spans of a text's tags, in order.

    Args:
        tags: A tag a word.
        scheme: See `scheme_of`. BIO is read as conlleval and seqeval's default mode do: a span begins at a B-, and at
            an I- that does not continue one of its type. BILOU and IOBES as seqeval's strict mode does: a span that
            does not end as it must is none.
    """
    if scheme in _MARKED:
        return _whole_spans(tags, *_MARKED[scheme])
    plain = scheme == "IO" and not all(tag == OUTSIDE or tag.startswith(("I-", "E-")) for tag in tags)
    spans: list[TagSpan] = []
    kind, start = "", 0
    for i, tag in enumerate([*tags, OUTSIDE]):
        prefix, this = ("I", tag) if plain and tag != OUTSIDE else split_tag(tag)
        if prefix == "I" and this == kind:
            continue
        if kind:
            spans.append((kind, start, i))
        kind, start = ("" if tag == OUTSIDE else this), i
    return spans


def bio_spans(tags: Sequence[str]) -> list[TagSpan]:
    """`spans_of` BIO tags."""
    return spans_of(tags, "BIO")


def _whole_spans(tags: Sequence[str], first: str, last: str, single: str) -> list[TagSpan]:
    """Spans of schemes that mark both ends."""
    spans: list[TagSpan] = []
    kind, start = "", 0
    for i, (prefix, this) in enumerate(map(split_tag, tags)):
        inside = bool(kind) and this == kind and prefix in ("I", last)
        if inside and prefix == last:
            spans.append((kind, start, i + 1))
        elif prefix == single:
            spans.append((this, i, i + 1))
        if not inside or prefix == last:
            kind, start = (this if prefix == first else ""), i
    return spans


def repair_bio(tags: Sequence[str]) -> list[str]:
    """The same spans in strict BIO: an I- that begins a span becomes a B-."""
    repaired = list(tags)
    for kind, start, _ in bio_spans(tags):
        repaired[start] = f"B-{kind}"
    return repaired


def begins_with_i(texts: Iterable[Sequence[str]]) -> bool:
    """Whether tags with the prefixes of BIO are IOB1: no span begins with B- but one that follows another of its type.

    Args:
        texts: The tags of many texts.
    """
    for tags in texts:
        for before, tag in zip((OUTSIDE, *tags), tags, strict=False):
            if tag.startswith("B-") and split_tag(before)[1] != tag[2:]:
                return False
    return True
