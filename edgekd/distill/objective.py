"""What a training step minimises: a stage's loss between teacher and student, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
from edgekd.settings.losses import AttentionMaps, HardCE, HiddenStates, Information, LossSpec, MiniLM, MiniLMv2
from edgekd.settings.shape import EncoderShape
from edgekd.settings.task import Output

Terms = dict[str, Tensor]
"""Named parts of a loss, already weighted: the loss is their sum."""

LABELS, MIXED, CHANGED = "labels", "mixup", "on_the_fly"
"""Names of the parts on gold labels and on changed texts; all others are named for their loss."""


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
        return {LABELS: hard_loss(rows, batch.of(self.targets), self.output)}


class Comparison(Protocol):
    """One loss between teacher and student: what it reads of both, and its value."""

    @property
    def spec(self) -> LossSpec:
        """Which loss."""

    @property
    def module(self) -> nn.Module | None:
        """What is learned beside the student; None for nothing."""

    @property
    def reads(self) -> _Reads:
        """What both must show."""

    def __call__(self, taught: StudentOutput | None, student: StudentOutput, texts: _Texts, batch: Batch) -> Tensor:
        """The loss, a scalar; `taught` is None where the teacher's answers were kept."""


@dataclass(frozen=True)
class _Reads:
    """What a comparison reads beside the logits.

    Attributes:
        hidden: Hidden states of both.
        theirs: Layers (from 1) of the teacher whose queries, keys and values are read.
        ours: Those of the student.
        top: The teacher's highest layer that is read; None where it is the head alone.
    """

    hidden: bool = False
    theirs: tuple[int, ...] = ()
    ours: tuple[int, ...] = ()
    top: int | None = None


@dataclass(frozen=True)
class _OfLogits:
    """A loss on logits; the teacher's on the texts as they are were computed before, (rows, labels)."""

    spec: LossSpec
    rows: Tensor
    output: Output
    module: nn.Module | None = None
    reads: _Reads = _Reads()

    def __call__(self, taught: StudentOutput | None, student: StudentOutput, texts: _Texts, batch: Batch) -> Tensor:
        """See `Comparison`."""
        if texts.plain:
            rows = batch.of(self.rows)
        else:
            assert taught is not None
            rows = batch.rows(_logits(taught.logits))
        return distillation_loss(self.spec, rows, batch.rows(_logits(student.logits)), self.output)


@dataclass(frozen=True)
class _OfStates:
    """A loss on hidden states.

    Attributes:
        module: The loss, with its projections and critics.
        grid: (teacher's, student's) depth where pairs are weighted by optimal transport; None: evenly.
    """

    spec: LossSpec
    module: HiddenLoss | InformationLoss
    grid: tuple[int, int] | None

    @property
    def reads(self) -> _Reads:
        """See `Comparison`."""
        return _Reads(hidden=True, top=max(1, *(layer for layer, _ in self.module.pairs)))

    def __call__(self, taught: StudentOutput | None, student: StudentOutput, texts: _Texts, batch: Batch) -> Tensor:
        """See `Comparison`."""
        assert taught is not None
        assert taught.hidden_states is not None
        assert student.hidden_states is not None
        costs = self.module.costs(taught.hidden_states, student.hidden_states, texts.mask)
        weights = None if self.grid is None else emd_weights(costs.view(self.grid)).flatten()
        return weigh(costs, weights)


@dataclass(frozen=True)
class _OfRelations:
    """A loss on queries, keys and values."""

    spec: LossSpec
    loss: AttentionLoss
    module: nn.Module | None = None

    @property
    def reads(self) -> _Reads:
        """See `Comparison`."""
        theirs = tuple(self.loss.teacher_layers)
        return _Reads(theirs=theirs, ours=tuple(self.loss.student_layers), top=max(theirs))

    def __call__(self, taught: StudentOutput | None, student: StudentOutput, texts: _Texts, batch: Batch) -> Tensor:
        """See `Comparison`."""
        assert taught is not None
        assert taught.relations is not None
        assert student.relations is not None
        return self.loss(taught.relations, student.relations, texts.mask)


@dataclass(frozen=True)
class StageObjective:
    """A stage's weighted sum of losses: sum of w_c * c(teacher, student), and w_hard times that on the gold labels.

    Distiller's objective (He et al., 2021, arXiv:2109.11105, section 3): a prediction loss and intermediate ones, each
    with its own layer mapping. Teacher and student are run once for all of them.

    Attributes:
        parts: (weight, comparison), at least one.
        teacher: Run beside the student, no higher than it is read; None where its logits on the texts do.
        targets: Gold labels, one entry a logit row, as `hard_loss` takes them.
        hard_weight: Of the loss on them; 0 for none.
        output: What a logit row means.
        mixup: Compare on mixed texts too.
        augment: Compare on texts that this changes at every step, too.
        module: What the comparisons learn beside the student; None for nothing.
    """

    parts: Sequence[tuple[float, Comparison]]
    teacher: OnlineTeacher | None
    targets: Tensor
    hard_weight: float = 0.0
    output: Output = "classes"
    mixup: Mixup | None = None
    augment: Augmentation | None = None
    module: nn.Module | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        """See `Objective`."""
        terms: Terms = {}
        plain = None
        for texts in self._rounds(batch):
            student, taught = model(**texts.inputs, **self._asked(texts)), self._taught(texts)
            for (weight, part), name in zip(self.parts, self._names(), strict=True):
                value = texts.weight * weight * part(taught, student, texts, batch)
                key = name if texts.plain else texts.name
                terms[key] = terms[key] + value if key in terms else value
            if texts.plain:
                plain = taught
                if self.hard_weight:
                    rows = batch.rows(_logits(student.logits))
                    terms[LABELS] = self.hard_weight * hard_loss(rows, batch.of(self.targets), self.output)
        for _, part in self.parts:
            if isinstance(part.module, InformationLoss) and part.module.training:
                # After all comparisons: a text must not meet itself in the queue, nor a changed one stay there.
                assert plain is not None
                assert plain.hidden_states is not None
                part.module.remember(plain.hidden_states, batch.mask)
        return terms

    def _names(self) -> list[str]:
        """The parts' names: the losses', counted where one comes again."""
        names = [part.spec.name for _, part in self.parts]
        return [name if name not in names[:i] else f"{name} {i + 1}" for i, name in enumerate(names)]

    def _rounds(self, batch: Batch) -> list[_Texts]:
        """The texts as they are, and mixed or changed, drawn now."""
        rounds = [_Texts("", batch.inputs, plain=True)]
        if self.mixup is not None:
            rounds.append(_Texts(MIXED, batch.inputs, self.mixup.weight, draw_mix(self.mixup, batch.mask)))
        if self.augment is not None:
            ids = self.augment(batch.inputs["input_ids"], batch.mask)
            rounds.append(_Texts(CHANGED, {**batch.inputs, "input_ids": ids}, self.augment.spec.weight))
        return rounds

    def _asked(self, texts: _Texts) -> dict[str, Any]:
        """What the student is asked for beside its logits; nothing more, as some models know no more."""
        asked: dict[str, Any] = {}
        if any(part.reads.hidden for _, part in self.parts):
            asked["output_hidden_states"] = True
        if layers := sorted({layer for _, part in self.parts for layer in part.reads.ours}):
            asked["output_relations"] = layers
        return asked if texts.mix is None else asked | {"mix": texts.mix}

    def _taught(self, texts: _Texts) -> StudentOutput | None:
        """The teacher on some texts; None where nothing of it is needed but the logits that were computed before."""
        reads = [part.reads for _, part in self.parts]
        tops = [read.top for read in reads if read.top is not None]
        if texts.plain and not tops:
            return None
        assert self.teacher is not None
        return self.teacher(
            texts.inputs,
            hidden=any(read.hidden for read in reads),
            relations=sorted({layer for read in reads for layer in read.theirs}),
            # Its head answers where logits are compared that were not computed before.
            last_layer=max(tops) if texts.plain or len(tops) == len(reads) else None,
            mix=texts.mix,
        )


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


def draw_mix(spec: Mixup, mask: Tensor) -> Mix:
    """Draw partners and share from torch's generator, which the loop seeds at every step."""
    share = torch.distributions.Beta(spec.alpha, spec.alpha).sample().to(mask.device)
    return Mix(torch.randperm(len(mask)).to(mask.device), share)


def build_objective(
    stage: Stage,
    *,
    rows: Tensor | None,
    targets: Tensor,
    student: EncoderShape | None,
    teacher: Callable[[], OnlineTeacher],
    seed: int,
    output: Output = "classes",
    augment: Augmentation | None = None,
) -> Objective:
    """Make the objective of a stage.

    Args:
        rows: The teacher's logits (rows, labels), on the device; None where the stage needs none.
        targets: Gold labels, one entry a logit row, on the device.
        student: Its shape; None where losses on logits and labels alone are asked for.
        teacher: Makes the teacher that is run beside the student; called only where it is needed.
        seed: Of what is learned beside the student.
        output: What a logit row means.
        augment: Changes the texts at every step, as the stage's `on_the_fly` asks.

    Raises:
        UsageError: Loss, teacher and student do not go together; the message names the field.
    """
    if isinstance(stage.loss, HardCE) and not stage.intermediate:
        return LabelObjective(targets, output)
    asked: list[tuple[float, LossSpec]] = [] if isinstance(stage.loss, HardCE) else [(stage.weight, stage.loss)]
    asked += [(part.weight, part.loss) for part in stage.intermediate]
    online = _online(stage, teacher, student) if stage.online else None
    parts = [
        (weight, _comparison(spec, rows, online, student, seed + i, output))
        for i, (weight, spec) in enumerate(asked)
        if weight
    ]
    learned = [part.module for _, part in parts if part.module is not None]
    return StageObjective(
        parts,
        online,
        targets,
        stage.weight if isinstance(stage.loss, HardCE) else stage.hard_weight,
        output,
        stage.mixup,
        augment,
        # One alone is known by its own names, as checkpoints of before know it.
        learned[0] if len(learned) == 1 else nn.ModuleList(learned) if learned else None,
    )


def _comparison(
    spec: LossSpec,
    rows: Tensor | None,
    online: OnlineTeacher | None,
    student: EncoderShape | None,
    seed: int,
    output: Output,
) -> Comparison:
    if spec.family == "prediction":
        assert rows is not None
        check_prediction(spec, rows.shape[1], output)
        return _OfLogits(spec, rows, output)
    assert online is not None
    assert student is not None
    if isinstance(spec, AttentionMaps | MiniLM | MiniLMv2):
        return _OfRelations(spec, attention_loss(spec, online.shape, student))
    assert isinstance(spec, HiddenStates | Information)
    pairs = layer_pairs(spec.mapping, online.depth, student.depth)
    grid = (online.depth, student.depth) if spec.mapping.name == "emd" else None
    widths = online.width, student.hidden
    if isinstance(spec, Information):
        return _OfStates(spec, InformationLoss(spec, pairs, *widths, seed), grid)
    return _OfStates(spec, HiddenLoss(spec, pairs, *widths, seed), grid)


def _online(stage: Stage, teacher: Callable[[], OnlineTeacher], student: EncoderShape | None) -> OnlineTeacher:
    """Make the teacher that a stage runs; refuse mixup where both cannot be given it, or where it has no answer."""
    online = teacher()
    if stage.mixup is not None:
        if online.shape is None:
            raise UsageError("distill mixup: this teacher's embeddings cannot be mixed; leave mixup out")
        head = None if student is None else student.head
        if stage.loss.family == "prediction" and head is not None and head.kind != "sequence":
            raise UsageError("distill mixup: a mixed text has no words to label; leave mixup out for token tasks")
    return online


def _logits(logits: Tensor | None) -> Tensor:
    assert logits is not None
    return logits
