"""Stage `measure_teacher`: the unchanged teacher on the device, end to end. It comes first: it may already fit."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.bundle import Core, write_core
from edgekd.latency.interval import estimate, steady_medians
from edgekd.latency.measure import Measurement, compare
from edgekd.latency.targets.base import Target
from edgekd.latency.timer import BundleJob, Text
from edgekd.progress import Progress
from edgekd.records.plan import TeacherLatency
from edgekd.settings.target import Precision
from edgekd.store import Store

VERSION = 3

_PROCESSES, _ROUNDS, _CALLS = 2, 8, 10


def measure_teacher(
    store: Store,
    target: Target,
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
        fingerprint: The machine's; a measurement of another is not reused.
        model_id: Identity of the exported files.
        dropped: Precisions that lost too much quality, with the reason.
        batch_size: Texts a call.
    """
    key: dict[str, Any] = {
        "machine": fingerprint,
        "target": target.spec.model_dump(mode="json"),
        "session": target.session_spec().model_dump(mode="json"),
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
                    jobs, target, processes=_PROCESSES, rounds=_ROUNDS, calls=_CALLS,
                    progress=lambda a, b: bar.update(a / b),
                )  # fmt: skip
        (work / "samples.json").write_text(json.dumps({n: m.to_json() for n, m in found.items()}))
        return _figures(found, percentile, target)

    made = store.make("measure_teacher", VERSION, key, build)
    return TeacherLatency(**made.result, dropped=dict(dropped))


def _figures(found: Mapping[str, Measurement], percentile: float, target: Target) -> dict[str, Any]:
    """What `TeacherLatency` needs of the measurements."""
    clock, usual = target.clock, target.usual_speed()
    medians = steady_medians(found, clock, usual)
    fastest = min(medians, key=lambda name: medians[name])
    at = {name: estimate(m.rounds, percentile, clock, usual).value_ms for name, m in found.items()}
    return {
        "measured_ms": at,
        "median_ms": medians,
        "p95_ms": {name: estimate(m.rounds, 95, clock, usual).value_ms for name, m in found.items()},
        "overhead_ms": found[fastest].overhead_share * medians[fastest],
        "tail": max(1.0, at[fastest] / medians[fastest]),
    }
