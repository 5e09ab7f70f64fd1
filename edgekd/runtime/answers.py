"""Logits to answers: labels with scores, and BIO tags to spans. Imports only numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def split_tag(tag: str) -> tuple[str, str]:
    """A BIO tag's prefix and type: "B-city" gives ("B", "city"), "O" gives ("O", "")."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def bio_spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The spans of BIO tags, as conlleval (and seqeval's default mode) reads them.

    A span begins at a B-, and at an I- that does not continue a span of its own type.

    Returns:
        (type, first word, word after the last), in order.
    """
    spans: list[tuple[str, int, int]] = []
    kind, start = "", 0
    for i, tag in enumerate([*tags, "O"]):
        prefix, this = split_tag(tag)
        if prefix == "I" and this == kind:
            continue
        if kind:
            spans.append((kind, start, i))
        kind, start = ("" if prefix == "O" else this), i
    return spans


def repair_bio(tags: Sequence[str]) -> list[str]:
    """The same spans in strict BIO: an I- that begins a span becomes a B-."""
    repaired = list(tags)
    for kind, start, _ in bio_spans(tags):
        repaired[start] = f"B-{kind}"
    return repaired


def text_spans(
    text: str, words: Sequence[tuple[int, int]], tags: Sequence[str], scores: Sequence[float]
) -> list[dict[str, Any]]:
    """The spans of a text with their characters.

    Args:
        text: The text.
        words: (start, end) characters of each word.
        tags: A BIO tag a word.
        scores: Each tag's probability.

    Returns:
        `{"label", "start", "end", "text", "score"}` a span; the score is the mean over its words.
    """
    answers: list[dict[str, Any]] = []
    for kind, first, after in bio_spans(tags):
        start, end = words[first][0], words[after - 1][1]
        score = float(np.mean(scores[first:after]))
        answers.append({"label": kind, "start": start, "end": end, "text": text[start:end], "score": score})
    return answers
