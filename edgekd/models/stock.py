"""A student with equal layers as a stock BERT, which every tool loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel

from edgekd.models.families import FAMILIES
from edgekd.models.quiet import quiet_transformers
from edgekd.settings.shape import EncoderShape

_TYPES = "embeddings.token_type_embeddings.weight"


def save_stock(folder: Path, shape: EncoderShape, weights: Mapping[str, np.ndarray], pad_token_id: int) -> None:
    """Write config.json and model.safetensors of a `BertModel` that computes the same.

    Args:
        folder: Where to.
        shape: All layers alike, the heads together as wide as the stream, the embeddings too.
        weights: By the names of `shape.weight_shapes()`; those of a task head are left out.
        pad_token_id: Id of the padding token.

    Raises:
        ValueError: No stock BERT has this shape.
    """
    model = stock_bert(shape, weights, pad_token_id)
    with quiet_transformers():
        model.save_pretrained(folder)


def stock_bert(shape: EncoderShape, weights: Mapping[str, np.ndarray], pad_token_id: int = 0) -> BertModel:
    """The same as `save_stock` in memory, in eval mode.

    BERT's pooler, which a student has not, is the identity before its tanh, so that every load gives the same.
    """
    alike = len(set(shape.heads)) == len(set(shape.ffn)) == 1
    if not alike or shape.heads[0] * shape.head_size != shape.hidden or shape.embedding != shape.hidden:
        raise ValueError(f"no stock BERT has the shape {shape.describe()}")
    config = BertConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads[0],
        intermediate_size=shape.ffn[0],
        hidden_act={"gelu_tanh": "gelu_pytorch_tanh"}.get(shape.activation, shape.activation),
        max_position_embeddings=shape.positions,
        type_vocab_size=max(1, shape.token_types),
        layer_norm_eps=shape.norm_eps,
        pad_token_id=pad_token_id,
    )
    theirs = {_stock_name(name): array for name, array in weights.items() if not name.startswith("head.")}
    # A student without token types: BERT always adds the first one, so it is nothing.
    theirs.setdefault(_TYPES, np.zeros((1, shape.hidden), np.float32))
    theirs["pooler.dense.weight"] = np.eye(shape.hidden, dtype=np.float32)
    theirs["pooler.dense.bias"] = np.zeros(shape.hidden, np.float32)
    with quiet_transformers():
        model = BertModel(config)
    model.load_state_dict({name: torch.tensor(np.ascontiguousarray(array)) for name, array in theirs.items()})
    model.eval()
    return model


def _stock_name(name: str) -> str:
    family = FAMILIES["bert"]
    part, _, leaf = name.rpartition(".")
    if part in family.embeddings:
        return f"{family.embeddings[part]}.{leaf}"
    _, layer, inside = part.split(".", 2)
    return f"{family.layers}.{layer}.{family.layer[inside]}.{leaf}"
