"""What a bundle keeps so that it can be checked later, on any host: its answers, and its speed beside an anchor.

Latency means nothing on another machine, but a ratio does: a small graph that never changes, the anchor, is timed
in turns with the bundle when it is made and again when it is checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgekd.data.generic import generic_split
from edgekd.errors import UsageError
from edgekd.latency.interval import Outcome
from edgekd.latency.machine import fingerprint, read_machine
from edgekd.latency.targets.base import Target
from edgekd.latency.timer import BundleJob, GraphJob, Text
from edgekd.progress import Progress
from edgekd.proof.latency import ratio_in_turns
from edgekd.records.base import Interval, Record, read_record
from edgekd.runtime.config import BundleConfig
from edgekd.runtime.encodings import MASKED
from edgekd.runtime.model import CPU, SURROGATES, load
from edgekd.settings.shape import EncoderShape, HeadShape
from edgekd.settings.target import Precision
from edgekd.store import write_json

FOLDER = "recheck"
"""Folder of a bundle that holds all of this."""

TOLERANCE: dict[Precision, float] = {"fp32": 0.01, "int8": 0.04, "fp16": 0.04}
"""How far logits may move, as a share of their own size. The same graph with other kernels moved by 3e-7 (FP32)
and, in single texts, by up to 1e-2 (INT8: a rounding falls the other way and the layers after it follow); INT8
against FP32 moves by 8e-2."""

_ANCHOR = EncoderShape(
    vocabulary=64, positions=128, token_types=2, embedding=96, hidden=96, head_size=32, heads=(3,), ffn=(384,),
    head=HeadShape(kind="sequence", labels=2),
)  # fmt: skip


class Ratio(Record):
    """How long the bundle takes, measured in turns with the anchor.

    Attributes:
        bundle_ms: Median of a call, end to end, at `length` tokens, on the clock that the budget is judged on.
        anchor_ms: Median of a run of the anchor.
        value: Median over rounds of bundle / anchor.
        interval: Of the value.
    """

    bundle_ms: float
    anchor_ms: float
    value: float = Field(gt=0)
    interval: Interval


class Evidence(Record):
    """What `recheck/evidence.json` holds; `logits.npy` and `anchor.onnx` lie beside it.

    Attributes:
        schema_version: 1.
        precision: As deployed.
        texts: The probe set: generic sentences, then the user's own where asked for.
        own: How many of them, at the end, are the user's own.
        rows: Logit rows of each text.
        fingerprint: Of the machine that it was made on.
        ratio: The bundle against the anchor there; None where the device is elsewhere.
    """

    schema_version: Literal[1] = 1
    precision: Precision
    texts: Annotated[tuple[str | tuple[str, str], ...], Field(min_length=1)]
    own: int = 0
    rows: tuple[int, ...]
    fingerprint: str
    ratio: Ratio | None = None

    @property
    def own_texts(self) -> tuple[Text, ...]:
        """The user's own texts; empty unless they were asked for."""
        return self.texts[len(self.texts) - self.own :]


@dataclass(frozen=True)
class Replay:
    """Answers now against answers then.

    Attributes:
        texts: Texts replayed.
        changed: Indices of the texts whose labels are others, ties left out.
        example: The first of them in words; empty without one.
        drift: Size of the logits' change over the logits' own size.
        tolerance: How large that may be.
    """

    texts: int
    changed: tuple[int, ...]
    example: str
    drift: float
    tolerance: float


def write_evidence(
    bundle: Path,
    target: Target,
    precision: Precision,
    fixed: Sequence[Text],
    batch_size: int,
    expected_ms: float,
    progress: Progress,
    own: Sequence[Text] = (),
) -> None:
    """Let a finished bundle answer the probe set and run beside the anchor, and keep both in it.

    Args:
        bundle: Its folder: model.onnx, configuration and tokenizer are there.
        fixed: Texts of the fixed length, to time it with.
        batch_size: Texts a call.
        expected_ms: About how long a call takes.
        own: Texts of the user that may be kept.
    """
    from edgekd.latency.machine import detect_instruction_set
    from edgekd.latency.table import write_graph
    from edgekd.settings.export import GraphOptions

    folder, local = bundle / FOLDER, target.spec.device == "local"
    folder.mkdir(exist_ok=True)
    pair = not isinstance(fixed[0], str)
    texts = [_clean(text) for text in (*_generic(pair), *own)]
    rows = answers(bundle, texts, None if local else CPU)
    ratio = None
    if local:
        # Of the bundle's precision: INT8 gains from a processor's instructions otherwise than FP32 does.
        anchor_precision: Precision = "int8" if precision == "int8" else "fp32"
        made = write_graph(folder / "anchor.onnx", _ANCHOR, anchor_precision, GraphOptions(), detect_instruction_set())
        made.replace(folder / "anchor.onnx")
        ratio = measure_ratio(bundle, target, fixed, batch_size, expected_ms, progress)
    np.save(folder / "logits.npy", np.concatenate(rows), allow_pickle=False)
    evidence = Evidence(
        precision=precision,
        texts=tuple(texts),
        own=len(own),
        rows=tuple(map(len, rows)),
        fingerprint=fingerprint(read_machine()),
        ratio=ratio,
    )
    write_json(folder / "evidence.json", evidence.model_dump(mode="json"))


def read_evidence(bundle: Path) -> Evidence | None:
    """The evidence of a bundle; None for one that was made before there was any.

    Raises:
        UsageError: It is broken, or of a newer schema.
    """
    path = bundle / FOLDER / "evidence.json"
    return read_record(path, Evidence) if path.exists() else None


def answers(bundle: Path, texts: Sequence[Text], provider: str | None = None) -> list[NDArray[np.float32]]:
    """Logits of each text, (rows, labels), one text a call as in serving."""
    model = load(bundle, provider=provider)
    return [model.logits([text], batch_size=1) for text in texts]


def replay(bundle: Path, evidence: Evidence) -> Replay:
    """Let the bundle answer its probe set again.

    A label counts as changed only if it was no tie: then the margin between the best two logits was above the
    tolerance.

    Raises:
        UsageError: The stored answers are broken.
    """
    config = load(bundle).config
    stored = _stored(bundle, evidence, len(config.columns))
    view = _View(config, stored)
    found = answers(bundle, evidence.texts)
    then = np.split(stored, np.cumsum(evidence.rows)[:-1])
    size = _rms(view.centred(stored))
    tolerance = TOLERANCE[evidence.precision]
    changed: dict[int, str] = {}
    squares, count = 0.0, 0
    for i, (before, now) in enumerate(zip(then, found, strict=True)):
        if len(before) != len(now):
            changed[i] = f"{len(before)} words then, {len(now)} now"
            continue
        flipped = view.flipped(before, now, tolerance * size)
        # A label that is not a number is no answer, whatever the margin was.
        flipped |= ~np.isfinite(now).all(axis=-1)
        if flipped.any():
            row = int(np.flatnonzero(flipped)[0])
            changed[i] = f"{view.shown(before[row])} then, {view.shown(now[row])} now"
        squares += float(np.square(view.centred(now) - view.centred(before)).sum())
        count += before.size
    drift = float(np.sqrt(squares / max(1, count))) / size if np.isfinite(squares) else float("inf")
    example = ""
    if changed:
        first = next(iter(changed))
        example = f"{_shown(evidence.texts[first])}: {changed[first]}"
    return Replay(len(found), tuple(changed), example, drift, tolerance)


def measure_ratio(
    bundle: Path, target: Target, texts: Sequence[Text], batch_size: int, expected_ms: float, progress: Progress
) -> Ratio:
    """Time a bundle and its anchor in turns, in fresh processes.

    Args:
        bundle: Its folder, `recheck/anchor.onnx` included.
        batch_size: Texts a call.
        expected_ms: About how long a call takes.
    """
    found, value, interval = ratio_in_turns(
        GraphJob("anchor", bundle / FOLDER / "anchor.onnx", 1, _ANCHOR.positions, _ANCHOR.vocabulary),
        BundleJob("bundle", bundle, tuple(texts), batch_size),
        target, expected_ms, progress, "validate: latency beside the anchor",
    )  # fmt: skip
    return Ratio(
        bundle_ms=found["bundle"].percentile(50, target.clock),
        anchor_ms=found["anchor"].percentile(50, target.clock),
        value=value,
        interval=interval,
    )


def regression(then: Ratio, now: Ratio, limit: float) -> tuple[float, tuple[float, float], Outcome]:
    """How many times slower than when it was made the bundle is beside its anchor, its 95% interval, the outcome."""
    low_then, low_now = then.interval[0], now.interval[0]
    high_then, high_now = (end if end is not None else np.inf for end in (then.interval[1], now.interval[1]))
    low, high = low_now / high_then, high_now / low_then if low_then > 0 else np.inf
    outcome: Outcome = "met" if high <= limit else "missed" if low > limit else "inconclusive"
    return now.value / then.value, (float(low), float(high)), outcome


def _stored(bundle: Path, evidence: Evidence, labels: int) -> NDArray[np.float32]:
    path = bundle / FOLDER / "logits.npy"
    try:
        # Mapped, so that a header which promises more than the file has takes no memory.
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); copy the whole bundle again") from error
    if stored.shape != (sum(evidence.rows), labels) or len(evidence.rows) != len(evidence.texts):
        raise UsageError(f"{path}: not the answers to the texts of evidence.json; copy the whole bundle again")
    return np.asarray(stored, dtype=np.float32)


def _generic(pair: bool) -> list[Text]:
    split = generic_split(pair)
    return list(split.texts) if split.pairs is None else list(zip(split.texts, split.pairs, strict=True))


def _clean(text: Text) -> Text:
    """Half surrogate pairs, which JSON cannot hold, as the runtime reads them."""
    if isinstance(text, str):
        return SURROGATES.sub("\ufffd", text)
    return (SURROGATES.sub("\ufffd", text[0]), SURROGATES.sub("\ufffd", text[1]))


class _View:
    """What logit rows (rows, labels) say in the bundle's task, and which part of them says nothing."""

    def __init__(self, config: BundleConfig, stored: NDArray[np.float32]) -> None:
        self.labels, self.output = config.columns, config.output
        self.cut = float(np.log(config.threshold / (1 - config.threshold)))
        self.mean = float(stored.mean())

    def centred(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """What counts: a value beside the mean value; labels one by one; else logits less what all have in common."""
        if self.output == "value":
            return logits - np.float32(self.mean)
        if self.output == "flags":
            return logits
        own = logits > 0.5 * MASKED
        mean = logits.mean(axis=-1, keepdims=True, where=own)
        centred: NDArray[np.float32] = np.where(own, logits - mean, np.float32(0))
        return centred

    def flipped(self, before: NDArray[np.float32], now: NDArray[np.float32], margin: float) -> NDArray[np.bool_]:
        """Rows with another answer, (rows,), those left out that were nearer to it than the margin before."""
        if self.output == "value":
            return np.zeros(len(before), dtype=np.bool_)
        if self.output == "flags":
            far = np.abs(before - self.cut) > margin
            other: NDArray[np.bool_] = (((before > self.cut) != (now > self.cut)) & far).any(axis=-1)
            return other
        best, second = np.sort(before, axis=-1)[:, :-3:-1].T if before.shape[1] > 1 else (before[:, 0], before[:, 0])
        changed: NDArray[np.bool_] = (before.argmax(-1) != now.argmax(-1)) & (best - second > margin)
        return changed

    def shown(self, row: NDArray[np.float32]) -> str:
        """A row's answer in words."""
        if self.output == "value":
            return f"{row[0]:.4g}"
        if self.output == "flags":
            return repr([self.labels[i] for i in np.flatnonzero(row > self.cut)])
        return repr(self.labels[row.argmax()])


def _rms(values: NDArray[np.float32]) -> float:
    return max(float(np.sqrt(np.square(values, dtype=np.float64).mean())), 1e-9)


def _shown(text: Text, most: int = 60) -> str:
    whole = text if isinstance(text, str) else " | ".join(text)
    return repr(whole if len(whole) <= most else whole[: most - 3] + "...")
