"""Stage `export_onnx`: a trained model as ONNX, proven equal, and INT8 only where accuracy survives."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from edgekd.distill.batches import fingerprint
from edgekd.distill.engine import Engine
from edgekd.distill.predict import predict_rows
from edgekd.distill.scoring import Judged
from edgekd.errors import EdgekdError
from edgekd.graph.foreign import export_foreign
from edgekd.graph.parity import Parity, compare_logits, load_session
from edgekd.graph.quantize import QUANTIZER_VERSION, quantize_dynamic
from edgekd.graph.spec import GraphOptions
from edgekd.graph.writer import WRITER_VERSION, save_model, write_student
from edgekd.models.families import Hosted
from edgekd.models.student import from_weights
from edgekd.models.teacher import Teacher
from edgekd.progress import Progress
from edgekd.runtime.tokenise import Encodings
from edgekd.store import Artefact, Store
from edgekd.targets.spec import Precision
from edgekd.tasks.base import Task

VERSION = 1

# Texts of validation on which the graph is proven equal to PyTorch.
_PARITY_TEXTS = 256

# FP32 must be the same function: beyond this the graph is wrong, not imprecise.
_MAX_GAP = 1e-3


def onnx_rows(
    model: Path, encodings: Encodings, batch_size: int = 1, progress: Progress | None = None, title: str = ""
) -> np.ndarray:
    """Logit rows (rows, labels) of an ONNX file, run as it will be served.

    Dynamic INT8 scales activations by the batch, so answers are judged at the batch size of the workload; texts of a
    batch are of like length, and a batch of one has no padding.
    """
    session = load_session(model)
    names = {node.name for node in session.get_inputs()}
    order = np.argsort(encodings.lengths, kind="stable")
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    pieces = []
    with (progress or Progress()).bar(title, len(batches)) as bar:
        for i, indices in enumerate(batches):
            feeds = {k: v for k, v in encodings.batch(indices, pad_to_multiple=1).items() if k in names}
            pieces.append(encodings.rows_of(session.run(["logits"], feeds)[0], indices))
            if i % 50 == 0:
                bar.update(i)
    rows = np.concatenate(pieces)
    ordered = np.empty_like(rows)
    ordered[np.concatenate([encodings.row_slots(b) for b in batches])] = rows
    return ordered


def export_student(
    store: Store,
    engine: Engine,
    hosted: Hosted,
    model_id: str,
    task: Task,
    validation: Judged,
    options: GraphOptions,
    *,
    quantize: str | None,
    max_drop: float,
    batch_size: int,
) -> Artefact:
    """Write a student (or a hosted teacher) with the product's own writer, prove it, and quantise it under guard.

    Args:
        store: Where the files are kept.
        engine: Where PyTorch computes.
        hosted: Shape and weights.
        model_id: Identity of the weights.
        task: The task.
        validation: The split that decides whether INT8 is kept.
        options: Of the writer.
        quantize: Instruction set of the INT8 file; None makes none.
        max_drop: Points of the metric that INT8 may cost.
        batch_size: Texts a call when serving.

    Returns:
        `model.onnx` (FP32) and, if asked for, `model_quantized.onnx`; the result holds parity and the guard.
    """

    def build(work: Path) -> dict[str, Any]:
        shape, weights = hosted
        path = work / "model.onnx"
        save_model(write_student(shape, weights, options), path)
        model = from_weights(shape, weights, task.labels, dropout=0.0)
        parity = _prove(path, validation.encodings, model, engine)
        return {"parity": asdict(parity)} | _quantised(work, task, validation, quantize, max_drop, batch_size, engine)

    key = {
        "model": model_id,
        "options": options.model_dump(),
        "writer": WRITER_VERSION,
        **_guard_key(validation, quantize, max_drop, batch_size),
    }
    return store.make("export", VERSION, key, build)


def export_teacher(
    store: Store,
    engine: Engine,
    teacher: Teacher,
    teacher_id: str,
    task: Task,
    validation: Judged,
    options: GraphOptions,
    *,
    quantize: str | None,
    max_drop: float,
    batch_size: int,
) -> Artefact:
    """Write the unchanged teacher: with the product's writer where it is BERT-like, through torch.onnx elsewhere."""
    if teacher.hosted is not None:
        return export_student(
            store, engine, teacher.hosted, teacher_id, task, validation, options,
            quantize=quantize, max_drop=max_drop, batch_size=batch_size,
        )  # fmt: skip

    def build(work: Path) -> dict[str, Any]:
        path = work / "model.onnx"
        export_foreign(teacher.model, teacher.inputs, path)
        parity = _prove(path, validation.encodings, teacher.model, engine)
        return {"parity": asdict(parity)} | _quantised(work, task, validation, quantize, max_drop, batch_size, engine)

    key = {"foreign": teacher_id, **_guard_key(validation, quantize, max_drop, batch_size)}
    return store.make("export", VERSION, key, build)


def model_file(artefact: Artefact, precision: Precision) -> Path:
    """The exported file of a precision."""
    return artefact.path / ("model_quantized.onnx" if precision == "int8" else "model.onnx")


def _guard_key(validation: Judged, quantize: str | None, max_drop: float, batch_size: int) -> dict[str, Any]:
    return {
        "quantize": quantize,
        "quantizer": QUANTIZER_VERSION,
        "max_drop": max_drop,
        "batch_size": batch_size,
        "validation": fingerprint(validation.encodings),
    }


def _prove(path: Path, encodings: Encodings, model: nn.Module, engine: Engine) -> Parity:
    """Compare the graph with PyTorch on the first texts."""
    few = encodings.take(np.arange(min(_PARITY_TEXTS, len(encodings))))
    reference = predict_rows(model, few, engine)
    parity = compare_logits(reference, onnx_rows(path, few, batch_size=8))
    # Logits of thousands differ more than logits of one by rounding alone.
    limit = _MAX_GAP * max(1.0, float(np.abs(reference).max()))
    if parity.max_abs_gap > limit:
        raise EdgekdError(
            f"the exported graph differs from PyTorch by {parity.max_abs_gap:.2g} (at most {limit:.2g} allowed): "
            "please report this model's architecture"
        )
    return parity


def _quantised(
    work: Path,
    task: Task,
    validation: Judged,
    quantize: str | None,
    max_drop: float,
    batch_size: int,
    engine: Engine,
) -> dict[str, Any]:
    """Make the INT8 file and judge it against FP32 on validation."""
    if quantize is None:
        return {"int8": None}
    quantize_dynamic(work / "model.onnx", work / "model_quantized.onnx", instruction_set=quantize)
    rows = {
        name: onnx_rows(work / name, validation.encodings, batch_size, engine.progress, f"export: validate {name}")
        for name in ("model.onnx", "model_quantized.onnx")
    }
    exact, quantised = (validation.score(task, rows[name]) for name in rows)
    drop = 100 * (exact - quantised)
    return {
        "int8": {
            "instruction_set": quantize,
            "fp32": exact,
            "int8": quantised,
            "drop": drop,
            "limit": max_drop,
            "agreement": _agreement(task, *rows.values()),
            "kept": bool(drop <= max_drop + 1e-9),
        }
    }


def _agreement(task: Task, exact: np.ndarray, quantised: np.ndarray) -> float:
    """Share of the answers that are the same; values, which never are quite, count by their rank correlation."""
    if task.output == "value":
        return task.score(np.concatenate([exact, quantised], axis=1))
    return float(np.mean(task.decide(exact) == task.decide(quantised)))
