"""Stage `export_onnx`: a trained model as ONNX, proven equal, and INT8 only where accuracy survives."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from edgekd.distill.batches import fingerprint
from edgekd.distill.engine import Engine
from edgekd.distill.predict import predict_rows
from edgekd.distill.scoring import Judged
from edgekd.errors import EdgekdError
from edgekd.export.choice import GraphTarget, choose_graph
from edgekd.export.guard import Guard, agreement, calibration_batches
from edgekd.graph.foreign import export_foreign
from edgekd.graph.halve import halve
from edgekd.graph.parity import compare_logits, load_session
from edgekd.graph.quantize import QUANTIZER_VERSION
from edgekd.graph.variants import OPTIMISER_LEVELS, fused_nodes, optimise, writer_variants
from edgekd.graph.writer import WRITER_VERSION, save_model, write_student
from edgekd.models.families import Hosted
from edgekd.models.student import from_weights
from edgekd.models.teacher import Teacher
from edgekd.progress import Progress
from edgekd.records.base import record_of
from edgekd.records.export import Exported, Form, Half, Parity
from edgekd.runtime.encodings import MASKED, Encodings, joined_logits
from edgekd.settings.export import Export, GraphOptions
from edgekd.settings.target import Precision
from edgekd.store import Artefact, Store
from edgekd.tasks.base import Task

VERSION = 2
CHOICE_VERSION = 2

# Texts of validation on which the graph is proven equal to PyTorch.
_PARITY_TEXTS = 256

# Name of a graph that has no other form.
GIVEN = "given"

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
            pieces.append(encodings.rows_of(joined_logits(session.run(None, feeds)), indices))
            if i % 50 == 0:
                bar.update(i)
    rows = np.concatenate(pieces)
    ordered = np.empty_like(rows)
    ordered[np.concatenate([encodings.row_slots(b) for b in batches])] = rows
    return ordered


@dataclass(frozen=True)
class ExportJob:
    """Which files are made, and how they are judged.

    Attributes:
        options: Of the graph and its INT8 file.
        quantize: Instruction set of the INT8 file; None makes none.
        max_drop: Points of the metric that INT8 may cost.
        batch_size: Texts a call when serving.
        texts: The transfer set, on which ranges of activations are found.
        place: Where forms of the graph are measured.
        fp16: Whether a file for GPUs is made too.
    """

    options: Export
    quantize: str | None
    max_drop: float
    batch_size: int
    texts: Encodings
    place: GraphTarget
    fp16: bool = False

    def key(self, validation: Judged) -> dict[str, Any]:
        """What decides the files beside the model; what is as usual, and came later, adds nothing."""
        key: dict[str, Any] = {
            "quantize": self.quantize,
            "quantizer": QUANTIZER_VERSION,
            "max_drop": self.max_drop,
            "batch_size": self.batch_size,
            "validation": fingerprint(validation.encodings),
        }
        if self.fp16:
            key["fp16"] = True
        if self.fp16 or (self.quantize is not None and self.options.int8 == "static"):
            key["texts"] = fingerprint(self.texts)
        return key


def export_student(
    store: Store, engine: Engine, hosted: Hosted, model_id: str, task: Task, validation: Judged, wanted: ExportJob
) -> Artefact:
    """Write a student (or a hosted teacher) with the product's own writer, prove it, and quantise it under guard.

    Args:
        hosted: Shape and weights.
        model_id: Identity of the weights.
        validation: The split that decides whether INT8 is kept.
        wanted: The files.

    Returns:
        `model.onnx` (FP32) and, if asked for, `model_quantized.onnx` and `model_fp16.onnx`; see `exported_of`.
    """
    shape, weights = hosted

    def write(folder: Path) -> dict[str, Path]:
        measured = wanted.options.choose == "measured"
        forms = writer_variants(wanted.options.graph) if measured else {GIVEN: wanted.options.graph}
        files = {name: folder / f"{i}.onnx" for i, name in enumerate(forms)}
        for name, options in forms.items():
            save_model(write_student(shape, weights, options), files[name])
        return files

    subject = _Subject(
        write,
        lambda: from_weights(shape, weights, task.labels, dropout=0.0),
        shape.vocabulary,
        task,
        validation,
        wanted,
    )
    key = {
        "model": model_id,
        "options": wanted.options.model_dump(),
        "writer": WRITER_VERSION,
        **wanted.key(validation),
    }
    return subject.export(store, engine, key)


def export_teacher(
    store: Store, engine: Engine, teacher: Teacher, teacher_id: str, task: Task, validation: Judged, wanted: ExportJob
) -> Artefact:
    """Write the unchanged teacher: with the product's writer where it is BERT-like, through torch.onnx elsewhere."""
    if teacher.hosted is not None:
        return export_student(store, engine, teacher.hosted, teacher_id, task, validation, wanted)

    def write(folder: Path) -> dict[str, Path]:
        path = folder / "given.onnx"
        export_foreign(teacher.model, teacher.inputs, path)
        return {GIVEN: path}

    words = int(teacher.model.config.vocab_size)
    subject = _Subject(write, lambda: teacher.model, words, task, validation, wanted)
    key = {"foreign": teacher_id, **wanted.key(validation)}
    other = {k: v for k, v in wanted.options.model_dump().items() if k not in GraphOptions.model_fields}
    if other:
        key["options"] = other
    return subject.export(store, engine, key)


def model_file(artefact: Artefact, precision: Precision) -> Path:
    """The exported file of a precision."""
    return artefact.path / ("model_quantized.onnx" if precision == "int8" else "model.onnx")


def exported_of(artefact: Artefact) -> Exported:
    """What is known of the files."""
    return record_of(artefact, Exported)


def _prove(path: Path, encodings: Encodings, model: nn.Module, engine: Engine) -> Parity:
    """Compare the graph with PyTorch on the first texts."""
    few = _first(encodings)
    reference = predict_rows(model, few, engine)
    parity = compare_logits(reference, onnx_rows(path, few, batch_size=8))
    limit = _limit(reference)
    if parity.max_abs_gap > limit:
        raise EdgekdError(
            f"the exported graph differs from PyTorch by {parity.max_abs_gap:.2g} (at most {limit:.2g} allowed): "
            "please report this model's architecture"
        )
    return parity


def _first(encodings: Encodings) -> Encodings:
    """The texts on which files are compared."""
    return encodings.take(np.arange(min(_PARITY_TEXTS, len(encodings))))


def _limit(reference: np.ndarray) -> float:
    """Largest gap of logits that are the same: those of thousands differ more than those of one by rounding alone."""
    return _MAX_GAP * max(1.0, float(np.abs(reference[reference > MASKED]).max()))


@dataclass(frozen=True)
class _Subject:
    """A model on its way to files.

    Attributes:
        write: Writes the forms of its FP32 graph into a folder, the given one first; files by name.
        model: The same in PyTorch.
        vocabulary: Rows of its embedding.
        validation: The split that decides whether INT8 is kept.
        wanted: The files.
    """

    write: Callable[[Path], dict[str, Path]]
    model: Callable[[], nn.Module]
    vocabulary: int
    task: Task
    validation: Judged
    wanted: ExportJob

    def export(self, store: Store, engine: Engine, key: dict[str, Any]) -> Artefact:
        """Choose the forms where asked to, then make the files of `key`."""
        forms: tuple[Form, ...] = ()
        if self.wanted.options.choose == "measured":
            forms = self._measured(store, key, engine.progress)
            # The files follow from what was chosen, not from the timings: another measurement may choose the same.
            key = key | {"forms": [form.name for form in forms if form.chosen]}

        def build(work: Path) -> dict[str, Any]:
            with tempfile.TemporaryDirectory(prefix="edgekd-export-") as folder:
                return self._files(work, self.write(Path(folder)), forms, engine).model_dump(mode="json")

        return store.make("export", VERSION, key, build)

    def _measured(self, store: Store, key: dict[str, Any], progress: Progress) -> tuple[Form, ...]:
        """The forms on the target, the fastest of each precision chosen."""
        place = self.wanted.place

        def build(_: Path) -> dict[str, Any]:
            with tempfile.TemporaryDirectory(prefix="edgekd-export-") as folder:
                files = self.write(Path(folder))
                found = _fastest(files, self.vocabulary, self.validation, self.wanted, progress)
                guard = _guard(self.wanted, self.task, self.validation, progress)
                if guard is not None and len(files) > 1:
                    found += _fastest_int8(files, self.vocabulary, guard, self.wanted)
                return {"forms": [form.model_dump(mode="json") for form in found]}

        where = {"machine": place.machine, "length": place.length}
        made = store.make("choose_graph", CHOICE_VERSION, key | where, build).result
        return tuple(Form.model_validate(form) for form in made["forms"])

    def _files(self, work: Path, files: dict[str, Path], forms: tuple[Form, ...], engine: Engine) -> Exported:
        """Prove the given form, and write the chosen ones in each precision."""
        guard = _guard(self.wanted, self.task, self.validation, engine.progress)
        given = next(iter(files.values()))
        chosen = {form.precision: form.name for form in forms if form.chosen}
        parity = _prove(given, self.validation.encodings, self.model(), engine)
        shutil.copyfile(_form(chosen.get("fp32"), files), work / "model.onnx")
        int8 = half = None
        if guard is not None:
            int8 = guard.guarded(_form(chosen.get("int8"), files), work / "model_quantized.onnx")
        if self.wanted.fp16:
            path = work / "model_fp16.onnx"
            half = _halved(given, path, self.task, self.validation, self.wanted, engine.progress)
        fused = {path.name: fused_nodes(path) for path in sorted(work.glob("*.onnx"))}
        return Exported(parity=parity, quantisation=int8, half=half, forms=forms, fused=fused)


def _guard(wanted: ExportJob, task: Task, validation: Judged, progress: Progress) -> Guard | None:
    if wanted.quantize is None:
        return None

    def answers(path: Path, encodings: Encodings, title: str) -> np.ndarray:
        return onnx_rows(path, encodings, wanted.batch_size, progress if title else None, title)

    return Guard(
        task, validation, wanted.quantize, wanted.max_drop, wanted.options, wanted.texts, answers, progress
    )  # fmt: skip


def _form(name: str | None, files: dict[str, Path]) -> Path:
    """The file of a form, the given one for None; the optimiser's are made from the one that it fuses best."""
    given = next(iter(files.values()))
    if name is None or name in files:
        return files.get(name or "", given)
    level = next(level for level in OPTIMISER_LEVELS if name == _optimised(level))
    path = given.with_name(f"optimised{level}.onnx")
    # Its fusions look for Add nodes.
    source = next((path for form, path in files.items() if form.endswith("Add")), given)
    optimise(source, path, level)
    return path


def _optimised(level: int) -> str:
    return f"onnxruntime's transformer optimiser, level {level}"


def _fastest(
    files: dict[str, Path], vocabulary: int, validation: Judged, wanted: ExportJob, progress: Progress
) -> tuple[Form, ...]:
    """The fastest FP32 file, those of onnxruntime's transformer optimiser among the rivals."""
    few, forms = _first(validation.encodings), dict(files)
    reference = onnx_rows(next(iter(files.values())), few, batch_size=8)
    for level in OPTIMISER_LEVELS:
        try:
            forms[_optimised(level)] = _form(_optimised(level), files)
        except EdgekdError as error:  # a rival that fails is none
            progress.say(str(error))
    return choose_graph(
        forms, "fp32", wanted.place, vocabulary,
        lambda path: compare_logits(reference, onnx_rows(path, few, batch_size=8)), _limit(reference), progress,
        "export: measure the forms of the graph",
    )  # fmt: skip


def _fastest_int8(files: dict[str, Path], vocabulary: int, guard: Guard, wanted: ExportJob) -> tuple[Form, ...]:
    """The FP32 form whose INT8 file is the fastest; the guard judges its answers afterwards."""
    forms = {}
    for name, path in files.items():
        forms[name] = path.with_suffix(".int8.onnx")
        guard.quantizer(path)(forms[name], ())
    title = "export: measure the forms of the INT8 graph"
    return choose_graph(forms, "int8", wanted.place, vocabulary, None, 0.0, guard.progress, title)


def _halved(
    source: Path, destination: Path, task: Task, validation: Judged, wanted: ExportJob, progress: Progress
) -> Half:
    """Make the FP16 file and compare its answers, computed here, with those of FP32."""
    count = wanted.options.calibration_texts
    made = halve(source, destination, calibration_batches(wanted.texts, count, progress))
    few = _first(validation.encodings)
    exact, halved = onnx_rows(source, few, batch_size=8), onnx_rows(destination, few, batch_size=8)
    gap = compare_logits(exact, halved).max_abs_gap
    return Half(
        max_abs_gap=gap, agreement=agreement(task, exact, halved), masks=tuple(made.masks), kept=tuple(made.kept)
    )
