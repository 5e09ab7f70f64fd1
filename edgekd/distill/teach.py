"""Stage `teach`: fine-tune a teacher from an encoder and labels."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.data.split import TaskData
from edgekd.distill.engine import Engine
from edgekd.distill.loop import train
from edgekd.distill.objective import LabelObjective, LogitObjective, Objective
from edgekd.distill.scoring import Judged
from edgekd.errors import DataError, UsageError
from edgekd.models.checkpoint import checkpoint_shape, checkpoint_weights
from edgekd.models.quiet import quiet_transformers
from edgekd.models.student import StudentModel, from_weights
from edgekd.models.teacher import PROBLEMS, TOKENIZER_SIDE_FILES, load_body, load_encoder
from edgekd.models.tokenizer import folder_tokenizer
from edgekd.records.training import TrainingRun
from edgekd.settings.distill import Stage, Teach
from edgekd.settings.losses import SoftCE
from edgekd.store import Artefact, Store
from edgekd.tasks.build import build_task
from edgekd.tasks.joint_intent_slots import JointIntentSlotsTask

VERSION = 2

# The least probability whose logarithm is taken.
_LEAST = 1e-9


def teach(
    store: Store,
    engine: Engine,
    encoder: Path,
    encoder_id: str,
    data: TaskData,
    max_length: int,
    spec: Teach,
    soft: NDArray[np.float32] | None = None,
) -> Artefact:
    """Fine-tune `encoder` on the labelled data, keeping the epoch that is best on validation.

    Args:
        store: Where the teacher is kept.
        encoder: Folder of a transformers encoder with tokenizer.json.
        max_length: Longer texts are cut.
        soft: What to learn instead of train's labels: probabilities (texts, labels) of a text classification.

    Returns:
        A folder that transformers loads, with the class names; its result holds the curve.

    Raises:
        DataError: The data have no labels.
    """
    if data.train is None or data.validation is None or not data.labels:
        raise DataError("teach needs labelled texts: the data hold none (expected train with a label column)")
    training = engine.resolve(spec.training)
    key: dict[str, Any] = {
        "encoder": encoder_id,
        "data": data.fingerprint,
        "max_length": max_length,
        "training": training.model_dump() | {"seed": spec.seed},
    }
    if soft is not None:
        key["soft"] = hashlib.sha256(soft.tobytes()).hexdigest()

    def build(work: Path) -> dict[str, Any]:
        return _fine_tune(engine, encoder, data, max_length, spec.model_copy(update={"training": training}), soft, work)

    return store.make("teach", VERSION, key, build)


def _fine_tune(
    engine: Engine,
    encoder: Path,
    data: TaskData,
    max_length: int,
    spec: Teach,
    soft: NDArray[np.float32] | None,
    work: Path,
) -> dict[str, Any]:
    assert data.train is not None
    assert data.validation is not None
    task = build_task(data.task, data.labels)
    tokenizer = folder_tokenizer(encoder)
    torch.manual_seed(spec.seed)
    if isinstance(task, JointIntentSlotsTask):
        model = _joint_model(encoder, task, spec.seed)
    else:
        model = load_encoder(encoder, data.labels, task.head, PROBLEMS[task.output])
    train_set = task.encode(tokenizer, data.train, max_length)
    rows = task.target_rows(data.train, train_set)
    if task.output == "value":
        mean, spread = rows.mean(), rows.std()
        rows = (rows - mean) / spread
    targets = torch.from_numpy(rows).to(engine.device)
    objective: Objective = LabelObjective(targets, task.output)
    if soft is not None:
        objective = _soft_objective(torch.from_numpy(soft).to(engine.device), targets)
    held_out = Judged(data.validation, task.encode(tokenizer, data.validation, max_length), task.gold(data.validation))

    trained = train(
        model, train_set, objective, held_out.scorer(task, engine), spec.training, engine, work / "state",
        "teacher: fine-tune", seed=spec.seed,
    )  # fmt: skip
    if task.output == "value":
        _scale_output(model, float(mean), float(spread))
    with quiet_transformers():
        model.to("cpu").save_pretrained(work)
    copy_tokenizer(encoder, work)
    shutil.rmtree(work / "state")
    return TrainingRun(
        validation=trained.best_score,
        points=trained.points,
        steps=trained.steps,
        planned_steps=trained.planned_steps,
        seconds=trained.seconds,
        truncated=train_set.truncated,
    ).model_dump(mode="json")


def _soft_objective(probabilities: Tensor, targets: Tensor) -> LogitObjective:
    """Cross-entropy against probabilities (texts, labels): their logarithms are the logits of such a teacher."""
    return LogitObjective(Stage(loss=SoftCE(temperature=1.0)), probabilities.clamp_min(_LEAST).log(), targets)


def _joint_model(encoder: Path, task: JointIntentSlotsTask, seed: int) -> StudentModel:
    """An encoder under two new heads, in the form of a student: transformers has no class for it.

    Raises:
        UsageError: The encoder is of a family that has no such form.
    """
    body = load_body(encoder)
    config = body.model.config
    if body.hosted is None:
        raise UsageError(
            f"--encoder {encoder}: a {config.model_type} cannot be given two heads: BERT, RoBERTa, XLM-R, ELECTRA or "
            "DistilBERT"
        )
    shape = checkpoint_shape(body, "joint", *task.sizes)
    weights = checkpoint_weights(body, shape, seed)
    model = from_weights(shape, weights, task.labels, pad_token_id=config.pad_token_id)
    # What the tokenizer is made for, which a bundle's configuration names.
    model.config.family = config.model_type
    return model


@torch.no_grad()
def _scale_output(model: nn.Module, mean: float, spread: float) -> None:
    """Turn a model of standardised values into one of the values themselves: no learning rate knows their scale."""
    output = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1][-1]
    output.weight *= spread
    output.bias.mul_(spread).add_(mean)


def copy_tokenizer(encoder: Path, folder: Path) -> None:
    """Write the tokenizer that transformers makes of an encoder, with the settings that stand beside it."""
    folder_tokenizer(encoder).save(str(folder / "tokenizer.json"))
    for name in TOKENIZER_SIDE_FILES:
        if (encoder / name).is_file():
            shutil.copyfile(encoder / name, folder / name)
