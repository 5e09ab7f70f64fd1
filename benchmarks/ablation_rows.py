"""What `ablation.py` compares: settings, students, rows and editions. Declarations only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekd.settings.distill import Mixup, Stage, Training
from edgekd.settings.losses import (
    KL,
    AttentionMaps,
    HardCE,
    HiddenStates,
    InfoNCE,
    LayerMapping,
    LogitMSE,
    LossSpec,
    MiniLM,
    MiniLMv2,
    MutualInformation,
)
from edgekd.settings.shape import Slice

First = Literal["slice", "narrow", "random"]


@dataclass(frozen=True)
class Setting:
    """One table: a data set, and how much of it is labelled.

    Attributes:
        folder: The data set's folder.
        labels: Labelled texts a class, drawn by the seed; the rest of train is unlabelled. None: all of train.
        teacher_epochs: Of the teacher, on the labelled texts alone.
        epochs: The grid that the baseline's epochs are tuned over, on validation.
    """

    folder: str
    labels: int | None
    teacher_epochs: float
    epochs: tuple[float, ...]


SETTINGS = {
    "clinc150": Setting("clinc150", 10, 12, (4, 12)),
    "mr": Setting("mr", 10, 60, (20, 100)),
    "snips": Setting("snips", 10, 40, (20, 100)),
    "clinc150-full": Setting("clinc150", None, 5, (3, 6)),
    "mr-full": Setting("mr", None, 3, (3, 6)),
    "snips-full": Setting("snips", None, 3, (3, 6)),
}

# The baseline's learning rates, tuned together with its epochs; every other row has the recipe's own.
RATES = (1e-4, 5e-4)


@dataclass(frozen=True)
class Student:
    """A fixed shape, cut from the six layers x 384 (12 heads, FFN 1536) of a MiniLM-L6 teacher.

    Latency is not measured here: the name is the share of the teacher's FLOPs in its layers.

    Attributes:
        kept: What is kept of the teacher, at its full width.
        wide: What is kept where the width is projected to `width` instead, for the same share.
        width: That width.
    """

    kept: Slice
    wide: Slice
    width: int = 192


STUDENTS = {
    "1/4": Student(
        Slice(layers=(1, 3, 5), heads=(12, 12, 12), ffn=(384, 384, 384)),
        Slice(layers=(1, 3, 5), heads=(12, 12, 12), ffn=(1536, 1536, 1536)),
    ),
    "1/10": Student(
        Slice(layers=(2, 5), heads=(6, 6), ffn=(320, 320)),
        Slice(layers=(2, 5), heads=(6, 6), ffn=(1024, 1024)),
    ),
}


_KL = KL()


@dataclass(frozen=True)
class Row:
    """One recipe.

    Attributes:
        name: As the table calls it.
        loss: Of the last stage.
        before: Loss of a first stage, which gets half of the steps; None for a recipe of one stage.
        data: Texts that it learns from.
        mixup: Mix texts in the last stage.
        first: First weights: cut out of the teacher, cut out and projected to a narrower width, or random. Random
            ones train the word embedding too, which all others keep as the teacher's.
        tuned: Epochs and learning rate are tuned on validation, in place of the steps that all others have.
    """

    name: str
    loss: LossSpec = _KL
    before: LossSpec | None = None
    data: Literal["transfer", "labelled"] = "transfer"
    mixup: bool = False
    first: First = "slice"
    tuned: bool = False

    def stages(self, steps: int, looks: int, inner_looks: int) -> tuple[Stage, ...]:
        """The stages for a run of `steps` in all; every look at validation is made, none ends the run early."""
        first = 0 if self.before is None else steps // 2
        last = self._stage(self.loss, self.data, steps - first, looks, Mixup() if self.mixup else None)
        if self.before is None:
            return (last,)
        return self._stage(self.before, "transfer", first, inner_looks, None), last

    def _stage(
        self, loss: LossSpec, data: Literal["transfer", "labelled"], steps: int, looks: int, mixup: Mixup | None
    ) -> Stage:
        stage = Stage(loss=loss, data=data, mixup=mixup, max_steps=steps)
        # An epoch has a step at least: so many epochs always reach `max_steps`.
        changes = {"epochs": float(steps), "evaluations": looks, "patience": 2 * looks + 1}
        if self.first == "random":
            changes["freeze_words"] = False
        return stage.model_copy(update={"training": stage.training.model_copy(update=changes)})

    def grid(self, epochs: tuple[float, ...], looks: int) -> list[tuple[Stage, ...]]:
        """The runs that a tuned row chooses from."""
        base: Training = Stage().training
        found = []
        for count in epochs:
            for rate in RATES:
                changes = {"epochs": count, "learning_rate": rate, "evaluations": looks, "patience": 2 * looks + 1}
                training = base.model_copy(update=changes)
                found.append((Stage(loss=self.loss, data=self.data, training=training),))
        return found


BASELINE = Row("fine-tune, tuned", HardCE(), data="labelled", tuned=True)
DEFAULT = Row("kl, all texts (the default)")
_LABELLED = Row("kl, labelled texts", data="labelled")
MAIN = (BASELINE, Row("fine-tune, equal steps", HardCE(), data="labelled"), _LABELLED, DEFAULT)

_INNER: tuple[LossSpec, ...] = (
    *(HiddenStates(name=name) for name in ("hidden_mse", "hidden_cosine", "pkd", "hidden_ce")),
    MutualInformation(), InfoNCE(), AttentionMaps(), MiniLM(), MiniLMv2(),
)  # fmt: skip
_MAPPINGS = tuple(LayerMapping(name=name) for name in ("last", "last_k", "uniform", "uniform_consecutive", "emd"))


def _inner_name(loss: LossSpec) -> str:
    mapping = getattr(loss, "mapping", None)
    return f"{loss.name}, then kl" if mapping is None else f"{loss.name} ({mapping.name}), then kl"


ROWS: tuple[Row, ...] = (
    *MAIN,
    Row("logit mse, all texts", LogitMSE()),
    *(Row(_inner_name(loss), before=loss) for loss in _INNER),
    *(Row(_inner_name(loss), before=loss) for loss in (HiddenStates(name="hidden_mse", mapping=m) for m in _MAPPINGS)),
    Row("kl + mixup", mixup=True),
    Row("kl, width projected", first="narrow"),
    Row("kl, random weights", first="random"),
)

_CPU_EXTRA = (
    "logit mse, all texts", _inner_name(MiniLMv2()), _inner_name(HiddenStates(name="hidden_mse")),
    _inner_name(InfoNCE()), "kl + mixup", "kl, random weights",
)  # fmt: skip


@dataclass(frozen=True)
class Edition:
    """How much is run.

    Attributes:
        settings: Names of the settings.
        students: Names of the students.
        steps: Of every row but the tuned one.
        seeds: Seeds, from 0.
        unlabelled: Unlabelled texts at most, drawn by the seed; None: all.
        validation: Validation texts at most, drawn by the seed; None: all.
        looks: At validation, in a stage on logits or labels.
        inner_looks: In a stage on what is inside the models, where a look runs the teacher too.
    """

    settings: tuple[str, ...]
    students: tuple[str, ...]
    steps: int
    seeds: int
    unlabelled: int | None
    validation: int | None
    looks: int
    inner_looks: int


# 800 steps are the default recipe's four epochs over 1,500 labelled and 5,000 unlabelled texts.
EDITIONS = {
    "cpu": Edition(("clinc150", "mr", "snips"), ("1/4",), 800, 2, 5000, 1000, 6, 2),
    "full": Edition(tuple(SETTINGS), tuple(STUDENTS), 3000, 3, None, None, 10, 5),
}


def why_left_out(edition: str, setting: str, student: str, row: Row) -> str:
    """Why a row is not part of an edition; empty if it is."""
    if SETTINGS[setting].labels is None and row is _LABELLED:
        return "all texts are labelled: it is the default"
    if isinstance(row.before, MiniLM) and STUDENTS[student].kept.heads[-1] != 12:
        return "needs as many heads as the teacher"
    if edition == "cpu" and row not in MAIN and (setting != "clinc150" or row.name not in _CPU_EXTRA):
        return "not run"
    if edition == "full" and row not in MAIN and setting in ("mr-full", "snips-full"):
        return "not run"
    return ""
