"""Stage `distill`: train one student from its first weights, once a hop of the chain."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.data.transfer import TransferSet
from edgekd.distill.batches import fingerprint
from edgekd.distill.engine import Engine
from edgekd.distill.loop import train
from edgekd.distill.losses.prediction import distillation_loss, hard_loss
from edgekd.distill.scoring import Judged
from edgekd.distill.spec import Distill
from edgekd.models.initialize import Weights
from edgekd.models.quiet import quiet_transformers
from edgekd.models.spec import EncoderShape
from edgekd.models.student import StudentModel, from_weights
from edgekd.runtime.tokenise import Encodings
from edgekd.store import Artefact, Store
from edgekd.tasks.base import Task

VERSION = 1


@dataclass(frozen=True)
class Start:
    """A student before training.

    Attributes:
        shape: Its shape.
        weights: Its first weights, by name.
        labels: Class names in order.
    """

    shape: EncoderShape
    weights: Weights
    labels: tuple[str, ...]

    @property
    def id(self) -> str:
        """Identity of shape and weights."""
        digest = hashlib.sha256(self.shape.model_dump_json().encode())
        for name in sorted(self.weights):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.weights[name]).data)
        return digest.hexdigest()[:24]

    def model(self) -> StudentModel:
        """Build it."""
        return from_weights(self.shape, self.weights, self.labels)


@dataclass(frozen=True)
class Lesson:
    """What a student learns from and is chosen by.

    Attributes:
        id: Identity of texts, teacher outputs, targets and validation answers together.
        encodings: The transfer set's tokens.
        teacher_rows: Teacher logits (rows, labels) of the same texts; None for plain fine-tuning.
        targets: Gold label ids (rows,), -100 where a text has none.
        judged: Validation.
    """

    id: str
    encodings: Encodings
    teacher_rows: np.ndarray | None
    targets: np.ndarray
    judged: Judged


def lesson(
    task: Task,
    transfer: TransferSet,
    encodings: Encodings,
    teacher_rows: np.ndarray | None,
    judged: Judged,
) -> Lesson:
    """Put a lesson together; the gold targets of the labelled texts come from the transfer set."""
    targets = _target_rows(task, transfer, encodings)
    digest = hashlib.sha256(fingerprint(encodings).encode())
    digest.update(fingerprint(judged.encodings).encode())
    digest.update(repr(list(judged.gold)).encode())
    digest.update(targets.tobytes())
    if teacher_rows is not None:
        digest.update(np.ascontiguousarray(teacher_rows).data)
    return Lesson(digest.hexdigest()[:24], encodings, teacher_rows, targets, judged)


def _target_rows(task: Task, transfer: TransferSet, encodings: Encodings) -> np.ndarray:
    """Gold label id of each logit row (rows,), -100 where a text has none."""
    targets = np.full(int(encodings.rows[-1]), -100, dtype=np.int64)
    if transfer.labelled is not None and len(transfer.labelled):
        known = encodings.take(np.arange(len(transfer.labelled)))
        targets[: int(known.rows[-1])] = task.target_rows(transfer.labelled, known)
    return targets


def distill(
    store: Store, engine: Engine, start: Start, task: Task, lesson: Lesson, spec: Distill, title: str
) -> Artefact:
    """Train a student and keep the weights that are best on validation.

    Loss: `spec.loss` between teacher and student logit rows, plus `spec.hard_weight` times cross-entropy on gold
    labels. Without teacher rows it is cross-entropy alone: the no-distillation baseline.

    Args:
        store: Where the student is kept.
        engine: Where to compute.
        start: The student before training.
        task: The task, whose metric chooses the weights.
        lesson: What it learns from.
        spec: Loss and schedule.
        title: Title of the progress bar.

    Returns:
        A folder with the trained `StudentModel` (safetensors); its result holds the curve and the score before
        any training.
    """
    training = engine.resolve(spec.training)
    spec = spec.model_copy(update={"training": training})
    key = {
        "start": start.id,
        "lesson": lesson.id,
        "distilled": lesson.teacher_rows is not None,
        "spec": spec.model_dump(),
    }

    def build(work: Path) -> dict[str, Any]:
        return _train(engine, start, task, lesson, spec, title, work)

    return store.make("distill", VERSION, key, build)


def load_student(folder: Path) -> StudentModel:
    """Load a trained student, in eval mode on the CPU."""
    with quiet_transformers():
        model = StudentModel.from_pretrained(folder, local_files_only=True)
    model.eval()
    assert isinstance(model, StudentModel)
    return model


def _train(
    engine: Engine, start: Start, task: Task, lesson: Lesson, spec: Distill, title: str, work: Path
) -> dict[str, Any]:
    model = start.model()
    score = lesson.judged.scorer(task, engine)
    untrained = score(model)
    targets = torch.from_numpy(lesson.targets).to(engine.device)
    teacher = None if lesson.teacher_rows is None else torch.from_numpy(lesson.teacher_rows).to(engine.device)

    def objective(rows: Tensor, ids: np.ndarray) -> Tensor:
        chosen = torch.from_numpy(ids).to(rows.device)
        if teacher is None:
            return hard_loss(rows, targets[chosen])
        loss = distillation_loss(spec.loss, teacher[chosen], rows)
        if spec.hard_weight:
            loss = loss + spec.hard_weight * hard_loss(rows, targets[chosen])
        return loss

    trained = train(
        model, lesson.encodings, objective, score, spec.training, engine, work / "state", title
    )  # fmt: skip
    with quiet_transformers():
        model.to("cpu").save_pretrained(work)
    shutil.rmtree(work / "state")
    return {
        "untrained": untrained,
        "validation": trained.best_score,
        "points": trained.points,
        "steps": trained.steps,
        "planned_steps": trained.planned_steps,
        "seconds": trained.seconds,
    }
