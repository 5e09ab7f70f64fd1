"""Teacher-consistency filter: a new text stays only where the teacher still says what it says of the original."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.data.augment.sentence import moved_spans
from edgekd.errors import UsageError
from edgekd.runtime.tags import spans_of


def consistent(
    original_rows: NDArray[np.floating], augmented_rows: NDArray[np.floating], parents: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which new texts have their original's label, both as the teacher has it.

    Args:
        original_rows: The teacher's logits of the originals, (texts, labels).
        augmented_rows: Its logits of the new texts, (new, labels).
        parents: Each new text's original, (new,).

    Returns:
        True where the argmax is the same, (new,).

    Raises:
        UsageError: One column: a regression has no label to keep.
    """
    if original_rows.shape[1] < 2:
        raise UsageError("the teacher-consistency filter compares labels: a regression has none; leave it off")
    same: NDArray[np.bool_] = original_rows.argmax(axis=1)[parents] == augmented_rows.argmax(axis=1)
    return same


def consistent_tags(
    original: Sequence[Sequence[str]],
    augmented: Sequence[Sequence[str]],
    parents: NDArray[np.int64],
    alignment: Sequence[Sequence[int]],
    scheme: str,
) -> NDArray[np.bool_]:
    """Which new texts have their original's spans at their words' new places, both as the teacher has them.

    Args:
        original: The teacher's tags of the originals, a tag a word.
        augmented: Its tags of the new texts, a tag a word.
        parents: Each new text's original, (new,).
        alignment: For each new word its place in the original, see `Augmented`.
        scheme: Of the tags.

    Returns:
        True where all spans agree, (new,).
    """
    pairs = zip(augmented, parents.tolist(), alignment, strict=True)
    same = [
        spans_of(tags, scheme) == moved_spans(spans_of(original[parent], scheme), places)
        for tags, parent, places in pairs
    ]
    return np.array(same, dtype=np.bool_)
