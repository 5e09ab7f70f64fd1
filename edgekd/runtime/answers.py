"""Logits to answers: labels with scores, and spans with their texts. Imports only numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.runtime.tags import TagSpan, bio_spans

__all__ = ["bio_spans", "classify", "classify_all", "sigmoid", "softmax", "text_spans"]

Array = NDArray[Any]


def softmax(logits: Array) -> Array:
    """Probabilities over the last axis, in float64 and safe against overflow."""
    values = np.asarray(logits, dtype=np.float64)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def classify(logits: Array, labels: Sequence[str], all_scores: bool = False) -> list[dict[str, Any]]:
    """The likeliest label of each text.

    Args:
        logits: (texts, labels).
        labels: Names of the columns.
        all_scores: Give every label's probability too.

    Returns:
        `{"label", "score"}` a text, with `"scores"` (label to probability) if asked for.
    """
    answers: list[dict[str, Any]] = []
    for row in softmax(logits):
        best = int(row.argmax())
        answer: dict[str, Any] = {"label": labels[best], "score": float(row[best])}
        if all_scores:
            answer["scores"] = dict(zip(labels, row.tolist(), strict=True))
        answers.append(answer)
    return answers


def sigmoid(logits: Array) -> Array:
    """Probability of each label by itself, in float64 and safe against overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, dtype=np.float64))))


def classify_all(
    logits: Array, labels: Sequence[str], threshold: float, all_scores: bool = False
) -> list[dict[str, Any]]:
    """The labels of each text whose probability is above the threshold, the likeliest first.

    Args:
        logits: (texts, labels).
        labels: Names of the columns.
        threshold: Between 0 and 1.
        all_scores: Give every label's probability too.

    Returns:
        `{"labels": [{"label", "score"}]}` a text, with `"scores"` (label to probability) if asked for.
    """
    answers: list[dict[str, Any]] = []
    for row in sigmoid(logits):
        order = np.argsort(-row, kind="stable")
        given = [{"label": labels[i], "score": float(row[i])} for i in order if row[i] > threshold]
        answer: dict[str, Any] = {"labels": given}
        if all_scores:
            answer["scores"] = dict(zip(labels, row.tolist(), strict=True))
        answers.append(answer)
    return answers


def text_spans(
    text: str, words: Sequence[tuple[int, int]], spans: Sequence[TagSpan], scores: Sequence[float]
) -> list[dict[str, Any]]:
    """The spans of a text with their characters.

    Args:
        text: The text.
        words: (start, end) characters of each word.
        spans: Which words each takes, see `edgekd.runtime.tags.spans_of`.
        scores: The probability of each word's tag.

    Returns:
        `{"label", "start", "end", "text", "score"}` a span; the score is the mean over its words.
    """
    answers: list[dict[str, Any]] = []
    for kind, first, after in spans:
        start, end = words[first][0], words[after - 1][1]
        score = float(np.mean(scores[first:after]))
        answers.append({"label": kind, "start": start, "end": end, "text": text[start:end], "score": score})
    return answers
