"""What a training step minimises: a stage's loss between teacher and student, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.distill.batches import logit_rows
from edgekd.distill.losses.attention import AttentionLoss, attention_loss
from edgekd.distill.losses.hidden import HiddenLoss, weigh
from edgekd.distill.losses.information import InformationLoss
from edgekd.distill.losses.prediction import check_prediction, distillation_loss, hard_loss
from edgekd.distill.mappings import emd_weights, layer_pairs
from edgekd.distill.on_the_fly import Augmentation
from edgekd.errors import UsageError
from edgekd.models.online import OnlineTeacher
from edgekd.models.student import Mix, StudentOutput
from edgekd.runtime.encodings import Encodings
from edgekd.settings.distill import Mixup, Stage
from edgekd.settings.losses import AttentionMaps, HardCE, HiddenStates, MiniLM, MiniLMv2, MutualInformation
from edgekd.settings.shape import EncoderShape
from edgekd.settings.task import Output

Terms = dict[str, Tensor]
"""Named parts of a loss, already weighted: the loss is their sum."""


@dataclass(frozen=True)
class Batch:
    """Some texts of a split.

    Attributes:
        encodings: The split.
        indices: Which of its texts, (B,).
        inputs: Their `input_ids` and the rest, (B, L), on the device.
    """

    encodings: Encodings
    indices: np.ndarray
    inputs: Mapping[str, Tensor]

    @property
    def mask(self) -> Tensor:
        """(B, L), nonzero at tokens."""
        return self.inputs["attention_mask"]

    def rows(self, logits: Tensor) -> Tensor:
        """FP32 logit rows (rows, labels) of these texts."""
        return logit_rows(self.encodings, self.indices, logits).float()

    def of(self, values: Tensor) -> Tensor:
        """The entries of `values`, one a logit row of the split, that belong to these texts' rows."""
        return values[torch.from_numpy(self.encodings.row_slots(self.indices)).to(values.device)]


class Objective(Protocol):
    """A loss that a model is trained by."""

    @property
    def module(self) -> nn.Module | None:
        """What is learned beside the model, and left behind with the run; None for nothing."""

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        """Run the model on a batch and return the loss in its parts."""


@dataclass(frozen=True)
class LabelObjective:
    """The loss on gold labels, as `hard_loss` takes them.

    Attributes:
        targets: Gold labels, one entry a logit row.
        output: What a logit row means.
    """

    targets: Tensor
    output: Output = "classes"
    module: nn.Module | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        """See `Objective`."""
        rows = batch.rows(model(**batch.inputs).logits)
        return {"labels": hard_loss(rows, batch.of(self.targets), self.output)}


@dataclass(frozen=True)
class LogitObjective:
    """A stage's prediction loss, with the loss on gold labels and on changed texts where it asks for them.

    Attributes:
        stage: The stage.
        rows: The teacher's logits, computed before, (rows, labels); on the device.
        targets: Gold labels, one entry a logit row, as `hard_loss` takes them.
        teacher: Answers changed texts, which nobody could answer before; None where there are none.
        output: What a logit row means.
        augment: Changes the texts at every step; None where the stage asks for no such.
    """

    stage: Stage
    rows: Tensor
    targets: Tensor
    teacher: OnlineTeacher | None = None
    output: Output = "classes"
    module: nn.Module | None = None
    augment: Augmentation | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        """See `Objective`."""
        spec = self.stage.loss
        student = batch.rows(model(**batch.inputs).logits)
        terms: Terms = {spec.name: distillation_loss(spec, batch.of(self.rows), student, self.output)}
        if self.stage.hard_weight:
            terms["labels"] = self.stage.hard_weight * hard_loss(student, batch.of(self.targets), self.output)
        for texts in _changed(self.stage, batch, self.augment):
            assert self.teacher is not None
            taught = batch.rows(_logits(self.teacher(texts.inputs, mix=texts.mix).logits))
            guessed = batch.rows(model(**texts.inputs, **_mixed(texts.mix)).logits)
            terms[texts.name] = texts.weight * distillation_loss(spec, taught, guessed, self.output)
        return terms


@dataclass(frozen=True)
class HiddenObjective:
    """A loss on the hidden states of teacher and student.

    Attributes:
        stage: The stage.
        teacher: Run beside the student, no higher than it is read.
        module: The loss, with its projections and critics.
        grid: (teacher's, student's) depth where pairs are weighted by optimal transport; None: evenly.
        targets: Gold labels, for `hard_weight`.
        output: What a logit row means.
        augment: Changes the texts at every step; None where the stage asks for no such.
    """

    stage: Stage
    teacher: OnlineTeacher
    module: HiddenLoss | InformationLoss
    grid: tuple[int, int] | None
    targets: Tensor
    output: Output = "classes"
    augment: Augmentation | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        """See `Objective`."""
        terms: Terms = {}
        highest, plain = max(1, *(layer for layer, _ in self.module.pairs)), None
        for texts in _rounds(self.stage, batch, self.augment):
            student = model(**texts.inputs, output_hidden_states=True, **_mixed(texts.mix))
            taught = self.teacher(texts.inputs, hidden=True, last_layer=highest, mix=texts.mix)
            compared = self._compare(taught.hidden_states, student.hidden_states, texts.mask)
            terms[texts.name] = texts.weight * compared
            if texts.plain:
                plain = taught.hidden_states
                terms |= _labels(self.stage, batch, student, self.targets, self.output)
        if isinstance(self.module, InformationLoss) and self.module.training:
            # After all comparisons: a text must not meet itself in the queue, nor a changed one stay there.
            assert plain is not None
            self.module.remember(plain, batch.mask)
        return terms

    def _compare(self, teacher: Sequence[Tensor] | None, student: Sequence[Tensor], mask: Tensor) -> Tensor:
        assert teacher is not None
        costs = self.module.costs(teacher, student, mask)
        weights = None if self.grid is None else emd_weights(costs.view(self.grid)).flatten()
        return weigh(costs, weights)


@dataclass(frozen=True)
class AttentionObjective:
    """A loss on queries, keys and values of teacher and student.

    Attributes:
        stage: The stage.
        teacher: Run beside the student, no higher than it is read.
        loss: The loss.
        targets: Gold labels, for `hard_weight`.
        output: What a logit row means.
        augment: Changes the texts at every step; None where the stage asks for no such.
    """

    stage: Stage
    teacher: OnlineTeacher
    loss: AttentionLoss
    targets: Tensor
    output: Output = "classes"
    module: nn.Module | None = None
    augment: Augmentation | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        """See `Objective`."""
        terms: Terms = {}
        theirs = self.loss.teacher_layers
        for texts in _rounds(self.stage, batch, self.augment):
            student = model(**texts.inputs, output_relations=self.loss.student_layers, **_mixed(texts.mix))
            taught = self.teacher(texts.inputs, relations=theirs, last_layer=max(theirs), mix=texts.mix)
            assert taught.relations is not None
            terms[texts.name] = texts.weight * self.loss(taught.relations, student.relations, texts.mask)
            if texts.plain:
                terms |= _labels(self.stage, batch, student, self.targets, self.output)
        return terms


@dataclass(frozen=True)
class _Texts:
    """Texts on which teacher and student are compared.

    Attributes:
        name: Of this part of the loss.
        inputs: What both are given, (B, L).
        weight: Of this part.
        mix: How the texts are mixed; None: not at all.
        plain: They are the batch's own.
    """

    name: str
    inputs: Mapping[str, Tensor]
    weight: float = 1.0
    mix: Mix | None = None
    plain: bool = False

    @property
    def mask(self) -> Tensor:
        """(B, L), nonzero at tokens."""
        mask = self.inputs["attention_mask"]
        return mask if self.mix is None else self.mix.union(mask)


def _rounds(stage: Stage, batch: Batch, augment: Augmentation | None) -> list[_Texts]:
    """The texts as they are, and changed where the stage asks for it."""
    return [_Texts(stage.loss.name, batch.inputs, plain=True), *_changed(stage, batch, augment)]


def _changed(stage: Stage, batch: Batch, augment: Augmentation | None) -> list[_Texts]:
    """The texts mixed or changed, drawn now."""
    if stage.mixup is not None:
        return [_Texts("mixup", batch.inputs, stage.mixup.weight, draw_mix(stage.mixup, batch.mask))]
    if augment is not None:
        ids = augment(batch.inputs["input_ids"], batch.mask)
        return [_Texts("on_the_fly", {**batch.inputs, "input_ids": ids}, augment.spec.weight)]
    return []


def _mixed(mix: Mix | None) -> dict[str, Mix]:
    return {} if mix is None else {"mix": mix}


def _labels(stage: Stage, batch: Batch, student: StudentOutput, targets: Tensor, output: Output) -> Terms:
    """The loss on gold labels, where the stage asks for it."""
    if not stage.hard_weight:
        return {}
    assert student.logits is not None
    return {"labels": stage.hard_weight * hard_loss(batch.rows(student.logits), batch.of(targets), output)}


def draw_mix(spec: Mixup, mask: Tensor) -> Mix:
    """Draw partners and share from torch's generator, which the loop seeds at every step."""
    share = torch.distributions.Beta(spec.alpha, spec.alpha).sample().to(mask.device)
    return Mix(torch.randperm(len(mask)).to(mask.device), share)


def build_objective(
    stage: Stage,
    *,
    rows: Tensor | None,
    targets: Tensor,
    student: EncoderShape,
    teacher: Callable[[], OnlineTeacher],
    seed: int,
    output: Output = "classes",
    augment: Augmentation | None = None,
) -> Objective:
    """Make the objective of a stage.

    Args:
        rows: The teacher's logits (rows, labels), on the device; None where the stage needs none.
        targets: Gold labels, one entry a logit row, on the device.
        teacher: Makes the teacher that is run beside the student; called only where it is needed.
        seed: Of what is learned beside the student.
        output: What a logit row means.
        augment: Changes the texts at every step, as the stage's `on_the_fly` asks.

    Raises:
        UsageError: Loss, teacher and student do not go together; the message names the field.
    """
    spec = stage.loss
    if isinstance(spec, HardCE):
        return LabelObjective(targets, output)
    if spec.family == "prediction":
        assert rows is not None
        check_prediction(spec, rows.shape[1], output)
        online = _online(stage, teacher, student) if stage.online else None
        return LogitObjective(stage, rows, targets, online, output, augment=augment)
    online = _online(stage, teacher, student)
    if isinstance(spec, AttentionMaps | MiniLM | MiniLMv2):
        return AttentionObjective(
            stage, online, attention_loss(spec, online.shape, student), targets, output, augment=augment
        )
    assert isinstance(spec, HiddenStates | MutualInformation)
    pairs = layer_pairs(spec.mapping, online.depth, student.depth)
    grid = (online.depth, student.depth) if spec.mapping.name == "emd" else None
    widths = online.width, student.hidden
    module: HiddenLoss | InformationLoss
    if isinstance(spec, MutualInformation):
        module = InformationLoss(spec, pairs, *widths, seed)
    else:
        module = HiddenLoss(spec, pairs, *widths, seed)
    return HiddenObjective(stage, online, module, grid, targets, output, augment)


def _online(stage: Stage, teacher: Callable[[], OnlineTeacher], student: EncoderShape) -> OnlineTeacher:
    """Make the teacher that a stage runs; refuse mixup where both cannot be given it, or where it has no answer."""
    online = teacher()
    if stage.mixup is not None:
        if online.shape is None:
            raise UsageError("distill mixup: this teacher's embeddings cannot be mixed; leave mixup out")
        if stage.loss.family == "prediction" and student.head is not None and student.head.kind != "sequence":
            raise UsageError("distill mixup: a mixed text has no words to label; leave mixup out for token tasks")
    return online


def _logits(logits: Tensor | None) -> Tensor:
    assert logits is not None
    return logits
