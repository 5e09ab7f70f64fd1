"""How much of the teacher's metric a model keeps, by a paired bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekd.tasks.base import Task

_RESAMPLES = 2000


@dataclass(frozen=True)
class Retained:
    """How much of the teacher's metric a model keeps on test.

    Attributes:
        student: The model's metric, at most 1.
        teacher: The teacher's.
        value: student / teacher.
        interval: 95% interval of the value, by a paired bootstrap over texts.
        student_interval: 95% interval of the model's metric.
        rows: Texts.
        parts: What the metric is made of: name, the model's and the teacher's.
    """

    student: float
    teacher: float
    value: float
    interval: tuple[float, float]
    student_interval: tuple[float, float]
    rows: int
    parts: tuple[tuple[str, float, float], ...] = ()


def retained(task: Task, student: np.ndarray, teacher: np.ndarray, seed: int = 0) -> Retained:
    """Compare two models on the same texts by a paired bootstrap: both are scored on the same resampled texts.

    Args:
        student: What each text brings to the model's metric, (n, k); see `Task.counts`.
    """
    rng = np.random.default_rng(seed)
    n = len(student)
    scores = np.empty((_RESAMPLES, 2))
    for i in range(_RESAMPLES):
        weights = np.bincount(rng.integers(0, n, n), minlength=n)
        scores[i] = task.score(student, weights), task.score(teacher, weights)
    ratios = scores[:, 0] / np.maximum(scores[:, 1], 1e-12)
    mine, reference = task.score(student), task.score(teacher)
    return Retained(
        mine,
        reference,
        mine / max(reference, 1e-12),
        _ends(ratios),
        _ends(scores[:, 0]),
        n,
        tuple((name, part, task.parts(teacher)[name]) for name, part in task.parts(student).items()),
    )


def _ends(samples: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def outcome_at_least(interval: tuple[float, float], limit: float) -> str:
    """Met if the whole interval is at or above the limit, missed if all of it is below, else inconclusive."""
    if interval[0] >= limit:
        return "met"
    return "missed" if interval[1] < limit else "inconclusive"
