"""The verify kit: a bundle proved on a device that is elsewhere, and the verdict on what the device sent back.

The kit holds the user's test texts and goes where the user takes it; the bundle keeps only what their answers are
compared with (`verify.json`: right answers and the teacher's counts, no text), under the bundle's own checksums.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import UsageError
from edgekd.latency.clocks import judged_clock
from edgekd.latency.judge import LOOKS_SECONDS, judge
from edgekd.latency.measure import REPORTED_SECONDS, Measurement
from edgekd.latency.timer import Text
from edgekd.proof.criteria import latency_criterion, memory_criterion, quality_criterion, size_criterion
from edgekd.proof.retained import Retained, retained
from edgekd.proof.validate import CheckOptions, Validation, open_bundle
from edgekd.reading import read_json
from edgekd.records.base import read_record
from edgekd.records.result import EXIT_CODES, Criterion, overall
from edgekd.records.verdict import Verdict
from edgekd.remote.kit import read_sealed
from edgekd.remote.pack import MEASURING, oldest_runtime, pack
from edgekd.resources import ANSWERING
from edgekd.runtime.encodings import Encodings
from edgekd.settings.base import Spec
from edgekd.settings.profile import Profile
from edgekd.settings.task import TaskSpec
from edgekd.store import write_json
from edgekd.tasks.base import Answer, Task
from edgekd.tasks.build import build_task

VERIFY_KIT = "verify-kit.zip"
KEPT = "verify.json"

_AGAIN = "run the kit's verify.py again"

# Values, which are no labels, count as the same when this near.
_SAME = 1e-3

_SHIPPED = ("model.onnx", "config.json", "tokenizer.json")


class Reference(Spec):
    """What verify.json in a bundle holds.

    Attributes:
        labels: In the order of the logits.
        metric: What is reported.
        gold: The right answer of each text: a label, several (or a tag a word), or a number.
        teacher: What each text brings to the teacher's metric, (texts, k).
        answers: What the machine which made the bundle read off all logit rows, flat: a label's number a row, a 0 or
            1 a label, or a value.
        words: Token tasks: words of each text.
        row_words: Token tasks: the words of each text that have a logit row.
    """

    schema_version: Literal[1] = 1
    task: TaskSpec
    labels: tuple[str, ...]
    metric: str
    gold: tuple[str | tuple[str, ...] | float, ...]
    teacher: tuple[tuple[int | float, ...], ...]
    answers: tuple[int | float, ...]
    words: tuple[int, ...] | None = None
    row_words: tuple[tuple[int, ...], ...] | None = None


def unmeasured_latency(profile: Profile, budget_ms: float, predicted_ms: float) -> Criterion:
    """The latency criterion of a bundle whose device is elsewhere."""
    q, device = profile.budget.percentile, profile.target.device
    return Criterion(
        kind="latency",
        name=f"latency p{q:g}",
        limit=budget_ms,
        unit="ms",
        outcome="unmeasured",
        explanation=f"{predicted_ms:.4g} ms predicted from the probe of {device}: run {VERIFY_KIT} there, then "
        "`edgekd validate BUNDLE --measured result.json` here",
    )


def unmeasured_memory(limit_mb: float) -> Criterion:
    """The memory criterion of a bundle whose device is elsewhere."""
    return Criterion(
        kind="memory",
        name="peak memory of the process",
        limit=limit_mb,
        unit="MB",
        outcome="unmeasured",
        explanation=f"{VERIFY_KIT} measures it on the device",
    )


def keep_reference(
    bundle: Path,
    task: Task,
    metric: str,
    gold: Sequence[Answer],
    teacher_counts: NDArray[Any],
    answers: NDArray[Any],
    encodings: Encodings,
) -> None:
    """Write verify.json: what a device's answers will be compared with. It holds no text.

    Args:
        bundle: Its folder, before the checksums are taken.
        metric: What is reported.
        gold: The right answers on test.
        teacher_counts: Of the teacher, (texts, k).
        answers: What `Task.decide` made of the logits that the bundle's model gave here.
        encodings: The test texts' tokens.
    """
    words = row_words = None
    if encodings.answer_words is not None and encodings.words is not None:
        words = tuple(encodings.words.tolist())
        row_words = tuple(tuple(part.tolist()) for part in np.split(encodings.answer_words, encodings.rows[1:-1]))
    reference = Reference(
        task=task.spec,
        labels=task.labels,
        metric=metric,
        gold=tuple(tuple(answer) if isinstance(answer, list) else answer for answer in gold),
        teacher=tuple(tuple(row) for row in teacher_counts.tolist()),
        answers=tuple(answers.ravel().tolist()),
        words=words,
        row_words=row_words,
    )
    (bundle / KEPT).write_text(reference.model_dump_json() + "\n", encoding="utf-8")


def make_verify_kit(
    bundle: Path,
    profile: Profile,
    budget_ms: float,
    fixed: Sequence[Text],
    replay: Sequence[Text],
    test: Sequence[Text] | Sequence[Sequence[str]],
) -> Path:
    """Write verify-kit.zip into a bundle, beside its checksums: it holds the user's texts.

    Args:
        fixed: Texts of the fixed length.
        replay: Real texts at their own lengths.
        test: The test texts: texts, pairs of texts, or lists of words.

    Raises:
        UsageError: There are no texts.
    """
    if not test or not fixed or not replay:
        raise UsageError(f"{bundle / VERIFY_KIT}: no texts to measure and to answer")
    import onnx

    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    config = read_json(bundle / "config.json")["edgekd"]
    content = {
        "kind": "verify-kit",
        "opset": opset,
        "onnxruntime": oldest_runtime(opset, model.ir_version),
        "session": config["session"],
        "task": config["task"]["name"],
        "max_length": config["max_length"],
        "budget_ms": budget_ms,
        "percentile": profile.budget.percentile,
        "batch_size": profile.workload.batch_size,
        "judge": profile.workload.judge,
        "clock": profile.target.clock,
        "looks_seconds": list(LOOKS_SECONDS),
        "reported_seconds": REPORTED_SECONDS,
    }
    with tempfile.TemporaryDirectory(prefix="edgekd-kit-") as folder:
        texts = Path(folder) / "texts.json"
        write_json(texts, {"fixed": list(fixed), "replay": list(replay), "test": list(test)})
        files = {f"bundle/{name}": bundle / name for name in _SHIPPED} | {"texts.json": texts}
        pack(bundle / VERIFY_KIT, "verify", tuple(dict.fromkeys((*MEASURING, *ANSWERING))), content, files)
    return bundle / VERIFY_KIT


def judge_measured(bundle: Path, result: Path, asked: CheckOptions | None = None) -> Validation:
    """Judge what a device measured: latency from the raw samples, quality from the logits.

    Args:
        bundle: The bundle that the kit was made with.
        result: What `python verify.py` wrote.
        asked: Another budget or percentile than the bundle's, if any.

    Raises:
        UsageError: Another part or place than the device is asked for, a file does not match its checksum, the
            verdict's budget is not the one that was promised, or the result is of another bundle or schema version.
    """
    asked = asked or CheckOptions()
    if asked.only is not None or asked.judge_here or asked.max_regression is not None:
        raise UsageError(
            "--measured judges what another device measured: leave out --only, --judge-here and --max-regression"
        )
    verdict, profile, files = open_bundle(bundle, asked)
    if not (bundle / KEPT).is_file():
        raise UsageError(f"{bundle / KEPT}: missing; only a bundle for a device that is elsewhere is judged this way")
    content = _of_this_bundle(bundle, result, verdict)
    accept, reference = profile.accept, read_record(bundle / KEPT, Reference)
    measured = Measurement.from_json(content["latency"][verdict.budget.judge])
    if asked.clock == "service":
        judged_clock("service", profile.target.kind, profile.target.threads)
        if measured.waited_share is None:
            raise UsageError(f"--clock service: {result} holds no thread times: leave it out")
    judgement = judge(
        measured,
        asked.latency_ms if asked.latency_ms is not None else verdict.budget.latency_ms,
        asked.percentile if asked.percentile is not None else verdict.budget.percentile,
        asked.clock or content["clock"],
    )
    task, encodings = build_task(reference.task, reference.labels), _rows(reference)
    decided = task.decide(_logits(content, result, int(encodings.rows[-1]), len(reference.labels)))
    criteria = [files, latency_criterion(judgement)]
    criteria.append(quality_criterion(_kept(reference, decided), reference.metric, accept.min_retained))
    if accept.max_mb is not None:
        criteria.append(size_criterion(bundle / verdict.model.file, accept.max_mb))
    if accept.max_memory_mb is not None:
        criteria.append(memory_criterion(judgement.measurement.peak_memory_mb, accept.max_memory_mb))
    same = float(np.mean(np.isclose(decided.ravel(), reference.answers, rtol=_SAME, atol=_SAME)))
    machine = content["machine"]
    notes = [
        f"measured on {machine['cpu_model']}, onnxruntime {content['versions'].get('onnxruntime', 'of another build')}",
        f"{100 * same:.1f}% of its answers on test are those of the machine that made the bundle",
    ]
    if asked.absolute:
        own = verdict.budget
        notes.append(f"the device took as many samples as {own.latency_ms:g} ms at p{own.percentile:g} asked for")
    if content["truncated"]:
        notes.append(f"{content['truncated']} of {len(reference.gold)} test texts were cut at the maximal length")
    outcome = overall(criteria)
    return Validation(
        outcome=outcome, exit_code=int(EXIT_CODES[outcome]), judged="absolute", criteria=tuple(criteria),
        notes=tuple(notes),
    )  # fmt: skip


def _of_this_bundle(bundle: Path, result: Path, verdict: Verdict) -> dict[str, Any]:
    """What a device measured, once it is known that it was this bundle's files."""
    content = read_sealed(result, "result", _AGAIN)
    for name in _SHIPPED:
        if content["bundle"].get(name) != verdict.files.get(name):
            raise UsageError(
                f"{result}: measured with another {name} than {bundle}'s: run this bundle's {VERIFY_KIT} there"
            )
    return content


def _kept(reference: Reference, decided: NDArray[Any]) -> Retained:
    """How much of the teacher's metric the answers keep."""
    task = build_task(reference.task, reference.labels)
    gold = [list(answer) if isinstance(answer, tuple) else answer for answer in reference.gold]
    counts = task.counts(gold, task.answers(decided, _rows(reference)))
    return retained(task, counts, np.array(reference.teacher))


def _logits(content: Mapping[str, Any], path: Path, rows: int, labels: int) -> NDArray[np.float32]:
    """(rows, labels) float32, as the device answered."""
    try:
        values = np.frombuffer(base64.b64decode(content["logits"], validate=True), dtype="<f4")
    except (binascii.Error, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path}: its logits cannot be read; {_AGAIN}") from error
    if len(values) != rows * labels or not np.isfinite(values).all():
        raise UsageError(f"{path}: {len(values)} logits where {rows} x {labels} finite ones were expected")
    return values.reshape(rows, labels).astype(np.float32)


def _rows(reference: Reference) -> Encodings:
    """Which logit row belongs to which word; the tokens themselves are not needed."""
    texts = len(reference.gold)
    nothing = np.zeros(0, dtype=np.int32)
    offsets = np.zeros(texts + 1, dtype=np.int64)
    if reference.words is None or reference.row_words is None:
        return Encodings(nothing, offsets)
    flat = [word for words in reference.row_words for word in words]
    return Encodings(
        nothing,
        offsets,
        answer_positions=np.zeros(len(flat), dtype=np.int32),
        answer_words=np.array(flat, dtype=np.int32),
        answer_offsets=np.concatenate([[0], np.cumsum([len(words) for words in reference.row_words])]),
        words=np.array(reference.words, dtype=np.int32),
    )
