"""The runtime's cold start, and many texts at once against one at a time.

    python benchmarks/cold_start.py --bundle ./bundle [--texts test.jsonl]

Cold start: fresh processes import edgekd.runtime, load the bundle and answer one text; the files are in the page cache.
Many texts: 1,000 in one call, sorted by length inside, against one call each, in turns in one process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

from record import write_record

from edgekd.data.generic import generic_split
from edgekd.latency.machine import usable_cpus
from edgekd.runtime import Model, load

CHILD = """
import json, sys, time
start = time.perf_counter()
from edgekd.runtime import load
imported = time.perf_counter()
model = load(sys.argv[1])
loaded = time.perf_counter()
model.predict(sys.argv[2])
done = time.perf_counter()
parts = {"import": imported - start, "load": loaded - imported, "first": done - loaded, "total": done - start}
print(json.dumps(parts))
"""
PARTS = ("import", "load", "first", "total", "process")
GOALS = {"cold_start_s": 0.5, "batch_ratio": 3.0}


def cold_start(bundle: Path, text: str, processes: int) -> dict[str, list[float]]:
    """Seconds of each part in fresh processes; `process` is the whole, the interpreter's own start included."""
    found: dict[str, list[float]] = {part: [] for part in PARTS}
    for _ in range(processes + 1):
        started = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-c", CHILD, str(bundle), text], capture_output=True, text=True, check=True
        )
        parts = json.loads(run.stdout) | {"process": time.perf_counter() - started}
        for part in PARTS:
            found[part].append(parts[part])
    # The first process brings the files into the page cache.
    return {part: values[1:] for part, values in found.items()}


def many_texts(model: Model, texts: list[str], workers: int, rounds: int) -> dict[str, list[float]]:
    """Seconds for all texts, each way, in turns."""
    ways = {
        "one at a time": lambda: [model.predict(text) for text in texts],
        "together, 1 worker": lambda: model.predict(texts),
        f"together, {workers} workers": lambda: model.predict(texts, workers=workers),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    model.predict(texts[:100])
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            found[name].append(time.perf_counter() - started)
    return found


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Flags of what is measured on a bundle and texts; see `read_texts`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--texts", type=Path, help="a .jsonl file with `text`; else generic sentences")
    return parser


def read_texts(file: Path | None, count: int) -> list[str]:
    """So many texts, repeated where there are too few."""
    if file is None:
        texts = list(generic_split().texts)
    else:
        texts = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
    return list(islice(cycle(texts), count))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    texts = read_texts(options.texts, 1000)
    starts = cold_start(options.bundle, texts[0], options.processes)
    model = load(options.bundle)
    seconds = many_texts(model, texts, usable_cpus(), options.rounds)
    alone = seconds.pop("one at a time")
    ratios = {name: [a / b for a, b in zip(alone, values, strict=True)] for name, values in seconds.items()}
    content: dict[str, Any] = {
        "bundle_mb": (options.bundle / "model.onnx").stat().st_size / 1e6,
        "threads": model.config.threads,
        "goals": GOALS,
        "cold_start_median_s": {part: median(values) for part, values in starts.items()},
        "cold_start_worst_s": max(starts["total"]),
        "batch_ratio_median": {name: median(values) for name, values in ratios.items()},
        "raw": {"cold_start_s": starts, "one_at_a_time_s": alone, "together_s": seconds},
    }
    print(f"bundle of {content['bundle_mb']:.1f} MB, {model.config.threads} thread(s)")
    for part, value in content["cold_start_median_s"].items():
        print(f"cold start, {part:8} {value:.3f} s")
    print(f"cold start, worst    {content['cold_start_worst_s']:.3f} s (goal {GOALS['cold_start_s']} s)")
    print(f"1,000 texts one at a time {median(alone):.3f} s")
    for name, values in seconds.items():
        print(f"1,000 texts {name} {median(values):.3f} s: {content['batch_ratio_median'][name]:.2f}x")
    print(write_record("cold_start", content))


if __name__ == "__main__":
    main()
