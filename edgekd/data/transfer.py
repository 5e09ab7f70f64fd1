"""Stage `build_transfer_set`: the text that the student learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekd.data.spec import Transfer
from edgekd.data.split import Split, TaskData
from edgekd.errors import DataError


@dataclass(frozen=True)
class TransferSet:
    """Texts to learn from, the labelled ones first.

    Attributes:
        labelled: Texts that have gold labels; may be empty.
        split: All texts, labels left out: the labelled ones, then the unlabelled.
        notes: What was left out and why.
    """

    labelled: Split | None
    split: Split
    notes: tuple[str, ...]


def build_transfer_set(data: TaskData, spec: Transfer, seed: int) -> TransferSet:
    """Join target-domain texts: training texts, then unlabelled ones that are in no other split.

    Args:
        data: The user's data.
        spec: What to take.
        seed: Decides which texts are taken where `max_texts` is smaller than what there is.

    Raises:
        DataError: Nothing is left to learn from.
    """
    train = data.train if spec.use_labelled and data.train is not None and len(data.train) else None
    notes: list[str] = []
    parts = [train] if train is not None else []
    if spec.use_unlabeled and data.unlabeled is not None and len(data.unlabeled):
        parts.append(_fresh(data.unlabeled, data, train, notes))
    if not sum(len(part) for part in parts):
        raise DataError("no text to learn from: give train or unlabeled texts")
    if spec.max_texts is not None:
        parts, train = _limited(parts, train, spec.max_texts, seed, notes)
    labelled = train if train is not None and train.has_gold else None
    texts = parts[0].without_labels("transfer")
    for part in parts[1:]:
        texts = texts.concat(part.without_labels())
    return TransferSet(labelled, texts, tuple(notes))


def _fresh(unlabeled: Split, data: TaskData, train: Split | None, notes: list[str]) -> Split:
    """Leave out repeated texts and, so that no score is optimistic, texts of validation and test."""
    seen = set(train.keys()) if train is not None else set()
    held_out = {key for split in (data.validation, data.test) if split is not None for key in split.keys()}  # noqa: SIM118 - a method of Split
    keep, leaks = [], 0
    for i, key in enumerate(unlabeled.keys()):
        leaks += key in held_out
        if key not in held_out and key not in seen:
            keep.append(i)
        seen.add(key)
    if leaks:
        notes.append(f"{leaks} unlabelled texts left out: they are in validation or test")
    repeated = len(unlabeled) - len(keep) - leaks
    if repeated > 0:
        notes.append(f"{repeated} unlabelled texts left out: repeated")
    return unlabeled.take(np.array(keep, dtype=np.int64))


def _limited(
    parts: list[Split], train: Split | None, limit: int, seed: int, notes: list[str]
) -> tuple[list[Split], Split | None]:
    """Cut to `limit` texts; labelled ones stay before unlabelled ones."""
    rng = np.random.default_rng(seed)
    total = sum(len(p) for p in parts)
    kept: list[Split] = []
    for part in parts:
        take = min(len(part), limit - sum(len(p) for p in kept))
        kept.append(part.take(np.sort(rng.permutation(len(part))[:take])))
    if total > limit:
        notes.append(f"{total - limit} of {total} texts left out: transfer.max_texts is {limit}")
    return kept, kept[0] if train is not None else None
