"""The student: a post-LN, BERT-shaped encoder whose layers each have their own heads and FFN width."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from edgekd.runtime.encodings import MASKED
from edgekd.settings.shape import Activation, EncoderShape, HeadShape

# Queries, keys and values of one layer before the scores, each (texts, tokens, heads * head size).
Relations = tuple[Tensor, Tensor, Tensor]


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": F.relu,
    "tanh": torch.tanh,
}


class StudentConfig(PreTrainedConfig):  # type: ignore[misc]
    """Configuration of a student: its `shape` as JSON, and what every classifier's config carries.

    Args:
        shape: The `EncoderShape`, or its JSON form.
        dropout: Probability used everywhere a BERT drops: embeddings, attention, both sublayers, head.
        pad_token_id: Id of the padding token; the model itself relies on the attention mask alone.
        **kwargs: As for every `PreTrainedConfig` (`id2label`, `label2id`, ...).
    """

    model_type = "edgekd-student"

    def __init__(
        self,
        shape: EncoderShape | dict[str, Any] | None = None,
        dropout: float = 0.1,
        pad_token_id: int | None = 0,
        **kwargs: Any,
    ) -> None:
        self.shape = shape.model_dump(mode="json") if isinstance(shape, EncoderShape) else shape
        self.dropout = dropout
        self.pad_token_id = pad_token_id
        super().__init__(**kwargs)

    @property
    def encoder_shape(self) -> EncoderShape:
        """The shape, checked."""
        return EncoderShape.model_validate(self.shape)


@dataclass
class StudentOutput(ModelOutput):  # type: ignore[misc]
    """What a student returns; B texts of L tokens.

    Attributes:
        logits: (B, labels) of a sequence head, (B, L, labels) of a token head, (B, L, labels + slots) of a joint one
            (see `runtime.tokenise.joined_logits`), None if no head was run.
        last_hidden_state: (B, L, hidden), of the last layer that was run; None where that computed the first token
            alone, since the head reads no other and no hidden states were asked for.
        hidden_states: The embeddings' output, then each layer's that was run, each (B, L, hidden), if asked for.
        relations: By layer (from 1), the queries, keys and values of the layers asked for, each
            (B, L, heads * head_size), so that a loss may split them anew into relation heads (MiniLMv2,
            arXiv:2012.15828); None if none was asked for.
    """

    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    relations: dict[int, Relations] | None = None


@dataclass(frozen=True)
class Mix:
    """Texts mixed in pairs: each is `share` of itself and the rest of text `partners[i]`.

    Attributes:
        partners: A permutation of the batch, (B,).
        share: Scalar in [0, 1].
    """

    partners: Tensor
    share: Tensor

    def union(self, mask: Tensor) -> Tensor:
        """The mask (B, L) of the mixed texts: a token where either has one."""
        return torch.maximum(mask, mask[self.partners])


class _Embeddings(nn.Module):
    def __init__(self, shape: EncoderShape, dropout: float) -> None:
        super().__init__()
        self.word = nn.Embedding(shape.vocabulary, shape.embedding)
        self.position = nn.Embedding(shape.positions, shape.embedding)
        if shape.token_types:
            self.token_type = nn.Embedding(shape.token_types, shape.embedding)
        self.norm = nn.LayerNorm(shape.embedding, eps=shape.norm_eps)
        if shape.embedding != shape.hidden:
            self.projection = nn.Linear(shape.embedding, shape.hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, mix: Mix | None) -> Tensor:
        words: Tensor = self.word(input_ids)
        if mix is not None:
            words = mix.share * words + (1 - mix.share) * words[mix.partners]
        x: Tensor = words + self.position(torch.arange(input_ids.shape[1], device=input_ids.device))
        if hasattr(self, "token_type"):
            # Texts that are not pairs may come without types: all of them are of the first.
            x = x + self.token_type(torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids)
        x = self.dropout(self.norm(x))
        if hasattr(self, "projection"):
            x = self.projection(x)
        return x


class _Attention(nn.Module):
    def __init__(self, shape: EncoderShape, heads: int, dropout: float) -> None:
        super().__init__()
        inner = heads * shape.head_size
        self.heads = heads
        self.query = nn.Linear(shape.hidden, inner)
        self.key = nn.Linear(shape.hidden, inner)
        self.value = nn.Linear(shape.hidden, inner)
        self.output = nn.Linear(inner, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None, head_mask: Tensor | None, first_token: bool
    ) -> tuple[Tensor, Relations]:
        keys_values = self.key(x), self.value(x)
        if first_token:
            x = x[:, :1]
        relations = (self.query(x), *keys_values)
        query, key, value = (r.unflatten(-1, (self.heads, -1)).transpose(1, 2) for r in relations)
        dropout = self.dropout.p if self.training else 0.0
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        if head_mask is not None:
            context = context * head_mask.view(-1, self.heads, 1, 1)
        context = self.output(context.transpose(1, 2).flatten(2))
        return self.norm(x + self.dropout(context)), relations


class _Ffn(nn.Module):
    def __init__(self, shape: EncoderShape, neurons: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(shape.hidden, neurons)
        self.down = nn.Linear(neurons, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.activation = _ACTIVATIONS[shape.activation]

    def forward(self, x: Tensor, neuron_mask: Tensor | None) -> Tensor:
        neurons = self.activation(self.up(x))
        if neuron_mask is not None:
            neurons = neurons * neuron_mask.view(-1, 1, neurons.shape[-1])
        return self.norm(x + self.dropout(self.down(neurons)))  # type: ignore[no-any-return]


class _Layer(nn.Module):
    def __init__(self, shape: EncoderShape, heads: int, neurons: int, dropout: float) -> None:
        super().__init__()
        self.attention = _Attention(shape, heads, dropout)
        self.ffn = _Ffn(shape, neurons, dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        head_mask: Tensor | None,
        neuron_mask: Tensor | None,
        first_token: bool = False,
    ) -> tuple[Tensor, Relations]:
        x, relations = self.attention(x, mask, head_mask, first_token)
        return self.ffn(x, neuron_mask), relations


class _Head(nn.Module):
    def __init__(self, head: HeadShape, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first_token = head.kind != "token" and head.pool == "first"
        self.mean = head.pool == "mean"
        self.activation = None if head.activation is None else _ACTIVATIONS[head.activation]
        if self.activation is not None:
            self.dense = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, head.labels)
        self.is_value = head.kind == "sequence" and head.labels == 1
        if head.slots:
            self.slots = nn.Linear(hidden, head.slots)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        x = states[:, 0] if self.first_token else states
        if self.mean:
            x = _mean(states, mask)
        if self.activation is not None:
            x = self.activation(self.dense(x))
        x = self.dropout(x)
        if self.is_value:
            # A value far from 0 would lose its last digits in BF16.
            with torch.autocast(x.device.type, enabled=False):
                return self.output(x.float())  # type: ignore[no-any-return]
        logits: Tensor = self.output(x)
        if not hasattr(self, "slots"):
            return logits
        slots = self.slots(self.dropout(states[:, 1:]))
        whole = F.pad(logits, (0, slots.shape[-1]), value=MASKED)
        return torch.cat([whole[:, None], F.pad(slots, (logits.shape[-1], 0), value=MASKED)], dim=1)


def _mean(states: Tensor, mask: Tensor | None) -> Tensor:
    """(B, L, hidden) to (B, hidden): the mean over a text's tokens."""
    if mask is None:
        return states.mean(1)
    token = mask.bool().unsqueeze(-1)
    return states.masked_fill(~token, 0.0).sum(1) / token.sum(1)


class StudentModel(PreTrainedModel):  # type: ignore[misc]
    """The student encoder; its state_dict holds exactly `EncoderShape.weight_shapes()`."""

    config_class = StudentConfig
    main_input_name = "input_ids"

    def __init__(self, config: StudentConfig) -> None:
        super().__init__(config)
        shape, dropout = config.encoder_shape, config.dropout
        self.embeddings = _Embeddings(shape, dropout)
        self.layers = nn.ModuleList(
            _Layer(shape, heads, ffn, dropout) for heads, ffn in zip(shape.heads, shape.ffn, strict=True)
        )
        self.pooled = shape.pooled
        self.head = None if shape.head is None else _Head(shape.head, shape.hidden, dropout)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The word embedding."""
        return self.embeddings.word

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word embedding."""
        self.embeddings.word = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        output_hidden_states: bool = False,
        output_relations: Collection[int] = (),
        last_layer: int | None = None,
        head_masks: Sequence[Tensor] | None = None,
        neuron_masks: Sequence[Tensor] | None = None,
        skip_layer: int | None = None,
        mix: Mix | None = None,
    ) -> StudentOutput:
        """Run the encoder and its head on B texts of L tokens.

        The last layer computes what is needed of it: under a head that reads the first token alone, that token, unless
        hidden states or the layer's relations are asked for.

        Args:
            input_ids: (B, L), at most `positions` long.
            attention_mask: (B, L), nonzero where there is a token; None: everywhere.
            token_type_ids: (B, L); ignored by a shape without token types, zeros where absent.
            output_hidden_states: Return every layer's output.
            output_relations: Layers (from 1) whose queries, keys and values are returned.
            last_layer: Run the layers 1 .. last_layer and no head, as a teacher needs that is read no higher;
                None: all of them, and the head.
            head_masks: Per layer, factors on the heads' outputs: (heads,), or (B, heads) for one a text.
            neuron_masks: Per layer, factors on the FFN neurons: (ffn,), or (B, ffn) for one a text.
            skip_layer: Layer (from 0) that is left out, as if it were the identity.
            mix: Mix the texts' word embeddings; the mask is the union of both texts', the token types are each
                text's own.
        """
        if mix is not None and attention_mask is not None:
            attention_mask = mix.union(attention_mask)
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        x = self.embeddings(input_ids, token_type_ids, mix)
        states, asked, top = [x], {}, len(self.layers) - 1
        whole = not self.pooled or last_layer is not None or output_hidden_states or top + 1 in output_relations
        for i, layer in enumerate(islice(self.layers, last_layer)):
            if i != skip_layer:
                head_mask = None if head_masks is None else head_masks[i]
                neuron_mask = None if neuron_masks is None else neuron_masks[i]
                x, relations = layer(x, mask, head_mask, neuron_mask, first_token=i == top and not whole)
                if i + 1 in output_relations:
                    asked[i + 1] = relations
            states.append(x)
        return StudentOutput(
            logits=None if self.head is None or last_layer is not None else self.head(x, attention_mask),
            last_hidden_state=x if whole else None,
            hidden_states=tuple(states) if output_hidden_states else None,
            relations=asked or None,
        )


def from_weights(
    shape: EncoderShape,
    weights: Mapping[str, np.ndarray],
    labels: Sequence[str],
    dropout: float = 0.1,
    *,
    pad_token_id: int | None = 0,
) -> StudentModel:
    """Build a student from weights by name; the arrays are copied, no random number is drawn.

    Args:
        weights: One float array for each of `shape.weight_shapes()`.
        labels: Names of the classes in order; empty for a bare encoder.
        dropout: Dropout probability in training.
        pad_token_id: Id of the padding token, for the config.

    Returns:
        The model, float32, in eval mode.

    Raises:
        ValueError: The number of labels is not the head's.
        RuntimeError: A weight is missing, superfluous or of another shape.
    """
    if len(labels) != (shape.head.columns if shape.head else 0):
        raise ValueError(f"{len(labels)} label names for a head of shape {shape.head}")
    names: dict[str, Any] = {}
    if labels:
        names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    config = StudentConfig(shape, dropout=dropout, pad_token_id=pad_token_id, **names)
    with torch.device("meta"):
        model = StudentModel(config)
    # Contiguous: a sliced array keeps its strides through torch.tensor, and the optimiser's moments copy them.
    tensors = {name: torch.tensor(np.ascontiguousarray(array), dtype=torch.float32) for name, array in weights.items()}
    model.load_state_dict(tensors, strict=True, assign=True)
    model.eval()
    return model


def numpy_weights(model: StudentModel) -> dict[str, np.ndarray]:
    """Copy a student's weights into float32 arrays, named as in `EncoderShape.weight_shapes()`."""
    return {name: t.detach().float().cpu().numpy().copy() for name, t in model.state_dict().items()}
