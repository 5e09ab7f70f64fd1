"""A student's shape as one writes it: LAYERSxHIDDEN[xFFN][hHEADS]. Imports no torch."""

from __future__ import annotations

import re

from edgekd.errors import UsageError
from edgekd.settings.shape import EncoderShape

_PATTERN = re.compile(r"(\d+)x(\d+)(?:x(\d+))?(?:h(\d+))?")


def parse_shape(text: str, teacher: EncoderShape) -> EncoderShape:
    """Read a shape such as "6x384x1536h12": 6 layers, width 384, 1536 FFN neurons and 12 heads in each.

    Args:
        text: Without FFN it is four times the width; without heads their size is the teacher's.
        teacher: Everything else is as it is here.

    Returns:
        A stock BERT's shape without a head: all layers alike, the heads together as wide as the stream.

    Raises:
        UsageError: It is not of that form, or the heads do not divide the width.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--student-shape {text!r}: write LAYERSxHIDDEN[xFFN][hHEADS], such as 6x384x1536h12")
    given = [None if part is None else int(part) for part in match.groups()]
    if 0 in given:
        raise UsageError(f"--student-shape {text}: every number must be at least 1")
    depth, width = given[0] or 0, given[1] or 0
    ffn, heads = given[2] or 4 * width, given[3]
    if heads is None:
        heads, rest = divmod(width, teacher.head_size)
        if rest:
            raise UsageError(
                f"--student-shape {text}: width {width} is no multiple of {teacher.head_size}, the teacher's head "
                f"size; add a number of heads that divides it, such as {text}h{_divisor(width)}"
            )
    if width % heads:
        raise UsageError(
            f"--student-shape {text}: {heads} heads do not divide the width {width}; {_divisor(width)} would"
        )
    return teacher.model_copy(
        update={
            "embedding": width, "hidden": width, "head_size": width // heads, "heads": (heads,) * depth,
            "ffn": (ffn,) * depth, "head": None,
        }
    )  # fmt: skip


def _divisor(width: int) -> int:
    """The most heads, of 12 at most, that divide a width."""
    return next(n for n in range(min(12, width), 0, -1) if width % n == 0)
