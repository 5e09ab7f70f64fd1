"""Stage `measure_teacher`: the unchanged teacher on the device, end to end. It comes first: it may already fit."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.bundle import Core, write_core
from edgekd.latency.kept import Watch, keep_measured
from edgekd.latency.measure import Measurement, compare, lacking_share
from edgekd.latency.timer import BundleJob, Text
from edgekd.plan.make import TeacherLatency
from edgekd.progress import Progress
from edgekd.store import Store
from edgekd.targets.spec import Precision

VERSION = 2

_PROCESSES, _ROUNDS, _CALLS = 2, 8, 10


def measure_teacher(
    store: Store,
    watch: Watch,
    fingerprint: str,
    cores: Mapping[Precision, Core],
    model_id: str,
    texts: Sequence[Text],
    percentile: float,
    dropped: Mapping[Precision, str],
    batch_size: int,
    progress: Progress,
) -> TeacherLatency:
    """Measure the teacher's bundles side by side, or read what this machine measured before.

    Args:
        store: Where measurements are kept.
        watch: The device, watched.
        fingerprint: The machine's; a measurement of another is not reused.
        cores: The teacher in each precision.
        model_id: Identity of the exported files.
        texts: Fixed-length texts.
        percentile: The budget's.
        dropped: Precisions that lost too much quality, with the reason.
        batch_size: Texts a call.
        progress: Where progress is shown.
    """
    key: dict[str, Any] = {
        "machine": fingerprint,
        "target": watch.target.spec.model_dump(mode="json"),
        "session": watch.target.session_spec().model_dump(mode="json"),
        "model": model_id,
        "precisions": sorted(cores),
        "max_length": next(iter(cores.values())).max_length,
        "percentile": percentile,
        "batch_size": batch_size,
    }

    def build(work: Path) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="edgekd-teacher-") as folder:
            jobs = []
            for precision, core in cores.items():
                write_core(Path(folder) / precision, core)
                jobs.append(BundleJob(precision, Path(folder) / precision, tuple(texts), batch_size))
            with progress.bar("plan: measure the teacher", 1) as bar:
                found = compare(
                    jobs, watch.target, processes=_PROCESSES, rounds=_ROUNDS, calls=_CALLS,
                    progress=lambda a, b: bar.update(a / b),
                )  # fmt: skip
        (work / "samples.json").write_text(json.dumps({n: m.to_json() for n, m in found.items()}))
        return _figures(found, percentile)

    made = keep_measured(store, watch, "measure_teacher", VERSION, key, build, what="the teacher", progress=progress)
    return TeacherLatency(**made.result, dropped=dict(dropped))


def _figures(found: Mapping[str, Measurement], percentile: float) -> dict[str, Any]:
    """What `TeacherLatency` needs of the measurements, and how disturbed they were."""
    fastest = min(found.values(), key=lambda m: m.percentile(50))
    parts = fastest.part_percentiles(50)
    return {
        "measured_ms": {name: m.percentile(percentile) for name, m in found.items()},
        "median_ms": {name: m.percentile(50) for name, m in found.items()},
        "p95_ms": {name: m.percentile(95) for name, m in found.items()},
        "overhead_ms": parts["tokenise"] + parts["postprocess"],
        "tail": max(1.0, fastest.percentile(percentile) / fastest.percentile(50)),
        "disturbed": lacking_share(found.values()),
    }
