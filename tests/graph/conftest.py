"""Small shapes, and batches with padding."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekd.graph.writer import random_weights, write_student
from edgekd.models.spec import EncoderShape, HeadShape

# Every layer has another number of heads, of neurons.
SMALL = {
    "vocabulary": 50,
    "positions": 24,
    "token_types": 2,
    "embedding": 24,
    "hidden": 24,
    "head_size": 8,
    "heads": (3, 1, 2),
    "ffn": (40, 16, 28),
    "head": HeadShape(kind="sequence", labels=5, activation="tanh"),
}


def make_shape(**changes):
    return EncoderShape(**(SMALL | changes))


def make_weights(shape, seed=0):
    """Random weights large enough for every part to show in the output, norms included."""
    rng = np.random.default_rng(seed)
    weights = random_weights(shape)
    return {
        k: (15 * (v % 1 if v.ndim == 1 else v) + rng.normal(0, 0.3, v.shape)).astype("f4") for k, v in weights.items()
    }


def make_batch(shape, batch, length, seed=0):
    """Random ids and types; every text but the first padded to another length."""
    rng = np.random.default_rng(seed)
    mask = np.ones((batch, length), np.int64)
    for row in range(1, batch):
        mask[row, max(1, length - 2 * row) :] = 0
    ids = rng.integers(0, shape.vocabulary, (batch, length))
    feed = {"input_ids": ids, "attention_mask": mask}
    if shape.token_types:
        feed["token_type_ids"] = rng.integers(0, shape.token_types, (batch, length))
    return feed


@pytest.fixture
def student(tmp_path):
    """Write a student to a file: `student(shape, options)` gives (path, weights)."""

    def write(shape, *options, weights=None):
        weights = weights or make_weights(shape)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        onnx.save(write_student(shape, weights, *options), path)
        return path, weights

    return write
