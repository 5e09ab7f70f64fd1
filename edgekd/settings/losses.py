"""Losses and layer mappings by name. Imports no torch.

Layers are counted as the papers do: 1 is the first Transformer layer, L the last, and 0 the embeddings' output,
which only hidden-state losses may name.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from edgekd.settings.base import Spec

Family = Literal["labels", "prediction", "hidden", "attention", "vocabulary"]


_Layer = Annotated[int, Field(ge=0)]


class LayerMapping(Spec):
    """Which of the teacher's M layers teach student layer i of N.

    Attributes:
        name: "last": the student's last from the teacher's last (Udagawa et al., 2023: "Single"). "last_k":
            M - N + i, the teacher's last N. "uniform": floor(i M / N), evenly spaced; Distiller's "skip".
            "uniform_consecutive": k (i - 1) .. k i with k = ceil(M / N), so that all are used. "uniform_last": both
            floor(i M / N) and M - N + i (Udagawa et al.). "emd": every pair, weighted by the optimal transport plan of
            the layers' own costs (BERT-EMD, Li et al., 2020). "pairs": those given.
        pairs: (teacher layer, student layer), from 1; 0 is the embeddings. Of "pairs" alone.
    """

    name: Literal["last", "last_k", "uniform", "uniform_consecutive", "uniform_last", "emd", "pairs"]
    pairs: tuple[tuple[_Layer, _Layer], ...] = ()

    @model_validator(mode="after")
    def _given(self) -> LayerMapping:
        if (self.name == "pairs") != bool(self.pairs):
            raise ValueError(
                "pairs: name pairs needs [[teacher layer, student layer], ...], and no other name has them"
            )
        return self


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


def _usual_mapping(content: dict[str, Any]) -> LayerMapping:
    return LayerMapping(name="uniform_last" if content.get("name") in ("hidden_mse", "hidden_cosine") else "uniform")


class HiddenStates(Spec):
    """(Projected) hidden states of a pair of layers, compared.

    Attributes:
        name: "hidden_mse": mean squared error over tokens and dimensions. "hidden_cosine": 1 - cosine, mean over
            tokens. "pkd": squared distance of the normalised first token's states (Sun et al., 2019). "hidden_ce":
            cross-entropy of the softmax over the hidden dimension, mean over tokens (Distiller).
        mapping: Left out: uniform_last for the first two, uniform for the others.
    """

    family: ClassVar[Family] = "hidden"
    name: Literal["hidden_mse", "hidden_cosine", "pkd", "hidden_ce"]
    mapping: LayerMapping = Field(default_factory=_usual_mapping)


def _usual_queue(content: dict[str, Any]) -> int:
    return 0 if content.get("critic") == "transformer" else 512


class Information(Spec):
    """Minus a bound on the mutual information of teacher and student states, with a learned critic.

    Attributes:
        pool: The text's state: the first token's, or the mean over its tokens.
        critic: "mlp" reads the text's state; "transformer" all its tokens, in two layers of eight heads (Distiller,
            He et al., 2021), and its own output's mean or first is the state.
        hidden: Width of the critic's two layers.
        size: Width of the critic's output, which is normalised.
        queue: Teacher vectors of earlier batches that serve as further negatives; 0 for none, as a Transformer critic
            needs it, whose tokens are not kept.
    """

    family: ClassVar[Family] = "hidden"
    name: str
    mapping: LayerMapping = LayerMapping(name="uniform")
    pool: Literal["first", "mean"] = "mean"
    critic: Literal["mlp", "transformer"] = "mlp"
    hidden: int = Field(default=256, ge=1)
    size: int = Field(default=64, ge=1)
    queue: int = Field(default_factory=_usual_queue, ge=0)

    @model_validator(mode="after")
    def _fitting_critic(self) -> Information:
        if self.critic == "transformer" and self.queue:
            raise ValueError("queue: a transformer critic reads tokens, which no queue keeps: leave queue out")
        if self.critic == "transformer" and self.hidden % 8:
            raise ValueError(f"hidden: a transformer critic has eight heads, which do not divide {self.hidden}")
        return self


class MutualInformation(Information):
    """-I_alpha (Poole et al., 2019; Distiller): 1 is InfoNCE, 0 is TUBA, and NWJ with q = e.

    Attributes:
        alpha: Interpolation between the learned q (0) and the in-batch partition function (1).
    """

    name: Literal["mi"] = "mi"
    alpha: float = Field(default=0.9, ge=0, le=1)


class InfoNCE(Information):
    """`MutualInformation` at alpha 1 (van den Oord et al., 2018)."""

    name: Literal["infonce"] = "infonce"


class NWJ(Information):
    """The bound of Nguyen, Wainwright and Jordan (2010): no ceiling, the largest variance."""

    name: Literal["nwj"] = "nwj"


class JensenShannon(Information):
    """The bound on the Jensen-Shannon divergence of joint and product (Hjelm et al., 2019): little variance."""

    name: Literal["js"] = "js"


# Losses on attention


class AttentionMaps(Spec):
    """Mean squared error of the attention scores before the softmax, head by head (TinyBERT, Jiao et al., 2020)."""

    family: ClassVar[Family] = "attention"
    name: Literal["attention_maps"] = "attention_maps"
    mapping: LayerMapping = LayerMapping(name="uniform")


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


_Loss = (
    HardCE | KL | SoftCE | LogitMSE | Dist
    | HiddenStates | MutualInformation | InfoNCE | NWJ | JensenShannon
    | AttentionMaps | MiniLM | MiniLMv2
)  # fmt: skip
LossSpec = Annotated[_Loss, Field(discriminator="name")]

AgnosticLossSpec = Annotated[_Loss | MlmLogits, Field(discriminator="name")]
"""What may be asked of an encoder without a head; those that need one are refused by name."""
