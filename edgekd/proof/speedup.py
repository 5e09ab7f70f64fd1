"""How many times faster than the teacher a bundle is: both measured in turns, on the machine as it is."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgekd.bundle import Core, write_core
from edgekd.latency.interval import round_ratio
from edgekd.latency.measure import compare
from edgekd.latency.targets.base import Target
from edgekd.latency.timer import BundleJob, Text
from edgekd.progress import Progress
from edgekd.records.result import Speedup

_PROCESSES, _ROUNDS, _MOST_CALLS, _FEWEST_CALLS = 3, 10, 100, 3
# A round of the teacher takes about this long.
_ROUND_MS = 60.0


def measure_speedup(
    bundle: Path,
    texts: Sequence[Text],
    teacher: Core,
    teacher_texts: Sequence[Text],
    target: Target,
    batch_size: int,
    teacher_ms: float,
    progress: Progress,
) -> Speedup:
    """Time a bundle and the unchanged FP32 teacher in turns, in fresh processes.

    Args:
        bundle: Its folder.
        texts: Of the fixed length, as the bundle's tokenizer counts.
        teacher: What the teacher's bundle is made of.
        teacher_texts: Of the fixed length, as the teacher's tokenizer counts.
        batch_size: Texts a call.
        teacher_ms: About how long a call of the teacher takes.
    """
    calls = int(max(_FEWEST_CALLS, min(_MOST_CALLS, _ROUND_MS / max(teacher_ms, 1e-3))))
    with tempfile.TemporaryDirectory(prefix="edgekd-teacher-") as folder:
        unchanged = Path(folder) / "teacher"
        write_core(unchanged, teacher)
        jobs = (
            BundleJob("bundle", bundle, tuple(texts), batch_size),
            BundleJob("teacher", unchanged, tuple(teacher_texts), batch_size),
        )
        with progress.bar("validate: latency beside the teacher", 1) as bar:
            found = compare(
                jobs, target, processes=_PROCESSES, rounds=_ROUNDS, calls=calls,
                progress=lambda done, total: bar.update(done / total),
            )  # fmt: skip
    value, low, high = round_ratio(found["bundle"].rounds, found["teacher"].rounds, target.clock)
    return Speedup(value=value, interval=(low, high))
