"""Losses and layer mappings by name. Imports no torch.

Layers are counted as the papers do: 1 is the first Transformer layer, L the last, and 0 the embeddings' output,
which only hidden-state losses may name.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.settings.base import Spec

Family = Literal["labels", "prediction", "hidden", "attention", "vocabulary"]


# Layer mappings


class Last(Spec):
    """The student's last layer from the teacher's last (Udagawa et al., 2023: "Single")."""

    name: Literal["last"] = "last"


class LastK(Spec):
    """Student layer i from teacher layer M - N + i: the teacher's last N layers."""

    name: Literal["last_k"] = "last_k"


class Uniform(Spec):
    """Student layer i from teacher layer floor(i M / N), evenly spaced; Distiller's "skip"."""

    name: Literal["uniform"] = "uniform"


class UniformConsecutive(Spec):
    """Student layer i from teacher layers k (i - 1) .. k i with k = ceil(M / N): every teacher layer is used."""

    name: Literal["uniform_consecutive"] = "uniform_consecutive"


class UniformLast(Spec):
    """Student layer i from both floor(i M / N) and M - N + i (Udagawa et al., 2023)."""

    name: Literal["uniform_last"] = "uniform_last"


class Emd(Spec):
    """Every pair, weighted by the optimal transport plan of the layers' own costs (BERT-EMD, Li et al., 2020)."""

    name: Literal["emd"] = "emd"


_Layer = Annotated[int, Field(ge=0)]


class Pairs(Spec):
    """Pairs as the user gives them: (teacher layer, student layer), from 1; 0 is the embeddings."""

    name: Literal["pairs"] = "pairs"
    pairs: tuple[tuple[_Layer, _Layer], ...] = Field(min_length=1)


MappingSpec = Annotated[
    Last | LastK | Uniform | UniformConsecutive | UniformLast | Emd | Pairs, Field(discriminator="name")
]


# Losses on labels and logits


class HardCE(Spec):
    """Cross-entropy on the gold labels alone: fine-tuning without a teacher."""

    family: ClassVar[Family] = "labels"
    name: Literal["hard"] = "hard"


class KL(Spec):
    """T^2 KL(teacher || student) of the softened outputs (Hinton et al., 2015)."""

    family: ClassVar[Family] = "prediction"
    name: Literal["kl"] = "kl"
    temperature: float = Field(default=2.0, gt=0)


class SoftCE(Spec):
    """T^2 times the cross-entropy of the student's softened outputs against the teacher's."""

    family: ClassVar[Family] = "prediction"
    name: Literal["soft_ce"] = "soft_ce"
    temperature: float = Field(default=2.0, gt=0)


class LogitMSE(Spec):
    """Mean squared error of the logits."""

    family: ClassVar[Family] = "prediction"
    name: Literal["mse"] = "mse"


class Dist(Spec):
    """Correlation of the softened outputs within rows and within classes (DIST, Huang et al., 2022)."""

    family: ClassVar[Family] = "prediction"
    name: Literal["dist"] = "dist"
    temperature: float = Field(default=1.0, gt=0)
    between: float = Field(default=1.0, ge=0)
    within: float = Field(default=1.0, ge=0)


class MlmLogits(Spec):
    """T^2 KL of what teacher and student say of hidden words (Udagawa et al., 2023: "OD"), for raw text alone.

    The student's states, projected to the teacher's width, are read by the teacher's own head, which stays as it is.

    Attributes:
        temperature: T.
        ratio: Share of a text's tokens that are hidden.
    """

    family: ClassVar[Family] = "vocabulary"
    name: Literal["mlm_logits"] = "mlm_logits"
    temperature: float = Field(default=2.0, gt=0)
    ratio: float = Field(default=0.15, gt=0, lt=1)


# Losses on hidden states


class HiddenMSE(Spec):
    """Mean squared error of (projected) hidden states over tokens and dimensions."""

    family: ClassVar[Family] = "hidden"
    name: Literal["hidden_mse"] = "hidden_mse"
    mapping: MappingSpec = UniformLast()


class HiddenCosine(Spec):
    """1 - cosine of (projected) hidden states, mean over tokens."""

    family: ClassVar[Family] = "hidden"
    name: Literal["hidden_cosine"] = "hidden_cosine"
    mapping: MappingSpec = UniformLast()


class PKD(Spec):
    """Squared distance of the normalised first token's states (Sun et al., 2019)."""

    family: ClassVar[Family] = "hidden"
    name: Literal["pkd"] = "pkd"
    mapping: MappingSpec = Uniform()


class HiddenCE(Spec):
    """Cross-entropy of the softmax over the hidden dimension, mean over tokens (Distiller)."""

    family: ClassVar[Family] = "hidden"
    name: Literal["hidden_ce"] = "hidden_ce"
    mapping: MappingSpec = Uniform()


class MutualInformation(Spec):
    """-I_alpha of pooled states (Poole et al., 2019; Distiller): 1 is InfoNCE, 0 is TUBA, and NWJ with q = e.

    Attributes:
        alpha: Interpolation between the learned q (0) and the in-batch partition function (1).
        pool: The text's state: the first token's, or the mean over its tokens.
        hidden: Neurons of the critic's two layers.
        size: Width of the critic's output, which is normalised.
        queue: Teacher vectors of earlier batches that serve as further negatives; 0 for none.
    """

    family: ClassVar[Family] = "hidden"
    name: Literal["mi"] = "mi"
    mapping: MappingSpec = Uniform()
    alpha: float = Field(default=0.9, ge=0, le=1)
    pool: Literal["first", "mean"] = "mean"
    hidden: int = Field(default=256, ge=1)
    size: int = Field(default=64, ge=1)
    queue: int = Field(default=512, ge=0)


class InfoNCE(MutualInformation):
    """`MutualInformation` at alpha 1 (van den Oord et al., 2018)."""

    name: Literal["infonce"] = "infonce"  # type: ignore[assignment]
    alpha: float = Field(default=1.0, ge=1, le=1)


# Losses on attention


class AttentionMaps(Spec):
    """Mean squared error of the attention scores before the softmax, head by head (TinyBERT, Jiao et al., 2020)."""

    family: ClassVar[Family] = "attention"
    name: Literal["attention_maps"] = "attention_maps"
    mapping: MappingSpec = Uniform()


class MiniLM(Spec):
    """KL of the last layers' attention distributions and value relations (Wang et al., 2020)."""

    family: ClassVar[Family] = "attention"
    name: Literal["minilm"] = "minilm"
    teacher_layer: int | None = Field(default=None, ge=1)


class MiniLMv2(Spec):
    """KL of the Q-Q, K-K and V-V relations of one layer (Wang et al., 2021).

    Attributes:
        relation_heads: Heads that the joined queries, keys and values are split into anew; must divide both widths.
            None takes the most that divides both and leaves at least 8 dimensions a head.
        teacher_layer: None takes the last but one of up to 12 layers, else 85% of the depth.
        chunk: Relation heads computed at once: memory stays flat.
    """

    family: ClassVar[Family] = "attention"
    name: Literal["minilmv2"] = "minilmv2"
    relation_heads: int | None = Field(default=None, ge=1)
    teacher_layer: int | None = Field(default=None, ge=1)
    chunk: int = Field(default=8, ge=1)


LossSpec = Annotated[
    HardCE | KL | SoftCE | LogitMSE | Dist | HiddenMSE | HiddenCosine | PKD | HiddenCE | MutualInformation | InfoNCE
    | AttentionMaps | MiniLM | MiniLMv2,
    Field(discriminator="name"),
]  # fmt: skip

AgnosticLossSpec = Annotated[
    HardCE | KL | SoftCE | LogitMSE | Dist | HiddenMSE | HiddenCosine | PKD | HiddenCE | MutualInformation | InfoNCE
    | AttentionMaps | MiniLM | MiniLMv2 | MlmLogits,
    Field(discriminator="name"),
]  # fmt: skip
"""What may be asked of an encoder without a head; those that need one are refused by name."""
