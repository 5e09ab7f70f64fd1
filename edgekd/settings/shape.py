"""The shape of a student encoder: what decides its graph, its weights' names and its cost. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from edgekd.settings.base import Spec

Activation = Literal["gelu", "gelu_tanh", "relu", "tanh"]
Pool = Literal["first", "mean"]


class HeadShape(Spec):
    """The task head on the encoder's last hidden states.

    `sequence`: pooled -> (dense -> activation ->) output, logits (batch, labels); `pool` is the first token's state, or
    the mean over the tokens, as sentence encoders are made for.
    `token`: every token -> (dense -> activation ->) output, logits (batch, length, labels).
    `joint`: as `sequence`, and beside it every token -> slots, (batch, length, slots).
    With `activation` None the dense layer is absent.
    """

    kind: Literal["sequence", "token", "joint"]
    labels: int
    activation: Activation | None = None
    slots: int = 0
    pool: Pool = "first"

    @model_validator(mode="after")
    def _pooled_texts(self) -> HeadShape:
        if self.pool == "mean" and self.kind != "sequence":
            raise ValueError(f"pool: a {self.kind} head does not pool the tokens' mean")
        return self

    @property
    def columns(self) -> int:
        """Labels of all its outputs."""
        return self.labels + self.slots

    @model_serializer(mode="wrap")
    def _without_usual(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Shapes of other heads read as they did before there was a choice: trained students are kept by them.
        content: dict[str, Any] = default(self)
        if not self.slots:
            del content["slots"]
        if self.pool == "first":
            del content["pool"]
        return content


class EncoderShape(Spec):
    """A post-LN, BERT-shaped encoder whose layers each have their own number of heads and FFN neurons.

    Attributes:
        vocabulary: Rows of the word embedding.
        positions: Rows of the position embedding; position i of a text uses row i (a family's offset is cut off).
        token_types: Rows of the token-type embedding; 0 means the model takes no `token_type_ids`.
        embedding: Width of the embeddings; a projection to `hidden` exists only where the two differ.
        hidden: Width d of the residual stream.
        head_size: Width of one attention head, the same in every layer.
        heads: Attention heads per layer; its length is the depth.
        ffn: FFN neurons per layer.
        activation: The FFN's activation.
        norm_eps: Epsilon of every LayerNorm.
        head: The task head, or None for a bare encoder (last hidden states are the output).
    """

    vocabulary: int
    positions: int
    token_types: int
    embedding: int
    hidden: int
    head_size: int
    heads: tuple[int, ...]
    ffn: tuple[int, ...]
    activation: Activation = "gelu"
    norm_eps: float = 1e-12
    head: HeadShape | None = None

    @model_validator(mode="after")
    def _consistent(self) -> EncoderShape:
        if not self.heads or len(self.heads) != len(self.ffn):
            raise ValueError(f"heads and ffn need one entry a layer, got {len(self.heads)} and {len(self.ffn)}")
        sizes = (self.vocabulary, self.positions, self.embedding, self.hidden, self.head_size)
        if min(*self.heads, *self.ffn, *sizes) < 1:
            raise ValueError("every size of an encoder shape must be at least 1")
        return self

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.heads)

    @property
    def pooled(self) -> bool:
        """Whether the head reads the first token's last hidden state alone, so that nothing needs the others'."""
        return self.head is not None and self.head.kind == "sequence" and self.head.pool == "first"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's inputs, in order."""
        return ("input_ids", "attention_mask") + (("token_type_ids",) if self.token_types else ())

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight; linear weights are (out, in), as in torch."""
        d, e = self.hidden, self.embedding
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word.weight": (self.vocabulary, e),
            "embeddings.position.weight": (self.positions, e),
        }
        if self.token_types:
            shapes["embeddings.token_type.weight"] = (self.token_types, e)
        shapes |= {"embeddings.norm.weight": (e,), "embeddings.norm.bias": (e,)}
        if e != d:
            shapes |= _linear("embeddings.projection", d, e)
        for i, (heads, ffn) in enumerate(zip(self.heads, self.ffn, strict=True)):
            inner = heads * self.head_size
            for part in ("query", "key", "value"):
                shapes |= _linear(f"layers.{i}.attention.{part}", inner, d)
            shapes |= _linear(f"layers.{i}.attention.output", d, inner)
            shapes |= {f"layers.{i}.attention.norm.weight": (d,), f"layers.{i}.attention.norm.bias": (d,)}
            shapes |= _linear(f"layers.{i}.ffn.up", ffn, d) | _linear(f"layers.{i}.ffn.down", d, ffn)
            shapes |= {f"layers.{i}.ffn.norm.weight": (d,), f"layers.{i}.ffn.norm.bias": (d,)}
        if self.head is not None:
            if self.head.activation is not None:
                shapes |= _linear("head.dense", d, d)
            shapes |= _linear("head.output", self.head.labels, d)
            if self.head.slots:
                shapes |= _linear("head.slots", self.head.slots, d)
        return shapes

    def encoder_parameters(self) -> int:
        """Parameters of the layers alone: no embeddings, no head (the papers' "scale")."""
        return sum(_size(shape) for name, shape in self.weight_shapes().items() if name.startswith("layers."))

    def parameters(self) -> int:
        """All parameters."""
        return sum(_size(shape) for shape in self.weight_shapes().values())

    def flops(self, length: int, *, whole: bool = True) -> float:
        """Operations (multiply and add count 2) of one text of `length` tokens through the layers.

        Args:
            length: Tokens.
            whole: Of the last layer too, all tokens, as where hidden states are read; False: what the head reads.
        """
        d, total = self.hidden, 0.0
        for layer, (heads, ffn) in enumerate(zip(self.heads, self.ffn, strict=True)):
            inner = heads * self.head_size
            # Keys and values are always of all tokens; queries, output and FFN of those that somebody reads.
            read = 1 if self.pooled and not whole and layer == self.depth - 1 else length
            total += 2.0 * (2 * length * d * inner + read * (2 * d * inner + 2 * d * ffn)) + 4.0 * read * length * inner
        return total

    def describe(self) -> str:
        """One short name, such as "3 layers x 384, heads 12/6/6, FFN 1536/768/512"."""
        heads = str(self.heads[0]) if len(set(self.heads)) == 1 else "/".join(map(str, self.heads))
        ffn = str(self.ffn[0]) if len(set(self.ffn)) == 1 else "/".join(map(str, self.ffn))
        layers = "layer" if self.depth == 1 else "layers"
        return f"{self.depth} {layers} x {self.hidden}, heads {heads}, FFN {ffn}"


def _linear(name: str, out: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, inner), f"{name}.bias": (out,)}


def _size(shape: tuple[int, ...]) -> int:
    total = 1
    for dimension in shape:
        total *= dimension
    return total


class Slice(Spec):
    """What is kept of a teacher.

    Attributes:
        layers: Kept layers of the teacher (from 0), ascending.
        heads: Attention heads kept in each of them.
        ffn: FFN neurons kept in each of them.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    ffn: tuple[int, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Slice:
        if not len(self.layers) == len(self.heads) == len(self.ffn) > 0:
            raise ValueError("a slice needs layers, and one number of heads and of neurons for each")
        if list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise ValueError(f"the kept layers must ascend from 0 or more, got {self.layers}")
        if min(*self.heads, *self.ffn) < 1:
            raise ValueError("every kept layer needs at least one head and one neuron")
        return self
