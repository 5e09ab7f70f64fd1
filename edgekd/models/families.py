"""Which transformers encoders the student can host, and how their weights are named: one table a family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from edgekd.errors import UsageError
from edgekd.settings.shape import Activation, EncoderShape, HeadShape

Hosted = tuple[EncoderShape, dict[str, np.ndarray]]

_BERT_EMBEDDINGS = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
}
_BERT_LAYER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention.norm": "attention.output.LayerNorm",
    "ffn.up": "intermediate.dense",
    "ffn.down": "output.dense",
    "ffn.norm": "output.LayerNorm",
}


@dataclass(frozen=True)
class Family:
    """Where a family of encoders keeps what the student needs; our names map to theirs.

    Attributes:
        head_activation: Activation after the dense layer of the sequence head.
        head_dense: That dense layer's name in the whole model.
        head_output: The sequence head's last layer in the whole model.
        embeddings: Names inside the encoder.
        layers: Prefix of the layers inside the encoder.
        layer: Names inside a layer.
        activation: The config's field for the FFN's activation.
        norm_eps: LayerNorm's epsilon where the code fixes it; None: `config.layer_norm_eps`.
        padded_positions: The first token uses the position row after `pad_token_id` (fairseq's heritage).
    """

    head_activation: Activation
    head_dense: str
    head_output: str
    embeddings: Mapping[str, str] = field(default_factory=lambda: _BERT_EMBEDDINGS)
    layers: str = "encoder.layer"
    layer: Mapping[str, str] = field(default_factory=lambda: _BERT_LAYER)
    activation: str = "hidden_act"
    norm_eps: float | None = None
    padded_positions: bool = False


_ROBERTA = Family("tanh", "classifier.dense", "classifier.out_proj", padded_positions=True)

FAMILIES: Mapping[str, Family] = {
    "bert": Family("tanh", "bert.pooler.dense", "classifier"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": Family(
        "gelu",
        "classifier.dense",
        "classifier.out_proj",
        embeddings=_BERT_EMBEDDINGS | {"embeddings.projection": "embeddings_project"},
    ),
    "distilbert": Family(
        "relu",
        "pre_classifier",
        "classifier",
        layers="transformer.layer",
        layer={
            "attention.query": "attention.q_lin",
            "attention.key": "attention.k_lin",
            "attention.value": "attention.v_lin",
            "attention.output": "attention.out_lin",
            "attention.norm": "sa_layer_norm",
            "ffn.up": "ffn.lin1",
            "ffn.down": "ffn.lin2",
            "ffn.norm": "output_layer_norm",
        },
        activation="activation",
        norm_eps=1e-12,
    ),
}

_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "tanh": "tanh",
}


def host(model: PreTrainedModel) -> Hosted | None:
    """Turn a transformers encoder into the student's shape and weights, so that both compute the same.

    `...ForSequenceClassification` and `...ForTokenClassification` keep their head; of every other model of
    the family (`AutoModel`, masked-language models) the encoder alone is hosted. Real tokens' outputs are
    equal for texts padded on the right.

    Returns:
        The shape and float32 weights (read-only, they may share the model's memory), or None where the
        student's architecture cannot express the model.

    Raises:
        UsageError: It has no layers.
    """
    config = model.config
    family = FAMILIES.get(config.model_type)
    activation = _ACTIVATIONS.get(getattr(config, family.activation)) if family else None
    if family is None or activation is None or not _is_plain(model):
        return None
    theirs = _state(model)
    weights = _renamed(model, family, theirs)
    if weights is None:
        return None
    if not any(name.startswith("layers.0.") for name in weights):
        raise UsageError(f"the model has no layers: config.json says num_hidden_layers {config.num_hidden_layers}")
    head = _head(model, family, theirs, weights)
    first = config.pad_token_id + 1 if family.padded_positions else 0
    positions = weights["embeddings.position.weight"][first:]
    if len(weights.get("embeddings.token_type.weight", ())) == 1:
        # A single token type is a constant: added to every position, the model needs no third input.
        positions = positions + weights.pop("embeddings.token_type.weight")
    weights["embeddings.position.weight"] = positions
    eps = config.layer_norm_eps if family.norm_eps is None else family.norm_eps
    shape = _shape(weights, config.num_attention_heads, activation, float(eps), head)
    if {name: array.shape for name, array in weights.items()} != shape.weight_shapes():
        return None
    for array in weights.values():
        array.flags.writeable = False
    return shape, {name: weights[name] for name in shape.weight_shapes()}


def _is_plain(model: PreTrainedModel) -> bool:
    """Whether this is transformers' own bidirectional model with absolute positions."""
    config = model.config
    return (
        type(model).__module__.startswith("transformers.")
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and not getattr(config, "is_decoder", False)
        and not getattr(config, "add_cross_attention", False)
    )


def _state(model: PreTrainedModel) -> dict[str, np.ndarray]:
    return {name: tensor.detach().float().cpu().numpy() for name, tensor in model.state_dict().items()}


def _renamed(model: PreTrainedModel, family: Family, theirs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """The encoder's weights under our names; None if one of theirs is left over: it computes more."""
    encoder = model.base_model
    prefix = "" if encoder is model else f"{model.base_model_prefix}."
    ours = {name: f"{prefix}{their}" for name, their in family.embeddings.items()}
    for i in range(model.config.num_hidden_layers):
        for name, their in family.layer.items():
            ours[f"layers.{i}.{name}"] = f"{prefix}{family.layers}.{i}.{their}"
    parts = {f"{name}.{p}": f"{their}.{p}" for name, their in ours.items() for p in ("weight", "bias")}
    left = {prefix + name for name in encoder.state_dict() if not name.startswith("pooler.")}
    if not left <= set(parts.values()):
        return None
    return {name: theirs[their] for name, their in parts.items() if their in theirs}


def _head(
    model: PreTrainedModel, family: Family, theirs: Mapping[str, np.ndarray], weights: dict[str, np.ndarray]
) -> HeadShape | None:
    """Add the task head's weights, if there is a task head."""
    architecture = type(model).__name__
    if architecture.endswith("ForSequenceClassification"):
        names = {"head.dense": family.head_dense, "head.output": family.head_output}
    elif architecture.endswith("ForTokenClassification"):
        names = {"head.output": "classifier"}
    else:
        return None
    for name, their in names.items():
        weights |= {f"{name}.{part}": theirs[f"{their}.{part}"] for part in ("weight", "bias")}
    labels = len(weights["head.output.bias"])
    if "head.dense" in names:
        return HeadShape(kind="sequence", labels=labels, activation=family.head_activation)
    return HeadShape(kind="token", labels=labels)


def _shape(
    weights: Mapping[str, np.ndarray], heads: int, activation: Activation, eps: float, head: HeadShape | None
) -> EncoderShape:
    vocabulary, embedding = weights["embeddings.word.weight"].shape
    inner, hidden = weights["layers.0.attention.query.weight"].shape
    ffn = [len(array) for name, array in weights.items() if name.endswith("ffn.up.bias")]
    settings: dict[str, Any] = {"activation": activation, "norm_eps": eps, "head": head}
    return EncoderShape(
        vocabulary=vocabulary,
        positions=len(weights["embeddings.position.weight"]),
        token_types=len(weights.get("embeddings.token_type.weight", ())),
        embedding=embedding,
        hidden=hidden,
        head_size=inner // heads,
        heads=(heads,) * len(ffn),
        ffn=tuple(ffn),
        **settings,
    )
