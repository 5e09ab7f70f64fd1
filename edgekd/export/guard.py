"""INT8 under guard: made, judged on validation, repaired where a few nodes are to blame, refused where that fails."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.distill.scoring import Judged
from edgekd.errors import EdgekdError
from edgekd.graph.calibrate import activation_ranges
from edgekd.graph.quantize import quantizable, quantize_dynamic, quantize_static, reduces_range
from edgekd.graph.sensitivity import find_repair, most_evaluations
from edgekd.latency.machine import detect_instruction_set
from edgekd.progress import Progress
from edgekd.records.export import Quantisation
from edgekd.runtime.encodings import Encodings
from edgekd.settings.export import Export
from edgekd.tasks.base import Task

Answers = Callable[[Path, Encodings, str], np.ndarray]
"""Logit rows (rows, labels) of an ONNX file on texts, shown as a step of this title unless it is empty."""

Quantizer = Callable[[Path, Sequence[str]], None]
"""Writes the INT8 file to a path, with these nodes left in FP32."""

# Texts of validation on which the error of one node alone is taken: a mean of squares settles soon.
_SENSITIVITY_TEXTS = 128

# Texts a batch of the calibration.
_CALIBRATION_BATCH = 8


@dataclass(frozen=True)
class Guard:
    """What decides whether an INT8 file may be deployed.

    Attributes:
        validation: The split that decides.
        instruction_set: Of the target.
        max_drop: Points of the metric that INT8 may cost.
        options: How it is made.
        texts: The transfer set: static INT8 is calibrated on some of it.
        answers: Runs a file as it will be served.
    """

    task: Task
    validation: Judged
    instruction_set: str
    max_drop: float
    options: Export
    texts: Encodings
    answers: Answers
    progress: Progress

    def quantizer(self, source: Path) -> Quantizer:
        """How this source is quantised; a static one is calibrated now, once for all that follows."""
        options: dict[str, Any] = {
            "instruction_set": self.instruction_set,
            "per_channel": self.options.per_channel,
        }
        if self.options.int8 == "dynamic":
            return lambda path, kept: quantize_dynamic(source, path, keep_float=kept, **options)
        batches = calibration_batches(self.texts, self.options.calibration_texts, self.progress)
        ranges = activation_ranges(source, batches, self.options.calibration)
        return lambda path, kept: quantize_static(source, path, ranges=ranges, keep_float=kept, **options)

    def guarded(self, source: Path, destination: Path) -> Quantisation:
        """Write the INT8 file of a source, the repaired one where that saves it, and say what it costs."""
        quantize = self.quantizer(source)
        quantize(destination, ())
        exact = self.answers(source, self.validation.encodings, "export: validate FP32")
        quantised = self.answers(destination, self.validation.encodings, "export: validate INT8")
        before = self._drop(exact, quantised)
        kept: tuple[str, ...] = ()
        if before > self.max_drop + 1e-9:
            kept = self._repair(source, quantize, exact)
        if kept:
            quantize(destination, kept)
            quantised = self.answers(destination, self.validation.encodings, "export: validate repaired INT8")
        drop = self._drop(exact, quantised)
        narrow = reduces_range(self.instruction_set)
        found = Quantisation(
            kept=bool(drop <= self.max_drop + 1e-9),
            drop_points=drop,
            limit_points=self.max_drop,
            reason="",
            method=self.options.int8,
            agreement=agreement(self.task, exact, quantised),
            kept_float=kept,
            drop_before=before,
            reduce_range=narrow,
            # A machine that saturates, judging a file for one that does not.
            saturated=not narrow and reduces_range(detect_instruction_set()),
            instruction_set=self.instruction_set,
            fp32=self.validation.score(self.task, exact),
            int8=self.validation.score(self.task, quantised),
        )
        return found.model_copy(update={"reason": _reason(found)})

    def _drop(self, exact: np.ndarray, quantised: np.ndarray) -> float:
        """Points of the metric lost."""
        return 100 * (self.validation.score(self.task, exact) - self.validation.score(self.task, quantised))

    def _repair(self, source: Path, quantize: Quantizer, exact: np.ndarray) -> tuple[str, ...]:
        """The nodes to leave in FP32, none where no few of them save the file."""
        nodes = quantizable(source)
        few = self.validation.encodings.take(np.arange(min(_SENSITIVITY_TEXTS, len(self.validation.encodings))))
        reference = exact[: few.rows[-1]]
        with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
            trial = Path(folder, "trial.onnx")

            def error(node: str) -> float:
                quantize(trial, [other for other in nodes if other != node])
                return float(np.square(self.answers(trial, few, "") - reference).mean())

            def drop(kept: Sequence[str]) -> float:
                quantize(trial, kept)
                return self._drop(exact, self.answers(trial, self.validation.encodings, ""))

            title = "export: INT8 costs too much, look for the nodes to blame"
            with self.progress.bar(title, most_evaluations(nodes)) as bar:
                found = find_repair(nodes, error, drop, self.max_drop, bar)
        return found.kept if found.repaired else ()


def calibration_batches(texts: Encodings, count: int, progress: Progress) -> Iterator[dict[str, np.ndarray]]:
    """Some of the texts, the same at every call, as batches of like length.

    Args:
        count: Texts at most.

    Raises:
        EdgekdError: There is no text.
    """
    if not len(texts):
        raise EdgekdError("no text to calibrate INT8 on: give texts, or set `export.int8: dynamic`")
    drawn = np.random.default_rng(0).permutation(len(texts))[:count]
    ordered = drawn[np.argsort(texts.lengths[drawn], kind="stable")]
    starts = range(0, len(ordered), _CALIBRATION_BATCH)
    with progress.bar("export: calibrate on the transfer set", len(starts)) as bar:
        for i, start in enumerate(starts):
            yield texts.batch(ordered[start : start + _CALIBRATION_BATCH], pad_to_multiple=1)
            bar.update(i + 1)


def agreement(task: Task, exact: np.ndarray, other: np.ndarray) -> float:
    """Share of the answers that are the same; values, which never are quite, count by their rank correlation."""
    if task.output == "value":
        return task.score(np.concatenate([exact, other], axis=1))
    return float(np.mean(task.decide(exact) == task.decide(other)))


def _reason(found: Quantisation) -> str:
    """Why an INT8 file is kept or refused, in a sentence or more."""
    verb, drop, share = "kept" if found.kept else "refused", found.drop_points, found.agreement
    said = [
        f"{found.method} INT8 {verb}: {drop:+.2f} points lost on validation (at most {found.limit_points:g}), "
        f"{100 * (share or 0.0):.1f}% of the answers the same"
    ]
    if found.kept_float:
        said.append(f"{found.drop_before:+.2f} points before {', '.join(found.kept_float)} stayed in FP32")
    elif not found.kept:
        said.append("no few nodes are to blame")
    if found.reduce_range:
        said.append(f"weights have 7 bits, since {found.instruction_set} saturates at 8")
    if found.saturated:
        said.append(
            f"judged on a machine that saturates, unlike the target ({found.instruction_set}): answers there differ"
        )
    return "; ".join(said)
