"""Data with few labels, as the benchmarks of training share them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekd.data.split import Split, TaskData


def few_labels(
    data: TaskData, labels: int | None, seed: int, *, unlabelled: int | None, validation: int | None
) -> TaskData:
    """Keep the labels of a few texts a class, drawn by the seed; the rest of train becomes unlabelled text.

    Args:
        data: With train and validation, labelled.
        labels: Texts a class whose label is kept; None keeps all.
        seed: Decides which.
        unlabelled: Unlabelled texts at most, drawn by the seed; None: all.
        validation: Validation texts at most, drawn by the seed; None: all.
    """
    assert data.train is not None
    assert data.validation is not None
    assert data.train.labels is not None
    rng = np.random.default_rng(seed)
    held_out = _some(data.validation, validation, rng)
    if labels is None:
        return replace(data, validation=held_out)
    classes = np.array(data.train.labels)
    known = np.sort(np.concatenate([rng.permutation(np.flatnonzero(classes == c))[:labels] for c in data.labels]))
    rest = data.train.take(np.setdiff1d(np.arange(len(classes)), known)).without_labels("unlabeled")
    return replace(data, train=data.train.take(known), validation=held_out, unlabeled=_some(rest, unlabelled, rng))


def _some(split: Split, limit: int | None, rng: np.random.Generator) -> Split:
    if limit is None or len(split) <= limit:
        return split
    return split.take(np.sort(rng.permutation(len(split))[:limit]))
