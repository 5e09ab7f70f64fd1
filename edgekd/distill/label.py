"""Stage `label`: the teacher's logits on every text that a student will see, computed once and shared by all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import numpy as np

from edgekd.distill.batches import fingerprint
from edgekd.distill.engine import Engine
from edgekd.distill.predict import predict_rows
from edgekd.models.teacher import Teacher
from edgekd.runtime.encodings import Encodings
from edgekd.store import Artefact, Store

VERSION = 1


def label(
    store: Store,
    engine: Engine,
    teacher: Teacher,
    teacher_id: str,
    encodings: Encodings,
    name: str,
    who: str = "teacher",
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Artefact:
    """Compute and keep the teacher's logits of a split.

    Args:
        store: Where they are kept.
        encodings: The texts, (rows) logit rows in all.
        name: The split's name, for the progress bar.
        who: What the teacher is called there.
        precision: Of its products. What a student learns of may be the faster one: on clinc150 the logits then differ
            by 0.01 of their spread of 2.6, and no answer of 1,280 did. What is judged by is FP32.

    Returns:
        An artefact with `logits.npy`: float32 (rows, labels).
    """
    key = {"teacher": teacher_id, "texts": fingerprint(encodings)}
    if precision != "fp32":
        key["precision"] = precision

    def build(work: Path) -> None:
        parts = work / "parts"
        parts.mkdir(exist_ok=True)
        rows = predict_rows(
            teacher.model,
            encodings,
            engine,
            title=f"{who}: label {len(encodings)} {name} texts",
            parts=parts,
            precision=precision,
        )
        np.save(work / "logits.npy", rows, allow_pickle=False)
        shutil.rmtree(parts)

    return store.make("label", VERSION, key, build)


def logits_of(artefact: Artefact) -> np.ndarray:
    """Read a labelled split: float32 (rows, labels)."""
    rows: np.ndarray = np.load(artefact.path / "logits.npy", allow_pickle=False)
    return rows
