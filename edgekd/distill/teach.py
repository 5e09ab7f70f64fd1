"""Stage `teach`: fine-tune a teacher from an encoder and labels."""

from __future__ import annotations

import hashlib
import math
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgekd.data.split import TaskData
from edgekd.distill.engine import Engine
from edgekd.distill.linear_probe import start_head
from edgekd.distill.loop import train
from edgekd.distill.objective import LabelObjective, Objective, build_objective
from edgekd.distill.scoring import Judged
from edgekd.errors import DataError, UsageError
from edgekd.models.checkpoint import checkpoint_shape, checkpoint_weights
from edgekd.models.online import OnlineTeacher
from edgekd.models.quiet import quiet_transformers
from edgekd.models.student import StudentModel, from_weights
from edgekd.models.teacher import PROBLEMS, TOKENIZER_SIDE_FILES, Encoder, load_body, load_encoder
from edgekd.models.tokenizer import folder_tokenizer
from edgekd.reading import read_json
from edgekd.records.training import TrainingRun
from edgekd.settings.distill import Stage, Teach, Training
from edgekd.settings.losses import SoftCE
from edgekd.settings.shape import Pool
from edgekd.store import Artefact, Store
from edgekd.tasks.base import Task
from edgekd.tasks.build import build_task
from edgekd.tasks.joint_intent_slots import JointIntentSlotsTask

VERSION = 3

# Where sentence-transformers says which states of an encoder make its vector.
POOLING = Path("1_Pooling") / "config.json"
# Labelled texts a class below which what the encoder was made for decides how it is pooled. A mean was better at 10;
# with more it is not measured, and costs a student all tokens of its last layer.
FEW = 30
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
        A folder with the class names, which transformers loads but for two heads, or one on a mean; its result holds
        the curve.

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
        "head": {"pool": spec.pool, "made_for_mean": made_for_mean(encoder), "probe": spec.probe},
        "min_steps": spec.min_steps,
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
    few = len(data.train) < FEW * len(task.labels)
    model = _model(encoder, task, "first" if spec.pool == "auto" and not few else spec.pool, spec.seed)
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
    probed = spec.probe and isinstance(model, StudentModel) and task.output == "classes"
    if probed:
        start_head(model, train_set, targets if soft is None else torch.from_numpy(soft), engine, spec.seed)

    trained = train(
        model, train_set, objective, held_out.scorer(task, engine), _schedule(spec, len(train_set), probed),
        engine, work / "state",
        "teacher: fine-tune", seed=spec.seed, judge_start=probed,
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


def _soft_objective(probabilities: Tensor, targets: Tensor) -> Objective:
    """Cross-entropy against probabilities (texts, labels): their logarithms are the logits of such a teacher."""
    stage, rows = Stage(loss=SoftCE(temperature=1.0)), probabilities.clamp_min(_LEAST).log()

    def none() -> OnlineTeacher:
        raise AssertionError("the teacher's answers are all there")

    return build_objective(stage, rows=rows, targets=targets, student=None, teacher=none, seed=0)


def _schedule(spec: Teach, texts: int, probed: bool) -> Training:
    """With the epochs that `min_steps` needs.

    A head that knows the classes already learns no faster than the rest, and words that are in few texts stay beside
    those that are in none.
    """
    training = spec.training
    steps = math.ceil(texts / training.batch_size)
    changes = {"epochs": max(training.epochs, spec.min_steps / steps)} | (
        {"head_rate": 1.0, "freeze_words": True} if probed else {}
    )
    return training.model_copy(update=changes)


def _model(encoder: Path, task: Task, pool: Literal["auto", "first", "mean"], seed: int) -> PreTrainedModel:
    """An encoder under a new head, which reads what was asked for, or what the encoder was made for.

    Raises:
        UsageError: The encoder's family has no such form.
    """
    joint, mean = isinstance(task, JointIntentSlotsTask), pool == "mean"
    if mean and task.head != "sequence":
        raise UsageError(f"teach.pool mean: {task.spec.name} reads every token; leave it out")
    if joint or mean or (pool == "auto" and task.head == "sequence" and made_for_mean(encoder)):
        body = load_body(encoder)
        if body.hosted is not None:
            return _own_model(body, task, "first" if joint else "mean", seed)
        if joint or mean:
            raise UsageError(
                f"--encoder {encoder}: a {body.model.config.model_type} cannot be given "
                f"{'two heads' if joint else 'a head on a mean'}: BERT, RoBERTa, XLM-R, ELECTRA or DistilBERT"
            )
    return load_encoder(encoder, task.labels, task.head, PROBLEMS[task.output])


def made_for_mean(encoder: Path) -> bool:
    """Whether an encoder comes with the settings of a sentence encoder that takes the mean over the tokens."""
    file = encoder / POOLING
    if not file.is_file():
        return False
    settings = read_json(file, "mend it, or leave it out")
    if not isinstance(settings, dict):
        return False
    kinds = [name for name, value in settings.items() if name.startswith("pooling_mode_") and value is True]
    return kinds == ["pooling_mode_mean_tokens"] or settings.get("pooling_mode") == "mean"


def _own_model(body: Encoder, task: Task, pool: Pool, seed: int) -> StudentModel:
    """An encoder under two heads, or one on a mean, in the form of a student: transformers has no class for it."""
    config = body.model.config
    shape = checkpoint_shape(body, task.head, *task.sizes, pool=pool)
    weights = checkpoint_weights(body, shape, seed)
    model = from_weights(shape, weights, task.labels, pad_token_id=config.pad_token_id)
    # What the tokenizer is made for, which a bundle's configuration names.
    model.config.family = config.model_type
    if task.head == "sequence":
        model.config.problem_type = PROBLEMS[task.output]
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
