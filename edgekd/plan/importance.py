"""Stage `importance`: what of the teacher matters on the user's text, and where its hidden states live."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgekd.distill.batches import fingerprint, inputs_of, logit_rows
from edgekd.distill.engine import Engine
from edgekd.distill.losses.prediction import hard_loss
from edgekd.distill.states import sample_states
from edgekd.models.families import Hosted
from edgekd.models.importance import Importance, measure_importance
from edgekd.models.student import StudentModel, StudentOutput, from_weights
from edgekd.runtime.encodings import Encodings
from edgekd.settings.task import Output
from edgekd.store import Artefact, Store

VERSION = 1

# Texts that importance is measured on: more changes no ranking that matters.
_TEXTS = 512
_BATCH = 32

# A fine-tuned teacher is sure of its own answers: at T=1 its loss, and every gradient with it, is nearly zero.
_TEMPERATURE = 4.0


@dataclass(frozen=True)
class Measured:
    """Importance of the teacher's parts and a sample of its hidden states (n, hidden)."""

    importance: Importance
    states: np.ndarray


def importance_stage(
    store: Store,
    engine: Engine,
    hosted: Hosted,
    teacher_id: str,
    encodings: Encodings,
    rows: np.ndarray,
    output: Output = "classes",
) -> Artefact:
    """Measure importance on (at most 512 of) the transfer texts, the teacher's own answers being the targets.

    Args:
        hosted: The teacher as a student of full shape.
        rows: The teacher's logits on them, (rows, labels).
        output: What a logit row means.
    """
    key = {"teacher": teacher_id, "texts": fingerprint(encodings)}

    def build(work: Path) -> None:
        shape, weights = hosted
        model = from_weights(shape, weights, [str(i) for i in range(rows.shape[1])], dropout=0.0)
        engine.to_device(model)
        rng = np.random.default_rng(0)
        chosen = np.sort(rng.permutation(len(encodings))[:_TEXTS])
        chosen = chosen[np.argsort(encodings.lengths[chosen], kind="stable")]
        batches = [chosen[i : i + _BATCH] for i in range(0, len(chosen), _BATCH)]
        _measure(model, encodings, rows, batches, engine, output).save(work / "importance.safetensors")
        np.save(work / "states.npy", sample_states(model, encodings, batches, engine), allow_pickle=False)

    return store.make("importance", VERSION, key, build)


def read_importance(artefact: Artefact) -> Measured:
    """Read what the stage kept."""
    return Measured(
        Importance.load(artefact.path / "importance.safetensors"),
        np.load(artefact.path / "states.npy", allow_pickle=False),
    )


def _measure(
    model: StudentModel,
    encodings: Encodings,
    rows: np.ndarray,
    batches: list[np.ndarray],
    engine: Engine,
    output: Output,
) -> Importance:
    current: list[np.ndarray] = []

    def feed() -> Iterator[dict[str, Tensor]]:
        with engine.progress.bar("plan: importance of heads, neurons and layers", len(batches)) as bar:
            for i, indices in enumerate(batches):
                current[:] = [indices]
                yield inputs_of(encodings, indices, torch.device(engine.device))
                bar.update(i + 1)

    goals = torch.from_numpy(_goals(rows, output)).to(engine.device)

    def loss(found: StudentOutput, batch: dict[str, Tensor]) -> Tensor:
        assert found.logits is not None
        mine = logit_rows(encodings, current[0], found.logits)
        wanted = goals[torch.from_numpy(encodings.row_slots(current[0])).to(goals.device)]
        return hard_loss(mine if output == "value" else mine / _TEMPERATURE, wanted, output)

    return measure_importance(model, feed(), loss)


def _goals(rows: np.ndarray, output: Output) -> np.ndarray:
    """Targets of the loss: the teacher's own answers, as hard labels.

    A value has no hard label, and at the teacher's own the loss is flat: it is moved by the values' spread, up and
    down in turns, so that neither sign of an error is favoured.
    """
    if output in ("classes", "joint"):
        goals: np.ndarray = rows.argmax(axis=-1)
    elif output == "flags":
        goals = (rows > 0).astype(np.float32)
    else:
        signs = np.where(np.arange(len(rows)) % 2, -1.0, 1.0)[:, None]
        goals = (rows + signs * rows.std()).astype(np.float32)
    return goals
