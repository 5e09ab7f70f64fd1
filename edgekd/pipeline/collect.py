"""From what the stages returned to the one result that every rendering reads."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from edgekd import __version__
from edgekd.data.demo.generate import DEMO_ENCODER
from edgekd.data.transfer_set import TransferSet
from edgekd.distill.scoring import Judged
from edgekd.inputs.gather import Inputs
from edgekd.latency.interval import Estimate, estimate
from edgekd.latency.measure import Measurement
from edgekd.latency.targets.base import Target
from edgekd.models.identity import card_license
from edgekd.proof.retained import Retained, retained
from edgekd.records.base import record_of
from edgekd.records.result import (
    Contender,
    DataSummary,
    Percentile,
    QualityRow,
    TeacherSummary,
    Timing,
    thin,
)
from edgekd.records.training import Curve, TrainingRun
from edgekd.records.transfer import TransferSummary
from edgekd.runtime.words import joined_spans
from edgekd.settings.request import Request, is_hub_id
from edgekd.settings.target import Precision
from edgekd.store import Artefact
from edgekd.tasks.base import Task

_LIBRARIES = ("torch", "transformers", "onnx", "onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy")


def data_summary(inputs: Inputs, request: Request) -> DataSummary:
    """The data as the report shows them."""
    notes = [*inputs.data.notes, *inputs.transfer.notes]
    if inputs.task.scheme:
        notes += [f"tags are {inputs.tags}", _split_note(inputs)]
    cut = inputs.encodings.truncated
    if cut:
        notes.append(f"{cut} of {len(inputs.encodings)} texts are cut at {inputs.max_length} tokens")
    rows = {split.name: len(split) for split in inputs.data.splits} | {"transfer set": len(inputs.transfer.split)}
    source = Path(str(request.data or request.teacher_outputs)).name
    return DataSummary(
        name="embedded demo" if request.demo else source,
        hub_id=_hub_id(request.data),
        task=inputs.task.spec.name,
        metric=inputs.metric_name,
        labels=len(inputs.task.labels),
        rows=rows,
        notes=tuple(notes),
    )


def _split_note(inputs: Inputs) -> str:
    """How many test texts the bundle splits into other words than they came with."""
    test, split = inputs.test.split, inputs.data.word_split
    other = sum(
        split.spans(text) != joined_spans(words) for text, words in zip(test.texts, test.words or (), strict=True)
    )
    return f"of {len(test)} test texts, {other} as plain text are split into other words than they came with"


def transfer_summary(transfer: TransferSet) -> TransferSummary:
    """The transfer set as the report shows it."""
    policies = Counter(transfer.augmented.policies) if transfer.augmented is not None else {}
    return TransferSummary(counts=transfer.counts, policies=dict(policies), generic=transfer.selection)


def teacher_summary(inputs: Inputs, request: Request) -> TeacherSummary:
    """The teacher as the report shows it."""
    teacher = inputs.teacher
    name = request.teacher if (hub_id := _hub_id(request.teacher)) else teacher.folder.name
    if request.demo or request.encoder:
        # Its folder is the store's, whose names mean nothing.
        name = f"made of {Path(request.encoder).name if request.encoder else DEMO_ENCODER}"
    ffn = "" if teacher.ffn is None else f", FFN {teacher.ffn}"
    return TeacherSummary(
        name=str(name),
        hub_id=hub_id,
        license=card_license(teacher.folder),
        family=str(teacher.model.config.model_type),
        shape=f"{teacher.depth} layers x {teacher.width}, heads {teacher.heads}{ffn}",
        parameters=sum(p.numel() for p in teacher.model.parameters()),
        validation=inputs.validation.score(inputs.task, inputs.validation_rows),
        test=inputs.test.score(inputs.task, inputs.test_rows),
    )


def _hub_id(name: str | None) -> str | None:
    return name if name and is_hub_id(name) and not Path(name).exists() else None


def curves(stages: Sequence[Artefact]) -> list[Curve]:
    """The training curves of a student's stages as the report shows them.

    A stage that is judged by its own held-out loss has no score: that loss is in no unit of the metric's.
    """
    runs = [record_of(stage, TrainingRun) for stage in stages]
    found = []
    for number, run in enumerate(runs, 1):
        scored = run.judged_by == "metric"
        points = run.points if scored else tuple(p.model_copy(update={"score": None}) for p in run.points)
        found.append(Curve(name="student" if len(runs) == 1 else f"stage {number}: {run.loss}", points=points))
    return found


def quality_row(
    name: Contender,
    task: Task,
    judged: Judged,
    rows: np.ndarray,
    reference: np.ndarray,
    *,
    latency: tuple[float, float] | None = None,
    file: Path | None = None,
    shipped: bool = False,
    precision: Precision | None = None,
) -> tuple[QualityRow, Retained]:
    """One line of the quality table, and how it compares with the teacher.

    Args:
        name: Which model.
        rows: The model's logits (rows, labels).
        reference: The teacher's logits.
        latency: Median and 95th percentile in ms.
        shipped: Whether it is the bundle's model.
        precision: Of its file.
    """
    kept = retained(task, judged.counts(task, rows), judged.counts(task, reference))
    row = QualityRow(
        name=name,
        score=kept.student,
        interval=kept.student_interval,
        p50_ms=None if latency is None else latency[0],
        p95_ms=None if latency is None else latency[1],
        size_mb=None if file is None else file.stat().st_size / 1e6,
        shipped=shipped,
        precision=precision,
    )
    return row, kept


def timing(
    found: Measurement,
    texts: str,
    judged: float,
    target: Target,
    known: Mapping[float, Estimate],
) -> Timing:
    """A latency measurement as the report shows it, with the percentile that is judged among the others.

    Args:
        found: The measurement.
        judged: The percentile that is judged.
        target: Where it was measured.
        known: Percentiles that were estimated before: the speed log grows, and one figure is one figure.
    """
    clock, usual = target.clock, target.usual_speed()
    wanted = sorted({50.0, 95.0, 99.0, judged})
    estimates = {q: known.get(q) or estimate(found.rounds, q, clock, usual) for q in wanted}
    waited = found.waited_share
    return Timing(
        texts=texts,
        calls=found.calls,
        percentiles=tuple(
            Percentile(
                q=q,
                value_ms=at.value_ms,
                interval=at.interval,
                service_ms=None if waited is None else found.percentile(q, "service"),
                response_ms=found.percentile(q, "response"),
            )
            for q, at in estimates.items()
        ),
        parts=found.part_percentiles(50),
        load_ms=found.load_ms,
        first_call_ms=found.first_call_ms,
        peak_memory_mb=found.peak_memory_mb,
        clock=clock,
        waited_share=waited,
        slowdown=estimates[judged].slowdown,
        samples_ms=thin(found.samples(clock).tolist()),
    )


def versions() -> dict[str, str]:
    """Versions of this package and of what computes."""
    known = {"edgekd": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            known[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return known
