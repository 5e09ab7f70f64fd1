"""Stage `distill`: train one student from its first weights, once a hop of the chain."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.data.transfer_set import TransferSet
from edgekd.distill.batches import fingerprint
from edgekd.distill.engine import Engine
from edgekd.distill.loop import held_out_loss, train
from edgekd.distill.objective import build_objective
from edgekd.distill.on_the_fly import augmentation
from edgekd.distill.scoring import Judged
from edgekd.errors import DataError, UsageError
from edgekd.models.initialize import Weights
from edgekd.models.online import OnlineTeacher
from edgekd.models.quiet import quiet_transformers
from edgekd.models.student import StudentModel, from_weights, numpy_weights
from edgekd.models.teacher import Teacher
from edgekd.records.training import TrainingRun
from edgekd.runtime.encodings import Encodings
from edgekd.settings.distill import Distill, Stage
from edgekd.settings.shape import EncoderShape
from edgekd.store import Artefact, Store
from edgekd.tasks.base import Task

VERSION = 2


@dataclass(frozen=True)
class Start:
    """A student before training.

    Attributes:
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
        teacher_rows: Teacher logits (rows, labels) of the same texts.
        targets: Gold target of each logit row, see `Task.target_rows`; as in `Task.no_targets` where a text has none.
        judged: Validation.
        labelled: How many texts, the first ones, have a gold label.
        teacher: The teacher, for stages that run it beside the student.
        teacher_id: Identity of its content.
    """

    id: str
    encodings: Encodings
    teacher_rows: np.ndarray
    targets: np.ndarray
    judged: Judged
    labelled: int
    teacher: Teacher
    teacher_id: str

    def for_stage(self, stage: Stage) -> Lesson:
        """The part of it that a stage learns from.

        Raises:
            DataError: The stage learns from labelled texts, and there are none.
        """
        if stage.data == "transfer":
            return self
        if not self.labelled:
            raise DataError("a distill stage has data: labelled, but no text has a gold label; use data: transfer")
        known = self.encodings.take(np.arange(self.labelled))
        rows = int(known.rows[-1])
        return replace(
            self, id=f"{self.id} labelled", encodings=known, teacher_rows=self.teacher_rows[:rows],
            targets=self.targets[:rows],
        )  # fmt: skip


def lesson(
    task: Task,
    transfer: TransferSet,
    encodings: Encodings,
    teacher_rows: np.ndarray,
    judged: Judged,
    teacher: Teacher,
    teacher_id: str,
) -> Lesson:
    """Put a lesson together; the gold targets of the labelled texts come from the transfer set."""
    targets = _target_rows(task, transfer, encodings)
    digest = hashlib.sha256(fingerprint(encodings).encode())
    digest.update(fingerprint(judged.encodings).encode())
    digest.update(repr(list(judged.gold)).encode())
    digest.update(targets.tobytes())
    digest.update(np.ascontiguousarray(teacher_rows).data)
    labelled = 0 if transfer.labelled is None else len(transfer.labelled)
    return Lesson(digest.hexdigest()[:24], encodings, teacher_rows, targets, judged, labelled, teacher, teacher_id)


def _target_rows(task: Task, transfer: TransferSet, encodings: Encodings) -> np.ndarray:
    """Gold target of each logit row; where a text has none, the task's mark for that."""
    targets = task.no_targets(int(encodings.rows[-1]))
    if transfer.labelled is not None and len(transfer.labelled):
        known = encodings.take(np.arange(len(transfer.labelled)))
        targets[: int(known.rows[-1])] = task.target_rows(transfer.labelled, known)
    return targets


def distill(
    store: Store, engine: Engine, start: Start, task: Task, lesson: Lesson, spec: Distill, title: str
) -> list[Artefact]:
    """Train a student stage by stage, each from the weights that the one before left.

    Args:
        task: The task, whose metric chooses the weights.

    Returns:
        For each stage a folder with the trained `StudentModel` (safetensors); its result holds the curve and the
        scores before and after.

    Raises:
        UsageError: Loss, teacher and student of a stage do not go together.
    """
    made: list[Artefact] = []
    stages = spec.schedule(_kept(start, lesson.teacher))
    _check(stages, start, task, lesson)
    for number, stage in enumerate(stages, 1):
        name = title if len(spec.stages) == 1 else f"{title}, stage {number} of {len(spec.stages)} ({stage.title})"
        made.append(run_stage(store, engine, start, task, lesson.for_stage(stage), stage, spec.seed, name))
        if number < len(spec.stages):
            start = start_of(load_student(made[-1].path), start.labels)
    return made


def _check(stages: Sequence[Stage], start: Start, task: Task, lesson: Lesson) -> None:
    """Refuse a stage that teacher and student do not allow, before the first one trains."""
    for i, stage in enumerate(stages):
        try:
            build_objective(
                stage,
                rows=torch.from_numpy(lesson.teacher_rows[:1]),
                targets=torch.from_numpy(lesson.targets[:1]),
                student=start.shape,
                teacher=lambda: OnlineTeacher.of(lesson.teacher),
                seed=0,
                output=task.output,
            )
        except UsageError as error:
            raise UsageError(f"distill.stages.{i}: {error}") from error


def _kept(start: Start, teacher: Teacher) -> float:
    """Share of the teacher's layers, by parameters, that a student has; 0 where the teacher's are not like its own."""
    if teacher.hosted is None:
        return 0.0
    return start.shape.encoder_parameters() / teacher.hosted[0].encoder_parameters()


def run_stage(
    store: Store, engine: Engine, start: Start, task: Task, lesson: Lesson, stage: Stage, seed: int, title: str
) -> Artefact:
    """Train a student by one stage and keep the weights that are best on validation.

    A stage on logits or labels is judged by the task's metric. One on what is inside the models leaves the task
    head as it was: it is judged by its own loss on the validation texts.
    """
    stage = stage.model_copy(update={"training": engine.resolve(stage.training)})
    key = {
        "start": start.id,
        "lesson": lesson.id,
        "stage": stage.model_dump(mode="json"),
        "seed": seed,
        "teacher": lesson.teacher_id if stage.online else None,
    }
    return store.make(
        "distill", VERSION, key, lambda work: _train(engine, start, task, lesson, stage, seed, title, work)
    )


def start_of(model: StudentModel, labels: tuple[str, ...]) -> Start:
    """A trained student as the start of another stage."""
    return Start(model.config.encoder_shape, numpy_weights(model), labels)


def load_student(folder: Path) -> StudentModel:
    """Load a trained student, in eval mode on the CPU."""
    with quiet_transformers():
        model = StudentModel.from_pretrained(folder, local_files_only=True)
    model.eval()
    assert isinstance(model, StudentModel)
    return model


def _train(
    engine: Engine, start: Start, task: Task, lesson: Lesson, stage: Stage, seed: int, title: str, work: Path
) -> dict[str, Any]:
    model = start.model()
    score = lesson.judged.scorer(task, engine)
    untrained = score(model)
    device = torch.device(engine.device)

    def teacher() -> OnlineTeacher:
        online = OnlineTeacher.of(lesson.teacher)
        online.model.to(device)
        return online

    objective = build_objective(
        stage,
        rows=torch.from_numpy(lesson.teacher_rows).to(device),
        targets=torch.from_numpy(lesson.targets).to(device),
        student=start.shape,
        teacher=teacher,
        seed=seed,
        output=task.output,
        augment=augmentation(stage.on_the_fly, lesson.teacher),
    )
    inner = not stage.on_outputs
    judge = (lambda m: -held_out_loss(m, objective, lesson.judged.encodings, engine)) if inner else score
    trained = train(
        model, lesson.encodings, objective, judge, stage.training, engine, work / "state", title, seed=seed,
        max_steps=stage.max_steps,
    )  # fmt: skip
    after = score(model) if inner else trained.best_score
    with quiet_transformers():
        model.to("cpu").save_pretrained(work)
    shutil.rmtree(work / "state")
    return TrainingRun(
        loss=stage.title,
        judged_by="held-out loss" if inner else "metric",
        untrained=untrained,
        validation=after,
        points=trained.points,
        steps=trained.steps,
        planned_steps=trained.planned_steps,
        seconds=trained.seconds,
    ).model_dump(mode="json")
