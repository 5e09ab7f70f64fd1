"""First weights of a student: cut out of the teacher, projected to a narrower width, or random. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgekd.errors import UsageError
from edgekd.settings.shape import Activation, EncoderShape, Slice

if TYPE_CHECKING:
    from edgekd.models.importance import Importance

Weights = dict[str, np.ndarray]

# Weights whose last axis, or whose first, is the residual stream (an embedding's row is a vector of it).
_STREAM_LAST = (
    "word.weight",
    "position.weight",
    "token_type.weight",
    "query.weight",
    "key.weight",
    "value.weight",
    "up.weight",
)
_STREAM_FIRST = (
    "norm.bias",
    "projection.weight",
    "projection.bias",
    "attention.output.weight",
    "attention.output.bias",
    "down.weight",
    "down.bias",
)


def slice_weights(
    shape: EncoderShape,
    weights: Mapping[str, np.ndarray],
    importance: Importance,
    choice: Slice,
    *,
    ranked: bool = False,
) -> tuple[EncoderShape, Weights]:
    """Keep some layers of a model, and in each its most important heads and neurons.

    Args:
        weights: Its weights, by the names of `shape.weight_shapes()`.
        choice: What to keep.
        ranked: Order heads and neurons by importance, the most important first, so that every smaller slice of what
            is returned is a prefix of it; else they keep their old order.

    Returns:
        The slice's shape and weights (copies).

    Raises:
        UsageError: The choice asks for more than the teacher has.
    """
    _check(shape, choice)
    sliced = {name: array.copy() for name, array in weights.items() if not name.startswith("layers.")}
    chosen = ranked_places if ranked else _best
    for new, (old, heads, ffn) in enumerate(zip(choice.layers, choice.heads, choice.ffn, strict=True)):
        kept_heads = chosen(importance.heads[old], heads)
        inner = (kept_heads[:, None] * shape.head_size + np.arange(shape.head_size)).ravel()
        neurons = chosen(importance.neurons[old], ffn)
        rows = {"attention.query": inner, "attention.key": inner, "attention.value": inner, "ffn.up": neurons}
        columns = {"attention.output.weight": inner, "ffn.down.weight": neurons}
        prefix = f"layers.{old}."
        for name in (name for name in weights if name.startswith(prefix)):
            part, array = name.removeprefix(prefix), weights[name]
            if (module := part.rpartition(".")[0]) in rows:
                array = array[rows[module]]
            if part in columns:
                array = array[:, columns[part]]
            sliced[f"layers.{new}.{part}"] = array.copy()
    return shape.model_copy(update={"heads": choice.heads, "ffn": choice.ffn}), sliced


def slice_again(
    shape: EncoderShape, weights: Mapping[str, np.ndarray], importance: Importance, old: Slice, new: Slice
) -> tuple[EncoderShape, Weights] | None:
    """Cut a smaller slice out of a model that is itself a slice, and may have been trained since.

    Args:
        importance: Scores of the teacher that both slices are of.
        old: What the model kept of the teacher.
        new: What is to be kept.

    Returns:
        Shape and weights, as `slice_weights` cuts `new` out of the teacher; None where `new` is not inside `old`.
    """
    sizes = dict(zip(old.layers, zip(old.heads, old.ffn, strict=True), strict=True))
    for layer, heads, ffn in zip(new.layers, new.heads, new.ffn, strict=True):
        if layer not in sizes or heads > sizes[layer][0] or ffn > sizes[layer][1]:
            return None
    kept = replace(
        importance,
        heads=[importance.heads[layer][_best(importance.heads[layer], n)] for layer, (n, _) in sizes.items()],
        neurons=[importance.neurons[layer][_best(importance.neurons[layer], n)] for layer, (_, n) in sizes.items()],
        layers=importance.layers[list(old.layers)],
    )
    inside = new.model_copy(update={"layers": tuple(old.layers.index(layer) for layer in new.layers)})
    return slice_weights(shape, weights, kept, inside)


def _check(shape: EncoderShape, choice: Slice) -> None:
    for old, heads, ffn in zip(choice.layers, choice.heads, choice.ffn, strict=True):
        if old >= shape.depth:
            raise UsageError(f"the slice keeps layer {old}, but the teacher's layers end at {shape.depth - 1}")
        if heads > shape.heads[old] or ffn > shape.ffn[old]:
            raise UsageError(
                f"the slice keeps {heads} heads and {ffn} neurons of layer {old}, "
                f"but the teacher has {shape.heads[old]} and {shape.ffn[old]} there"
            )


def ranked_places(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` highest scores, the highest first; of equals the first."""
    return np.argsort(-scores, kind="stable")[:count]


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` highest scores, ascending; of equals the first."""
    return np.sort(ranked_places(scores, count))


def random_initial(shape: EncoderShape, seed: int, part: str = "") -> Weights:
    """BERT's random initialisation: weights from N(0, 0.02), biases 0, norms the identity.

    Args:
        part: Make only the weights whose names begin so.
    """
    generator = np.random.default_rng(seed)
    weights: Weights = {}
    for name, size in shape.weight_shapes().items():
        if not name.startswith(part):
            continue
        if name.endswith(".bias"):
            weights[name] = np.zeros(size, np.float32)
        elif name.endswith("norm.weight"):
            weights[name] = np.ones(size, np.float32)
        else:
            weights[name] = 0.02 * generator.standard_normal(size, dtype=np.float32)
    return weights


def scaled_output(weights: Mapping[str, np.ndarray], values: np.ndarray) -> Weights:
    """A new head whose answers have the mean and are of the spread of `values`: no learning rate knows their scale."""
    return dict(weights) | {
        "head.output.weight": (weights["head.output.weight"] * values.std()).astype(np.float32),
        "head.output.bias": (weights["head.output.bias"] + values.mean()).astype(np.float32),
    }


def project_width(
    shape: EncoderShape, weights: Mapping[str, np.ndarray], hidden_states: np.ndarray, width: int
) -> tuple[EncoderShape, Weights, float]:
    """Narrow the residual stream to the directions in which the teacher's hidden states live.

    With an orthonormal basis P (hidden, width), every weight that writes the stream is multiplied by P^T and
    every one that reads it by P; heads and FFN neurons stay (the inner width is heads * head_size whatever
    the stream's). At width = hidden this is the identity. Below, three things differ from a plain PCA, all
    because LayerNorm does not commute with a rotation:

    - The PCA is uncentred over tokens: LayerNorm scales by the energy about zero, and the stream's constant
      part must be carried too. But each token's mean over features is removed, as LayerNorm removes it; that
      mean's direction is part of the basis and is turned onto (1, ..., 1), so both norms remove the same.
    - Gains act feature by feature, so inside its subspace the basis is turned as near to feature axes as can
      be. Of the three this matters most: without it the error of the gains grows from layer to layer.
    - The narrow norm divides by the spread of what is kept; the gains make that good.

    Args:
        hidden_states: (n, hidden): tokens drawn over texts and over all layers, the embeddings' output too;
            n should be several times `hidden`.
        width: The new width, 2 to `hidden`.

    Returns:
        Shape and weights of the narrow model, and its explained variance: the share of the hidden states'
        energy (mean over features removed) that the basis holds, 0 to 1.

    Raises:
        UsageError: The width is not between 2 and the teacher's.
    """
    d = shape.hidden
    if not 2 <= width <= d:
        raise UsageError(f"width {width} is impossible: a student of this teacher is 2 to {d} wide")
    basis, explained = _stream_basis(hidden_states.astype(np.float64), width)
    narrow_embedding = shape.embedding == d
    narrow: Weights = {}
    for name, array in weights.items():
        if name.startswith("head."):
            continue
        if name.startswith("embeddings.") and not narrow_embedding and ".projection." not in name:
            narrow[name] = array.copy()
        elif name.endswith("norm.weight"):
            narrow[name] = np.sqrt(explained * d / width) * (basis.T**2 @ array)
        elif name.endswith(_STREAM_LAST):
            narrow[name] = array @ basis
        elif name.endswith(_STREAM_FIRST):
            narrow[name] = basis.T @ array
        else:
            narrow[name] = array.copy()
    if shape.head is not None:
        narrow |= _narrow_head(shape, weights, hidden_states, basis)
    changed = {"hidden": width} | ({"embedding": width} if narrow_embedding else {})
    return shape.model_copy(update=changed), {k: a.astype(np.float32) for k, a in narrow.items()}, explained


def _stream_basis(states: np.ndarray, width: int) -> tuple[np.ndarray, float]:
    """Orthonormal (d, width), and the share of the energy that it holds: see `project_width`."""
    d = states.shape[1]
    centred = states - states.mean(axis=1, keepdims=True)
    mean = np.full(d, d**-0.5)
    covariance = centred.T @ centred
    # Lifted above all others, the mean's direction comes out as the last eigenvector, orthogonal to the rest.
    lift = 2.0 * np.trace(covariance) + 1.0
    vectors = np.linalg.eigh(covariance + lift * np.outer(mean, mean))[1][:, -width:]
    explained = float(np.sum((centred @ vectors) ** 2) / max(np.trace(covariance), np.finfo(float).tiny))
    axes = np.sort(np.argsort(-np.sum(vectors**2, axis=1), kind="stable")[:width])
    # The rotation nearest to those axes: orthogonal Procrustes.
    left, _, right = np.linalg.svd(vectors[axes].T)
    basis = vectors @ left @ right
    return basis @ _rotation(basis.T @ mean, np.full(width, width**-0.5)).T, explained


def _rotation(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The smallest rotation that takes one unit vector to another, not opposite, one."""
    both = source + target
    identity = np.eye(len(source))
    return np.asarray(identity - np.outer(both, both) / (1.0 + source @ target) + 2.0 * np.outer(target, source))


def _gelu(x: np.ndarray) -> np.ndarray:
    """The tanh formula, for statistics: it is off by less than 1e-3, and numpy has no erf."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))))


_ACTIVATIONS: Mapping[Activation, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": _gelu,
    "gelu_tanh": _gelu,
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
}


def _narrow_head(
    shape: EncoderShape, weights: Mapping[str, np.ndarray], states: np.ndarray, basis: np.ndarray
) -> Weights:
    """The task head on the narrow stream; a dense layer keeps its most telling neurons."""
    width = basis.shape[1]
    output, bias = weights["head.output.weight"], weights["head.output.bias"]
    narrow: Weights = {}
    if "head.slots.weight" in weights:
        narrow = {"head.slots.weight": weights["head.slots.weight"] @ basis}
        narrow["head.slots.bias"] = weights["head.slots.bias"].copy()
    if shape.head is None or shape.head.activation is None:
        return narrow | {"head.output.weight": output @ basis, "head.output.bias": bias.copy()}
    dense = weights["head.dense.weight"]
    neurons = _ACTIVATIONS[shape.head.activation](states @ dense.T + weights["head.dense.bias"])
    kept = _best(np.linalg.norm(output, axis=0) * neurons.std(axis=0), width)
    dropped = np.setdiff1d(np.arange(len(dense)), kept)
    # What the dropped neurons said is told by the kept ones as well as they can (ridge regression).
    known = np.concatenate([neurons[:, kept], np.ones((len(states), 1))], axis=1)
    ridge = 1e-3 * len(states) * np.eye(width + 1)
    fit = np.linalg.solve(known.T @ known + ridge, known.T @ (neurons[:, dropped] @ output[:, dropped].T)).T
    return narrow | {
        "head.dense.weight": dense[kept] @ basis,
        "head.dense.bias": weights["head.dense.bias"][kept],
        "head.output.weight": output[:, kept] + fit[:, :-1],
        "head.output.bias": bias + fit[:, -1],
    }
