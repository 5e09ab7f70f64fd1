"""How far a teacher's labels can be trusted: its calibration, and how noisy it is on each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.distill.scoring import Judged
from edgekd.records.labels import CalibrationSummary, ClassNoise
from edgekd.tasks.base import Task

BINS = 15

# Temperatures are looked for between these, to within this factor.
_COLDEST, _HOTTEST, _EXACT = 0.05, 20.0, 1.0001


def calibrate(task: Task, judged: Judged, rows: NDArray[np.float32]) -> CalibrationSummary | None:
    """Measure a teacher on a split.

    Args:
        rows: Its logits on them, (rows, labels).

    Returns:
        None where there are no gold labels, or no distribution over classes.
    """
    if judged.agreement or task.output not in ("classes", "joint") or not len(rows):
        return None
    targets = task.target_rows(judged.split, judged.encodings)
    temperature = fit_temperature(rows, targets)
    return CalibrationSummary(
        rows=len(rows),
        error=calibration_error(softmax(rows), targets),
        temperature=temperature,
        fitted_error=calibration_error(softmax(rows / temperature), targets),
        noise=label_noise(rows.argmax(axis=-1), targets, task.labels),
    )


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities of logits (rows, labels)."""
    shares: NDArray[np.float64] = np.exp(_log_softmax(logits))
    return shares


def calibration_error(probabilities: NDArray[np.float64], targets: NDArray[np.int64], bins: int = BINS) -> float:
    """Expected calibration error: |accuracy - mean confidence| over bins of equal width, weighted by their rows.

    Guo et al., 2017, https://arxiv.org/abs/1706.04599. Confidence is the largest probability; a bin holds what is
    above its lower edge, up to its upper one.

    Args:
        probabilities: (rows, labels).
        targets: The right label ids, (rows,).
        bins: How many.
    """
    confidence = probabilities.max(axis=-1)
    right = probabilities.argmax(axis=-1) == targets
    places = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(targets))


def fit_temperature(logits: NDArray[np.floating], targets: NDArray[np.int64]) -> float:
    """The temperature at which logits / temperature have the least negative log-likelihood.

    That is convex in 1 / temperature, so its logarithm has one lowest point: a golden-section search finds it.

    Args:
        logits: (rows, labels).
        targets: The right label ids, (rows,).

    Returns:
        Between 0.05 and 20: on rows that are all right, or all wrong, the best one has no end.
    """
    low, high, ratio = np.log(_COLDEST), np.log(_HOTTEST), (np.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = _loss(logits, targets, left), _loss(logits, targets, right)
    while high - low > np.log(_EXACT):
        if at_left <= at_right:  # where rows are all right, both may be zero
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = _loss(logits, targets, left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = _loss(logits, targets, right)
    return float(np.exp((low + high) / 2))


def label_noise(said: NDArray[np.int64], targets: NDArray[np.int64], labels: Sequence[str]) -> tuple[ClassNoise, ...]:
    """Share of each class's answers that are wrong, the worst class first; classes never given are left out.

    Args:
        said: The teacher's label ids, (rows,).
        targets: The right ones.
    """
    given = np.bincount(said, minlength=len(labels))
    wrong = np.bincount(said[said != targets], minlength=len(labels))
    found = [
        ClassNoise(label=labels[i], said=int(given[i]), wrong=float(wrong[i] / given[i]))
        for i in np.flatnonzero(given).tolist()
    ]
    return tuple(sorted(found, key=lambda noise: (-noise.wrong, -noise.said, noise.label)))


def _loss(logits: NDArray[np.floating], targets: NDArray[np.int64], log_temperature: float) -> float:
    likely = _log_softmax(logits / np.exp(log_temperature))[np.arange(len(targets)), targets]
    return -float(likely.mean())


def _log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found
