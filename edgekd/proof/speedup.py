"""How many times faster than the teacher a bundle is: both measured in turns, on the machine as it is."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgekd.bundle import Core, write_core
from edgekd.latency.targets.base import Target
from edgekd.latency.timer import BundleJob, Text
from edgekd.progress import Progress
from edgekd.proof.latency import ratio_in_turns
from edgekd.records.result import Speedup


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
    with tempfile.TemporaryDirectory(prefix="edgekd-teacher-") as folder:
        unchanged = Path(folder) / "teacher"
        write_core(unchanged, teacher)
        _, value, interval = ratio_in_turns(
            BundleJob("bundle", bundle, tuple(texts), batch_size),
            BundleJob("teacher", unchanged, tuple(teacher_texts), batch_size),
            target, teacher_ms, progress, "validate: latency beside the teacher",
        )  # fmt: skip
    return Speedup(value=value, interval=interval)
