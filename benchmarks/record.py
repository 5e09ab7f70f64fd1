"""What every benchmark writes: results/<name>.json with command, machine, versions, date and raw samples."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekd.latency.machine import read_machine
from edgekd.pipeline.collect import versions

RESULTS = Path(__file__).parent / "results"


def write_record(name: str, content: dict[str, Any]) -> Path:
    """Write a result beside this file, with what is needed to judge and repeat it.

    Args:
        name: File name without suffix.
        content: The benchmark's own figures and raw samples.
    """
    RESULTS.mkdir(exist_ok=True)
    record = {
        "command": "python " + " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *map(_short, sys.argv[1:])]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": read_machine().to_json(),
        "versions": versions(),
    }
    path = RESULTS / f"{name}.json"
    text = json.dumps(_finite(record | content), indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _finite(value: Any) -> Any:
    """The same with null for an end of an interval that nothing bounds: JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if value in (float("inf"), float("-inf")) else value


def _short(argument: str) -> str:
    """Arguments as a reader can use them: absolute paths of this machine say nothing."""
    return Path(argument).name if argument.startswith("/") else argument


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    return found.stdout.strip() or "unknown"
