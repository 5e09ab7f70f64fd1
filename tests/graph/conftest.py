"""Small shapes, and batches with padding."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekd.graph.writer import write_student
from edgekd.settings.shape import EncoderShape, HeadShape

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
# Its products by weights where a head reads every token, in the order in which they run.
EVERY_TOKEN = [
    f"layers.{i}.{part}" for i in range(3) for part in ("attention.qkv", "attention.output", "ffn.up", "ffn.down")
]
# And where it reads the first alone: in the last layer only that one asks.
LINEAR = [*EVERY_TOKEN[:8], "layers.2.attention.kv", "layers.2.attention.query", *EVERY_TOKEN[9:]]


def make_shape(**changes):
    return EncoderShape(**(SMALL | changes))


def make_weights(shape, seed=0):
    """Weights that keep every layer's values near 1, so that no activation saturates; norms and biases count."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, size in shape.weight_shapes().items():
        spread = 0.3 if len(size) == 1 else 1 if name.startswith("embeddings.") else size[1] ** -0.5
        weights[name] = (rng.normal(0, spread, size) + name.endswith("norm.weight")).astype(np.float32)
    return weights


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
