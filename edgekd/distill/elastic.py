"""Elastic training: one set of weights that holds many students, each of them a prefix slice of it.

Heads and neurons are ordered by importance, so that a smaller number of them is a prefix; layers are kept or left out.
Every step trains the first slice, which the others have in common, and one of the others at random, on the same texts
and the same logits of the teacher, with one optimiser step. The sandwich of slimmable networks (Yu and Huang, 2019,
arXiv:1903.05134) trains the largest every step as well, MiniDisc (arXiv:2205.14570) all of them: that costs two to four
times as much a step, and more steps are worth more (docs/assistants.md).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from edgekd.distill.engine import Engine
from edgekd.distill.loop import train
from edgekd.distill.losses.prediction import check_prediction, distillation_loss
from edgekd.distill.objective import Batch, Terms
from edgekd.distill.predict import predict_rows
from edgekd.distill.student import Lesson, Start, load_student, start_of
from edgekd.models.families import Hosted
from edgekd.models.importance import Importance
from edgekd.models.initialize import ranked_places, slice_weights
from edgekd.models.quiet import quiet_transformers
from edgekd.models.student import StudentConfig, StudentModel
from edgekd.settings.distill import Stage
from edgekd.settings.losses import LossSpec
from edgekd.settings.shape import Slice
from edgekd.settings.task import Output
from edgekd.store import Artefact, Store
from edgekd.tasks.base import Task

VERSION = 2


def hull(slices: Sequence[Slice]) -> Slice:
    """The smallest slice that holds all of these."""
    sizes: dict[int, tuple[int, int]] = {}
    for choice in slices:
        for layer, heads, ffn in zip(choice.layers, choice.heads, choice.ffn, strict=True):
            known = sizes.get(layer, (0, 0))
            sizes[layer] = max(known[0], heads), max(known[1], ffn)
    layers = tuple(sorted(sizes))
    return Slice(layers=layers, heads=tuple(sizes[i][0] for i in layers), ffn=tuple(sizes[i][1] for i in layers))


class Elastic(nn.Module):
    """Weights that many slices share.

    Attributes:
        base: All of them, heads and neurons in descending order of importance.
        whole: What `base` is of the teacher; slices are named by the teacher's layers too.
    """

    def __init__(self, base: StudentModel, whole: Slice) -> None:
        super().__init__()
        self.base, self.whole = base, whole
        # Their weights are lent at each call: registered, they would be trained and kept.
        self._empty: dict[Slice, list[StudentModel]] = {}

    def forward(self, slices: Sequence[Slice], inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Logits of each slice, (B, labels) or (B, L, labels), on B texts of L tokens."""
        return [
            functional_call(self._model(choice), self._views(choice), kwargs=dict(inputs)).logits for choice in slices
        ]

    def _model(self, choice: Slice) -> StudentModel:
        """A model of the slice's shape without weights; made once, in the mode and with the dropout of the base."""
        if choice not in self._empty:
            shape = self.base.config.encoder_shape.model_copy(update={"heads": choice.heads, "ffn": choice.ffn})
            with torch.device("meta"):
                self._empty[choice] = [StudentModel(StudentConfig(shape))]
        (model,) = self._empty[choice]
        model.train(self.training)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = self.base.embeddings.dropout.p
        return model

    def _views(self, choice: Slice) -> dict[str, Tensor]:
        """The slice's weights by name, as views of the base's: gradients reach the base."""
        weights = dict(self.base.named_parameters())
        size = self.base.config.encoder_shape.head_size
        views = {name: tensor for name, tensor in weights.items() if not name.startswith("layers.")}
        for new, (layer, heads, ffn) in enumerate(zip(choice.layers, choice.heads, choice.ffn, strict=True)):
            prefix, inner = f"layers.{self.whole.layers.index(layer)}.", heads * size
            for name in (name for name in weights if name.startswith(prefix)):
                part, tensor = name.removeprefix(prefix), weights[name]
                if part.startswith(("attention.query.", "attention.key.", "attention.value.")):
                    tensor = tensor[:inner]
                elif part.startswith("ffn.up."):
                    tensor = tensor[:ffn]
                elif part == "attention.output.weight":
                    tensor = tensor[:, :inner]
                elif part == "ffn.down.weight":
                    tensor = tensor[:, :ffn]
                views[f"layers.{new}.{part}"] = tensor
        return views


@dataclass(frozen=True)
class ElasticObjective:
    """The mean loss of the first slice and of one drawn among the others, on the teacher's logits.

    Attributes:
        loss: Between two rows of logits.
        rows: The teacher's logits, computed before, (rows, labels); on the device.
        slices: At least two; the first is trained at every step.
        output: What a logit row means.
    """

    loss: LossSpec
    rows: Tensor
    slices: tuple[Slice, ...]
    output: Output = "classes"
    module: nn.Module | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        """See `Objective`."""
        chosen = draw(self.slices)
        taught = batch.of(self.rows)
        found = model(list(chosen.values()), batch.inputs)
        return {
            name: distillation_loss(self.loss, taught, batch.rows(logits), self.output) / len(chosen)
            for name, logits in zip(chosen, found, strict=True)
        }


def draw(slices: Sequence[Slice]) -> dict[str, Slice]:
    """What one step trains; drawn from torch's generator, which the loop seeds at every step."""
    return {"first": slices[0], "drawn": slices[1 + int(torch.randint(len(slices) - 1, ()))]}


def mean_step(sizes: Sequence[float]) -> float:
    """What a step costs on the mean, by what each slice costs, in their order."""
    return sizes[0] + float(np.mean(sizes[1:]))


@dataclass(frozen=True)
class ElasticRun:
    """A finished elastic run.

    Attributes:
        base: The trained weights.
        whole: What they are of the teacher.
        importance: Of the teacher's heads and neurons, which says their order in `base`.
        slices: The slices that were trained; the first of them at every step.
        scores: The validation metric of each, at most 1.
        counts: What each text brings to the metric, (slices, texts, k).
    """

    artefact: Artefact
    base: StudentModel
    whole: Slice
    importance: Importance
    slices: tuple[Slice, ...]
    scores: tuple[float, ...]
    counts: np.ndarray

    def cut(self, choice: Slice, labels: tuple[str, ...]) -> Start:
        """A slice as a stand-alone student, with the weights that it has here."""
        return cut(start_of(self.base, labels), self.whole, choice, self.importance)


def cut(base: Start, whole: Slice, choice: Slice, importance: Importance) -> Start:
    """A prefix slice of ranked weights as a stand-alone student, its heads and neurons in the teacher's order.

    So it is what `slice_weights` makes of a teacher, and a smaller one can be cut out of it by `slice_again`.

    Args:
        base: Shape and weights, heads and neurons in descending order of importance.
        whole: What `base` is of the teacher.
        choice: What is wanted of the teacher, inside `whole`.
        importance: Scores of the teacher's heads and neurons.
    """
    order = Importance(
        heads=[np.zeros(n) for n in base.shape.heads],
        neurons=[np.zeros(n) for n in base.shape.ffn],
        layers=np.zeros(base.shape.depth),
    )
    inside = choice.model_copy(update={"layers": tuple(whole.layers.index(layer) for layer in choice.layers)})
    for place, layer, heads, ffn in zip(inside.layers, choice.layers, choice.heads, choice.ffn, strict=True):
        order.heads[place] = _as_in_teacher(importance.heads[layer], heads, base.shape.heads[place])
        order.neurons[place] = _as_in_teacher(importance.neurons[layer], ffn, base.shape.ffn[place])
    return Start(*slice_weights(base.shape, base.weights, order, inside, ranked=True), base.labels)


def _as_in_teacher(scores: NDArray[np.float64], kept: int, known: int) -> NDArray[np.float64]:
    """Scores (known,) by which the first `kept` of a ranked row come first, in the order that the teacher has them."""
    order = np.full(known, -float(known))
    order[:kept] = -np.argsort(np.argsort(ranked_places(scores, kept)))
    return order


def train_elastic(
    store: Store,
    engine: Engine,
    hosted: Hosted,
    importance: Importance,
    slices: Sequence[Slice],
    task: Task,
    lesson: Lesson,
    stage: Stage,
    seed: int,
    title: str,
) -> ElasticRun:
    """Train all slices of a teacher in one run, and score each on validation.

    The weights kept are those of the best look at validation, where the first slice and the last count alike.

    Args:
        store: Where the run is kept.
        hosted: The teacher's shape and weights.
        slices: At least two, in the teacher's layers; first the one to train at every step, such as what all others
            hold.
        task: The task, whose metric scores them.
        lesson: The texts, and the teacher's logits on them.
        stage: Its schedule, and its loss, which is on logits.
    """
    stage = stage.model_copy(update={"training": engine.resolve(stage.training)})
    loss: LossSpec = stage.loss
    assert loss.family == "prediction"
    whole = hull(slices)
    base = Start(*slice_weights(*hosted, importance, whole, ranked=True), task.labels)
    key = {
        "base": base.id,
        "whole": whole.model_dump(mode="json"),
        "slices": [choice.model_dump(mode="json") for choice in slices],
        "lesson": lesson.id,
        "loss": loss.model_dump(mode="json"),
        "training": stage.training.model_dump(mode="json"),
        "max_steps": stage.max_steps,
        "seed": seed,
    }

    def build(work: Path) -> dict[str, Any]:
        return _train(engine, base, whole, importance, tuple(slices), task, lesson, stage, loss, seed, title, work)

    made = store.make("elastic", VERSION, key, build)
    counts = np.load(made.path / "counts.npy", allow_pickle=False)
    base_model, scores = load_student(made.path), tuple(made.result["scores"])
    return ElasticRun(made, base_model, whole, importance, tuple(slices), scores, counts)


def _train(
    engine: Engine,
    base: Start,
    whole: Slice,
    importance: Importance,
    slices: tuple[Slice, ...],
    task: Task,
    lesson: Lesson,
    stage: Stage,
    loss: LossSpec,
    seed: int,
    title: str,
    work: Path,
) -> dict[str, Any]:
    check_prediction(loss, lesson.teacher_rows.shape[1], task.output)
    model = Elastic(base.model(), whole)
    objective = ElasticObjective(
        loss, torch.from_numpy(lesson.teacher_rows).to(torch.device(engine.device)), slices, task.output
    )

    def counts(choice: Slice) -> np.ndarray:
        alone = cut(start_of(model.base, base.labels), whole, choice, importance).model()
        return lesson.judged.counts(task, predict_rows(alone, lesson.judged.encodings, engine))

    def score(choice: Slice) -> float:
        return task.score(counts(choice))

    trained = train(
        model, lesson.encodings, objective, lambda _: (score(slices[0]) + score(slices[-1])) / 2, stage.training,
        engine, work / "state", title, seed=seed, max_steps=stage.max_steps,
    )  # fmt: skip
    found = np.stack([counts(choice) for choice in slices])
    np.save(work / "counts.npy", found, allow_pickle=False)
    with quiet_transformers():
        model.base.to("cpu").save_pretrained(work)
    shutil.rmtree(work / "state")
    return {
        "judged_by": "metric",
        "scores": [task.score(each) for each in found],
        "points": trained.points,
        "steps": trained.steps,
        "planned_steps": trained.planned_steps,
        "seconds": trained.seconds,
    }
