"""Planning for a device that is elsewhere: everything is predicted from its probe, and nothing is measured there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.bundle import Core, write_core
from edgekd.latency.interval import steady_medians
from edgekd.latency.machine import fingerprint, read_machine
from edgekd.latency.measure import compare
from edgekd.latency.targets.base import Target
from edgekd.latency.timer import BundleJob, Text
from edgekd.progress import Progress
from edgekd.records.plan import TeacherLatency
from edgekd.remote.kit import text_work_ms
from edgekd.remote.probe import Probe
from edgekd.settings.shape import EncoderShape
from edgekd.settings.target import Precision
from edgekd.store import Store

VERSION = 3

_ROUNDS, _CALLS = 8, 10


def source(device: str) -> str:
    """What the plan says of every number that was not measured."""
    return f"predicted from the probe of {device}"


def predict_teacher(
    probe: Probe,
    device: str,
    shape: EncoderShape,
    precisions: Sequence[Precision],
    length: int,
    percentile: float,
    overhead_ms: float,
    dropped: Mapping[Precision, str],
) -> TeacherLatency:
    """The unchanged teacher's latency on the device, predicted.

    Args:
        length: Tokens a text.
        overhead_ms: Of tokenising and answering there.
        dropped: Precisions that are not to be deployed, with the reason.

    Raises:
        UsageError: The probe did not measure this kind of teacher or this length.
    """
    table = probe.table(shape, [shape.hidden], precisions, length)
    tail = probe.tail(percentile)
    medians = {precision: table.median_ms(shape, precision) + overhead_ms for precision in precisions}
    return TeacherLatency(
        measured_ms={precision: ms * tail for precision, ms in medians.items()},
        median_ms=medians,
        p95_ms={precision: ms * probe.tail(95) for precision, ms in medians.items()},
        overhead_ms=overhead_ms,
        tail=tail,
        dropped=dict(dropped),
        predicted=source(device),
    )


def overhead_there(
    store: Store,
    target: Target,
    probe: Probe,
    core: Core,
    teacher_id: str,
    texts: Sequence[Text],
    batch_size: int,
    progress: Progress,
) -> float:
    """What tokenising and answering should take on the device.

    A probe has no tokenizer. So they are measured here, and scaled by how long the same work on strings takes there.

    Args:
        core: The teacher, whose tokenizer is the student's.
        batch_size: Texts a call.
    """
    key: dict[str, Any] = {
        "machine": fingerprint(read_machine()),
        "teacher": teacher_id,
        "max_length": core.max_length,
        "batch_size": batch_size,
    }

    def build(_: Path) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="edgekd-tokenise-") as folder:
            write_core(Path(folder) / "teacher", core)
            job = BundleJob("teacher", Path(folder) / "teacher", tuple(texts), batch_size)
            with progress.bar("plan: measure tokenising here", 1) as bar:
                found = compare(
                    [job],
                    target,
                    processes=1,
                    rounds=_ROUNDS,
                    calls=_CALLS,
                    progress=lambda a, b: bar.update(a / b),
                )
        median = steady_medians(found, target.clock, target.usual_speed())["teacher"]
        return {"overhead_ms": found["teacher"].overhead_share * median, "text_work_ms": text_work_ms()}

    here = store.make("tokenise", VERSION, key, build).result
    there = float(here["overhead_ms"]) * probe.text_work_ms / float(here["text_work_ms"])
    progress.say(
        f"plan: tokenising and answering take {here['overhead_ms']:.2f} ms here, so about {there:.2f} ms there "
        "(by the same work on strings, timed on both)"
    )
    return there
