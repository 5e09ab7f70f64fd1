"""A tag a word, and the spans that tags mean, in every common scheme. Imports nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

TagSpan = tuple[str, int, int]
"""(type, first word, word after the last)."""

OUTSIDE = "O"

# First and last word of a span, and a span of one word, where a scheme marks its ends.
_MARKED = {"BILOU": ("B", "L", "U"), "IOBES": ("B", "E", "S")}


def split_tag(tag: str) -> tuple[str, str]:
    """A tag's prefix and type: "B-city" gives ("B", "city"), "O" gives ("O", "")."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def scheme_of(labels: Iterable[str]) -> str:
    """The scheme that a set of tags is of: "BIO", "BILOU", "IOBES", or "IO".

    "IO" are types without prefixes, or with I- alone. IOB1 has the tags of BIO, and is read as BIO is: its spans begin
    with I-, and with B- only after a span of their type.
    """
    tags = [label for label in labels if label != OUTSIDE]
    prefixes = {prefix for prefix, kind in map(split_tag, tags) if kind}
    if not tags or not all(split_tag(tag)[1] for tag in tags) or not prefixes <= set("BILUES"):
        return "IO"
    if prefixes & set("LU"):
        return "BILOU"
    if prefixes & set("ES"):
        return "IOBES"
    return "BIO" if "B" in prefixes else "IO"


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
    plain = scheme == "IO" and not all(tag == OUTSIDE or tag.startswith("I-") for tag in tags)
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
