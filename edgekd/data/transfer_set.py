"""The text that the student learns from: target-domain text first, then generic text like it, then new texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekd.data.augment.apply import Augmented, augment
from edgekd.data.select.cascade import Selection, select
from edgekd.data.select.clusters import Embed
from edgekd.data.select.dedup import deduplicate
from edgekd.data.select.pool import Pool
from edgekd.data.split import Split, TaskData
from edgekd.errors import DataError, UsageError
from edgekd.progress import Progress
from edgekd.records.transfer import GenericSummary
from edgekd.runtime.words import WordSplit
from edgekd.settings.select import GenericText
from edgekd.settings.transfer import Transfer

# No two texts are as alike as this: only equal ones are left out.
_NEVER = 2.0


@dataclass(frozen=True)
class TransferSet:
    """Texts to learn from, the labelled ones first.

    Attributes:
        labelled: Texts that have gold labels; None where there are none.
        split: All texts, labels left out: labelled, unlabelled, generic, augmented, in this order.
        notes: What was left out and why.
        counts: How many of each of these four there are, those with none left out.
        augmented: The last texts of `split` and where they come from: `parents` are rows of `split`.
        selection: How the generic texts were chosen; None where there are none.
    """

    labelled: Split | None
    split: Split
    notes: tuple[str, ...]
    counts: dict[str, int]
    augmented: Augmented | None = None
    selection: GenericSummary | None = None

    def with_generic(self, texts: Sequence[str], notes: Sequence[str], split: WordSplit) -> TransferSet:
        """The set with generic texts at its end; `split` says what their words are, where the task asks for words."""
        words = None if self.split.words is None else [split.words(text) for text in texts]
        joined = list(texts) if words is None else [" ".join(text) for text in words]
        return replace(
            self,
            split=self.split.concat(Split("generic", joined, words=words)),
            notes=(*self.notes, *(f"generic: {note}" for note in notes)),
            counts=self.counts | {"generic": len(texts)},
        )

    def with_augmented(self, augmented: Augmented) -> TransferSet:
        """The set with augmented texts at its end."""
        return replace(
            self,
            split=self.split.concat(augmented.split) if len(augmented) else self.split,
            notes=(*self.notes, *augmented.notes),
            counts=self.counts | {"augmented": len(augmented)},
            augmented=augmented,
        )

    def consistent(self, same: np.ndarray, why: str) -> tuple[TransferSet, np.ndarray]:
        """The set without the augmented texts that are False in `same`, (augmented,), and the rows that stay."""
        assert self.augmented is not None
        before = len(self.split) - len(self.augmented)
        rows = np.concatenate([np.arange(before), before + np.flatnonzero(same)])
        kept = self.augmented.keep(same, why)
        smaller = replace(
            self,
            split=self.split.take(rows),
            notes=(*self.notes, kept.notes[-1]),
            counts=self.counts | {"augmented": len(kept)},
            augmented=kept,
        )
        return smaller, rows


def target_texts(data: TaskData, spec: Transfer, seed: int) -> TransferSet:
    """Join target-domain texts: training texts, then unlabelled ones that repeat none of these and are in no split.

    Args:
        seed: Decides which texts are taken where `max_texts` is smaller than what there is.

    Raises:
        DataError: Nothing is left to learn from.
    """
    train = data.train if spec.use_labelled and data.train is not None and len(data.train) else None
    notes: list[str] = []
    train = None if train is None else _unseen(train, data, notes)
    parts = [train] if train is not None else []
    if spec.use_unlabeled and data.unlabeled is not None and len(data.unlabeled):
        parts.append(_fresh(data.unlabeled, data, train, spec, notes))
    if not sum(len(part) for part in parts):
        raise DataError(
            "no text to learn from: give train or unlabeled texts that are not in validation or test"
            if notes
            else "no text to learn from: give train or unlabeled texts"
        )
    if spec.max_texts is not None:
        parts, train = _limited(parts, train, spec.max_texts, seed, notes)
    labelled = train if train is not None and train.has_gold else None
    texts = parts[0].without_labels("transfer")
    for part in parts[1:]:
        texts = texts.concat(part.without_labels())
    known = 0 if labelled is None else len(labelled)
    counts = {"labelled": known, "unlabelled": len(texts) - known}
    return TransferSet(labelled, texts, tuple(notes), counts)


def choose_generic(
    generic: GenericText, target: TransferSet, data: TaskData, near_equal: float | None, embed: Embed | None
) -> Selection:
    """Choose generic texts that are like the target's.

    Args:
        generic: Pool, size and method.
        data: Its validation and test must not come back through the pool.
        near_equal: See `Transfer`.
        embed: Texts to vectors; "cascade" and "clusters" need it.

    Raises:
        DataError: The pool cannot be read, or holds nothing new.
        UsageError: Pairs, or a method that needs a teacher without one.
    """
    if target.split.pairs is not None:
        raise UsageError("transfer.generic: generic text has no pairs; leave --generic out for a task on pairs")
    if embed is None and generic.method in ("cascade", "clusters"):
        raise UsageError(
            f"transfer.generic.method {generic.method} compares texts in the teacher's space: give --teacher, "
            "or take --generic-method ngrams"
        )
    held_out = [text for split in (data.validation, data.test) if split is not None for text in split.texts]
    return select(
        open_pool(generic), target.split.texts, generic.wanted(len(target.split)), method=generic.method,
        seed=generic.seed, held_out=held_out, embed=embed, clusters=generic.clusters, buckets=generic.buckets,
        noise=generic.noise, threshold=_NEVER if near_equal is None else near_equal,
    )  # fmt: skip


def open_pool(generic: GenericText) -> Pool:
    """The pool of generic texts.

    Raises:
        DataError: There is none; the message names the flag.
    """
    try:
        return Pool(generic.path)
    except DataError as error:
        raise DataError(f"--generic {error}") from error


def augment_target(
    target: TransferSet, data: TaskData, spec: Transfer, seed: int, device: str, progress: Progress
) -> Augmented:
    """Make new texts from the labelled texts, or from all target texts where none is labelled.

    Raises:
        UsageError: A policy cannot work on such texts, or its model's folder is faulty.
    """
    originals = target.labelled if target.labelled is not None else target.split
    held_out = [split for split in (data.validation, data.test) if split is not None]
    return augment(
        originals, spec.augment, seed=seed, copies=spec.copies, allow_pairs=spec.augment_pairs,
        exclude=[target.split, *held_out], device=device, progress=progress,
    )  # fmt: skip


def _unseen(train: Split, data: TaskData, notes: list[str]) -> Split | None:
    """Leave out training texts that are also in validation or test; equal ones only, for near ones are as labelled."""
    held_out: set[tuple[str, str]] = set()
    for split in (data.validation, data.test):
        held_out.update([] if split is None else split.keys())
    kept = [i for i, key in enumerate(train.keys()) if key not in held_out]
    if len(kept) == len(train):
        return train
    notes.append(f"{len(train) - len(kept)} training texts left out: equal to one in validation or test")
    return train.take(np.array(kept, dtype=np.int64)) if kept else None


def _fresh(unlabeled: Split, data: TaskData, train: Split | None, spec: Transfer, notes: list[str]) -> Split:
    """Leave out repeated texts and, so that no score is optimistic, texts of validation and test."""
    threshold = _NEVER if spec.near_equal is None else spec.near_equal
    like = "equal" if spec.near_equal is None else "equal or near-equal"
    held_out = [key for split in (data.validation, data.test) if split is not None for key in _lines(split)]
    found = deduplicate(_lines(unlabeled), held_out, threshold)
    if found.leaks:
        notes.append(f"{found.leaks} unlabelled texts left out: {like} to one in validation or test")
    fresh = unlabeled.take(found.kept)
    again = 0
    if train is not None:
        new = deduplicate(_lines(fresh), _lines(train), threshold)
        again = new.leaks
        fresh = fresh.take(new.kept)
    repeated = found.repeated + found.near + again
    if repeated:
        notes.append(f"{repeated} unlabelled texts left out: {like} to another")
    return fresh


def _lines(split: Split) -> list[str]:
    """Each row as one text."""
    return split.texts if split.pairs is None else [f"{a} {b}" for a, b in zip(split.texts, split.pairs, strict=True)]


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
