"""Stage `validate`: the exported file on the device, end to end, against the budget and the quality floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from edgekd.data.split import Split
from edgekd.latency.judge import Judgement, judge_budget
from edgekd.latency.measure import REPORTED_SECONDS, Measurement, measure_for
from edgekd.latency.targets.base import Target
from edgekd.latency.timer import BundleJob, Text
from edgekd.progress import Progress
from edgekd.runtime.tokenise import cut_at, cut_side
from edgekd.tasks.base import Task

# Texts that a latency measurement cycles over.
_TEXTS = 64

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


def replay_texts(split: Split, seed: int = 0) -> tuple[Text, ...]:
    """Real texts at their own lengths, a seeded sample."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(split))[:_TEXTS]
    if split.pairs is not None:
        return tuple((split.texts[i], split.pairs[i]) for i in chosen)
    return tuple(split.texts[i] for i in chosen)


def fixed_texts(tokenizer: Tokenizer, split: Split, length: int, seed: int = 0) -> tuple[Text, ...]:
    """Texts of exactly `length` tokens, special tokens included, made by joining real ones.

    Args:
        length: Tokens wanted.
    """
    cut_at(tokenizer, cut_side(tokenizer))  # by the texts' own ends alone
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(split))
    pair = split.pairs is not None
    wanted = length - tokenizer.num_special_tokens_to_add(pair)
    sizes = [wanted - wanted // 2, wanted // 2] if pair else [wanted]
    made: list[Text] = []
    position = 0
    for _ in range(min(_TEXTS, max(8, len(split)))):
        parts = []
        for size in sizes:
            text, position = _join(tokenizer, split.texts, order, position, size)
            parts.append(text)
        made.append((parts[0], parts[1]) if pair else parts[0])
    return tuple(made)


def _join(tokenizer: Tokenizer, texts: Sequence[str], order: np.ndarray, position: int, size: int) -> tuple[str, int]:
    """Join texts from `position` on until they hold `size` tokens, and cut after the last of them."""
    joined = ""
    for _ in range(size + 1):
        joined = f"{joined} {texts[order[position % len(order)]]}".strip()
        position += 1
        encoding = tokenizer.encode(joined, add_special_tokens=False)
        if len(encoding.ids) >= size:
            return joined[: encoding.offsets[size - 1][1]], position
    return joined, position  # texts that give no token at all


def judge_latency(
    bundle: Path,
    texts: Sequence[Text],
    target: Target,
    budget_ms: float,
    percentile: float,
    progress: Progress,
    title: str,
    *,
    batch_size: int = 1,
) -> Judgement:
    """Measure a bundle end to end in processes of its own, and judge it against the budget."""
    job = BundleJob(title, bundle, tuple(texts), batch_size)
    with progress.bar(title, 1) as bar:
        return judge_budget(job, target, budget_ms, percentile, target.clock, progress=bar.update)


def report_latency(
    bundle: Path, texts: Sequence[Text], target: Target, progress: Progress, title: str, *, batch_size: int = 1
) -> Measurement:
    """Measure a bundle end to end as `judge_latency` does, but briefly: it is reported and decides nothing."""
    job = BundleJob(title, bundle, tuple(texts), batch_size)
    with progress.bar(title, 1) as bar:
        return measure_for(job, target, REPORTED_SECONDS, progress=bar.update)
