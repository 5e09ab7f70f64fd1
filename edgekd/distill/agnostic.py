"""Stage `distill_encoder`: a general, compact encoder out of a larger one, from raw text alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from edgekd.distill.batches import fingerprint
from edgekd.distill.engine import Engine
from edgekd.distill.loop import held_out_loss, train
from edgekd.distill.objective import Objective, build_objective
from edgekd.distill.states import sample_states
from edgekd.distill.vocabulary import vocabulary_objective
from edgekd.errors import DataError
from edgekd.models.families import Hosted
from edgekd.models.importance import Importance
from edgekd.models.initialize import Weights, project_width, random_initial, slice_weights
from edgekd.models.online import OnlineTeacher
from edgekd.models.stock import save_stock
from edgekd.models.student import from_weights, numpy_weights
from edgekd.models.teacher import Encoder
from edgekd.runtime.encodings import Encodings
from edgekd.runtime.tokenise import encode_texts, pad_id
from edgekd.settings.distill import Agnostic, Stage
from edgekd.settings.losses import MlmLogits
from edgekd.settings.shape import EncoderShape, Slice
from edgekd.store import Artefact, Store

VERSION = 1

# Texts whose hidden states show the teacher's width.
_TEXTS, _BATCH = 256, 32

# Held-out texts that judge: more would cost time at every look.
_MOST_HELD_OUT = 2000

Origin = Literal["slice", "embeddings", "random"]


def distill_encoder(
    store: Store,
    engine: Engine,
    teacher: Encoder,
    teacher_id: str,
    texts: Sequence[str],
    max_length: int,
    shape: EncoderShape,
    spec: Agnostic,
) -> Artefact:
    """Train an encoder to be inside what a larger one is, on text without labels.

    It is judged by the loss on held-out texts, and the weights of the best look are kept.

    Args:
        max_length: Longer texts are cut.
        shape: The student's, see `edgekd.models.shape_text.parse_shape`.

    Returns:
        A folder that `transformers.AutoModel` loads as a stock BERT, with the tokenizer; its result holds the curve
        and the held-out loss before and after.

    Raises:
        DataError: Too few texts.
        UsageError: Loss, teacher and shape do not go together.
    """
    learn, judge = hold_out_texts(texts, spec)
    tokens = [_encode(teacher, part, max_length) for part in (learn, judge)]
    spec = spec.model_copy(update={"training": engine.resolve(spec.training)})
    key = {
        "teacher": teacher_id,
        "texts": [fingerprint(part) for part in tokens],
        "shape": shape.model_dump(mode="json"),
        "spec": spec.model_dump(mode="json"),
    }
    return store.make(
        "distill_encoder", VERSION, key, lambda work: _train(engine, teacher, tokens[0], tokens[1], shape, spec, work)
    )


def hold_out_texts(texts: Sequence[str], spec: Agnostic) -> tuple[list[str], list[str]]:
    """Texts to learn from, and texts that judge.

    Raises:
        DataError: They are too few.
    """
    held = min(round(spec.held_out * len(texts)), _MOST_HELD_OUT)
    if held < 1 or len(texts) - held < 2:
        raise DataError(f"--text: {len(texts)} texts are too few to hold out {100 * spec.held_out:g}% of; give more")
    order = np.random.default_rng(spec.seed).permutation(len(texts))
    return [texts[i] for i in np.sort(order[held:])], [texts[i] for i in np.sort(order[:held])]


def student_frame(teacher: Encoder) -> EncoderShape:
    """What a student has of its teacher whatever its size: vocabulary, positions, size of a head, activation."""
    if teacher.hosted is not None:
        return teacher.hosted[0].model_copy(update={"head": None})
    return EncoderShape(
        vocabulary=teacher.model.get_input_embeddings().num_embeddings,
        positions=teacher.max_length,
        token_types=2 if "token_type_ids" in teacher.inputs else 0,
        embedding=teacher.width,
        hidden=teacher.width,
        head_size=max(1, teacher.width // teacher.heads),
        heads=(teacher.heads,),
        ffn=(teacher.ffn or 4 * teacher.width,),
    )


def first_encoder(
    hosted: Hosted | None, shape: EncoderShape, states: np.ndarray | None, seed: int
) -> tuple[Weights, Origin]:
    """First weights of a student: as much of the teacher as fits into its shape.

    Args:
        hosted: The teacher as a student of full shape; None where it cannot be one.
        states: The teacher's hidden states (n, hidden), for a narrower width.

    Returns:
        The weights, and where they are from. "slice": evenly spaced layers, in each the heads and neurons of largest
        weights, projected where the width is narrower. "embeddings": these alone are the teacher's, projected, since
        its layers do not hold enough heads of this size, neurons or layers. "random": nothing is.
    """
    weights = random_initial(shape, seed)
    if hosted is None or hosted[0].embedding != hosted[0].hidden or shape.hidden > hosted[0].hidden:
        return weights, "random"
    whole, theirs = hosted
    fits = (
        shape.depth <= whole.depth
        and shape.head_size == whole.head_size
        and max(shape.heads) <= min(whole.heads)
        and max(shape.ffn) <= min(whole.ffn)
    )
    theirs = {name: array for name, array in theirs.items() if not name.startswith("head.")}
    body, mine = whole.model_copy(update={"head": None}), theirs
    if fits:
        choice = Slice(layers=spread(shape.depth, whole.depth), heads=shape.heads, ffn=shape.ffn)
        body, mine = slice_weights(body, theirs, weight_importance(body, theirs), choice)
    if shape.hidden < whole.hidden:
        assert states is not None
        body, mine, _ = project_width(body, mine, states, shape.hidden)
    kept = {name: array for name, array in mine.items() if fits or name.startswith("embeddings.")}
    return weights | kept, "slice" if fits else "embeddings"


def spread(count: int, depth: int) -> tuple[int, ...]:
    """Layers (from 0) evenly spaced from the first to the last: 0, 2, 4, 7, 9, 11 for 6 of 12, as DistilBERT."""
    return tuple(int(i) for i in np.linspace(0, depth - 1, count).round())


def weight_importance(shape: EncoderShape, weights: Weights) -> Importance:
    """Heads by the norms of value times output, neurons by those of up times down: no text is needed."""
    heads, neurons = [], []
    for i in range(shape.depth):
        value, output = (weights[f"layers.{i}.attention.{part}.weight"] for part in ("value", "output"))
        up, down = (weights[f"layers.{i}.ffn.{part}.weight"] for part in ("up", "down"))
        reads = np.linalg.norm(value.reshape(shape.heads[i], -1), axis=1)
        writes = np.linalg.norm(output.T.reshape(shape.heads[i], -1), axis=1)
        heads.append(reads * writes)
        neurons.append(np.linalg.norm(up, axis=1) * np.linalg.norm(down, axis=0))
    return Importance(heads, neurons, np.ones(shape.depth))


def _encode(teacher: Encoder, texts: Sequence[str], max_length: int) -> Encodings:
    tokens = encode_texts(teacher.tokenizer, texts, max_length=max_length)
    return tokens if "token_type_ids" in teacher.inputs else replace(tokens, token_type_ids=None)


def _train(
    engine: Engine,
    teacher: Encoder,
    learn: Encodings,
    judge: Encodings,
    shape: EncoderShape,
    spec: Agnostic,
    work: Path,
) -> dict[str, Any]:
    online = OnlineTeacher.of(teacher)
    engine.to_device(online.model)
    states = None
    if teacher.hosted is not None and shape.hidden < teacher.width:
        order = np.arange(min(_TEXTS, len(learn)))
        states = sample_states(online.model, learn, np.array_split(order, max(1, len(order) // _BATCH)), engine)
    weights, origin = first_encoder(teacher.hosted, shape, states, spec.seed)
    pad = pad_id(teacher.tokenizer)
    model = from_weights(shape, weights, (), pad_token_id=pad)
    objective: Objective
    if isinstance(spec.loss, MlmLogits):
        objective = vocabulary_objective(
            spec.loss, teacher.folder, shape.hidden, spec.seed, torch.device(engine.device)
        )
    else:
        objective = build_objective(
            Stage(loss=spec.loss, training=spec.training),
            rows=None,
            targets=torch.empty(0, dtype=torch.int64),
            student=shape,
            teacher=lambda: online,
            seed=spec.seed,
        )
    for module in (model, objective.module):
        if module is not None:
            engine.to_device(module)
    before = held_out_loss(model, objective, judge, engine)
    trained = train(
        model, learn, objective, lambda m: -held_out_loss(m, objective, judge, engine), spec.training, engine,
        work / "state", f"encoder: {spec.loss.name}", seed=spec.seed, max_steps=spec.max_steps,
    )  # fmt: skip
    save_stock(work, shape, numpy_weights(model), pad)
    teacher.save_tokenizer(work)
    shutil.rmtree(work / "state")
    return {
        "loss": spec.loss.name,
        "first_weights": origin,
        "parameters": shape.parameters(),
        "texts": len(learn),
        "held_out_texts": len(judge),
        "held_out_before": before,
        "held_out_after": -trained.best_score,
        "points": [p | {"score": -p["score"]} for p in trained.points],
        "steps": trained.steps,
        "planned_steps": trained.planned_steps,
        "seconds": trained.seconds,
    }
