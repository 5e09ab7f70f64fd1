"""The quality table: the teacher, what is shipped, and what it must be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.assistants.chain import Chain, lengthened, training_flops
from edgekd.distill.batches import fingerprint
from edgekd.distill.label import logits_of
from edgekd.distill.predict import predict_rows
from edgekd.distill.student import Start, distill, load_student
from edgekd.export.stage import model_file, onnx_rows
from edgekd.pipeline import collect
from edgekd.pipeline.attempt import LONGER, Attempt
from edgekd.pipeline.blackbox import outputs_row
from edgekd.pipeline.demo import demo_tfidf
from edgekd.plan.planner import Planner
from edgekd.proof.retained import Retained, retained
from edgekd.records.result import Contender, QualityRow, Timing
from edgekd.runtime.encodings import Encodings
from edgekd.runtime.tokenise import encode_raw
from edgekd.runtime.words import joined_spans
from edgekd.session import Session
from edgekd.settings.distill import Stage
from edgekd.settings.losses import HardCE
from edgekd.settings.request import Request
from edgekd.settings.target import Precision
from edgekd.store import Artefact
from edgekd.tasks.base import TaggingTask

ANSWERS_VERSION = 1

# The student before training, by how it was made.
_UNTRAINED: Mapping[str, Contender] = {
    "slice": "student after slicing, untrained",
    "random": "student from random weights, untrained",
    "checkpoint": "student from a checkpoint, untrained",
}


def quality_rows(
    session: Session, request: Request, planner: Planner, final: Attempt, with_baselines: bool
) -> list[QualityRow]:
    """The quality table: the teacher, what is shipped, and what it must be compared with."""
    compared = baselines(planner, final) if with_baselines else []
    rows = [*teacher_rows(planner, final), *outputs_row(planner.inputs), *compared, *final.rows]
    if request.demo:
        rows.append(QualityRow(name="TF-IDF + logistic regression", score=demo_tfidf(session.store)))
    return rows


def baselines(planner: Planner, attempt: Attempt) -> list[QualityRow]:
    """What a student must be compared with: the same first weights fine-tuned without the teacher, and untrained."""
    if attempt.start is None:
        return []
    planner = planner.of_student
    inputs, engine, rows = planner.inputs, planner.session.engine, []
    if inputs.transfer.labelled is not None:
        spec = inputs.profile.distill
        last = spec.stages[-1]
        stage = Stage(loss=HardCE(), data="labelled", training=last.training, max_steps=last.max_steps)
        (tuned,) = distill(
            planner.session.store, engine, attempt.start, inputs.task, inputs.lesson(),
            spec.model_copy(update={"stages": (stage,)}), "baseline: fine-tune without distillation",
        )  # fmt: skip
        logits = predict_rows(load_student(tuned.path), inputs.test.encodings, engine)
        rows.append(table_row("student, fine-tuned without distillation", planner, logits)[0])
    if attempt.chain is not None and attempt.chain.taken:
        direct = _without_assistants(planner, attempt, attempt.start, attempt.chain)
        logits = predict_rows(load_student(direct.path), inputs.test.encodings, engine)
        rows.append(table_row("student, no assistant at the same compute", planner, logits)[0])
    untrained = predict_rows(attempt.start.model(), inputs.test.encodings, engine)
    rows.append(table_row(_UNTRAINED[inputs.profile.distill.init.name], planner, untrained)[0])
    return rows


def _without_assistants(planner: Planner, attempt: Attempt, start: Start, chain: Chain) -> Artefact:
    """The student taught by the teacher itself, for as many floating-point operations as the whole chain took."""
    inputs, spec = planner.inputs, planner.inputs.profile.distill
    spec = lengthened(spec, LONGER) if attempt.longer else spec
    # The last stage alone is stretched, so its own cost is what the chain's is a multiple of.
    last = spec.model_copy(update={"stages": spec.stages[-1:]})
    own = training_flops(inputs, last, start.shape, attempt.stages[-1:])
    longer = lengthened(spec, 1 + sum(chain.found.flops.values() if chain.found else ()) / own)
    return distill(
        planner.session.store, planner.session.engine, start, inputs.task, inputs.lesson(), longer,
        "baseline: no assistant at the same compute",
    )[-1]  # fmt: skip


def teacher_rows(planner: Planner, final: Attempt) -> list[QualityRow]:
    """The teacher's lines of the quality table: as it is, and quantised."""
    inputs, latency = planner.inputs, planner.latency
    rows = []
    for precision in planner.precisions:
        exact = precision == "fp32"
        logits = inputs.test_rows if exact else answers(planner, planner.exported, precision)
        row, _ = table_row(
            "teacher" if exact else f"teacher, {precision.upper()}",
            planner,
            logits,
            latency=None if latency.predicted else (latency.median_ms[precision], latency.p95_ms[precision]),
            file=model_file(planner.exported, precision),
            shipped=final.student is None and final.precision == precision,
            precision=precision,
        )
        rows.append(row)
    return rows


def student_rows(
    planner: Planner, exported: Artefact, shipped: Precision, timing: Timing | None
) -> tuple[list[QualityRow], Retained]:
    """The shipped student's lines, one a precision, and how much of the teacher the shipped one keeps."""
    rows, quality = [], None
    for precision in planner.precisions:
        mine = precision == shipped
        known = {p.q: p.value_ms for p in timing.percentiles} if timing is not None and mine else None
        row, kept = table_row(
            f"student {precision.upper()}",
            planner,
            answers(planner, exported, precision),
            latency=None if known is None else (known[50.0], known[95.0]),
            file=model_file(exported, precision),
            shipped=mine,
            precision=precision,
        )
        rows.append(row)
        quality = kept if mine else quality
    assert quality is not None
    return rows, quality


def kept_on_plain_text(planner: Planner, exported: Artefact, precision: Precision) -> Retained | None:
    """How much of the teacher's metric on words is kept on plain text, which the bundle splits into words itself.

    None where no words are answered, or where the test texts are split into the very words that they had.
    """
    inputs, task = planner.inputs, planner.inputs.task
    test, words = inputs.test, inputs.test.split.words
    if not isinstance(task, TaggingTask) or words is None:
        return None
    there = [joined_spans(text) for text in words]
    here = [inputs.data.word_split.spans(text) for text in test.split.texts]
    if here == there:
        return None
    encodings, here = encode_raw(
        inputs.reader.tokenizer, test.split.texts, lambda _, part: inputs.data.word_split.spans(part), inputs.max_length
    )
    encodings = encodings.with_whole_rows() if task.head == "joint" else encodings
    said = task.answers(task.decide(answers(planner, exported, precision, encodings)), encodings)
    counts = task.counts_in_text(test.gold, there, said, here)
    return retained(task, counts, test.counts(task, inputs.test_rows))


def shipped_answers(planner: Planner, attempt: Attempt) -> np.ndarray:
    """Logit rows (rows, labels) of the bundle's model on test, as it answers here."""
    return answers(planner, attempt.exported, attempt.precision)


def answers(
    planner: Planner, exported: Artefact, precision: Precision, encodings: Encodings | None = None
) -> np.ndarray:
    """An exported file's logits on test, as it will be served; kept, since they cost a minute on a large test set.

    Args:
        encodings: Of the test texts, if others than with the words that they came with.
    """
    encodings = planner.inputs.test.encodings if encodings is None else encodings
    batch_size = planner.inputs.profile.workload.batch_size
    key: dict[str, Any] = {
        "model": exported.id,
        "precision": precision,
        "texts": fingerprint(encodings),
        "batch_size": batch_size,
        "machine": planner.device.fingerprint,
    }

    def build(folder: Path) -> None:
        rows = onnx_rows(
            model_file(exported, precision), encodings, batch_size, planner.progress,
            f"validate: answers on test, {precision.upper()}",
        )  # fmt: skip
        np.save(folder / "logits.npy", rows, allow_pickle=False)

    return logits_of(planner.session.store.make("answers", ANSWERS_VERSION, key, build))


def table_row(name: Any, planner: Planner, logits: np.ndarray, **columns: Any) -> tuple[QualityRow, Retained]:
    """A model's line, by its logits on test, and how it compares with the teacher; see `quality_row`."""
    inputs = planner.inputs
    return collect.quality_row(name, inputs.task, inputs.test, logits, inputs.test_rows, **columns)
