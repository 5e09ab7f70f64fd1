"""The gate: is a bundle's verdict right, and the same each time?

    python benchmarks/latency_gate.py --bundle ./bundle

Truth is the budget's percentile in a long quiet reference run. Then the same bundle is judged again and again with
budgets 10% above and 10% below it; with --busy, once more with a busy process on every core.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from record import write_record

from edgekd.data.generic import generic_split
from edgekd.latency.machine import usable_cpus
from edgekd.latency.measure import compare, judge_budget
from edgekd.latency.timer import BundleJob
from edgekd.proof.validate import fixed_texts
from edgekd.runtime.tokenise import load_tokenizer
from edgekd.store import read_json
from edgekd.targets.build import build_target
from edgekd.targets.spec import CpuTarget


def job_of(bundle: Path, length: int | None) -> BundleJob:
    """The bundle at its fixed length, or at another one."""
    wanted = length or int(read_json(bundle / "config.json")["edgekd"]["max_length"])
    return BundleJob("gate", bundle, fixed_texts(load_tokenizer(bundle), generic_split(), wanted))


def reference(job: BundleJob, percentile: float, seconds: float) -> dict[str, Any]:
    """The long run: 3 processes, quiet rounds only, until `seconds` have passed."""
    target, deadline, values, pooled = build_target(CpuTarget()), time.monotonic() + seconds, [], []
    while time.monotonic() < deadline:
        found = compare([job], target, processes=3, rounds=20, calls=20)["gate"]
        values.append(found.percentile(percentile))
        pooled.append(found.samples())
    return {
        "percentile_ms": float(np.percentile(np.concatenate(pooled), percentile)),
        "samples": int(sum(map(len, pooled))),
        "by_run_ms": values,
    }


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """A process that computes on every core."""
    spinners = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(count)]
    for spinner in spinners:
        spinner.start()
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.terminate()


def _spin() -> None:
    values = np.random.default_rng(0).random((256, 256))
    while True:
        values = values @ values.T
        values /= values.max()


def judge_often(job: BundleJob, truth: float, percentile: float, times: int, max_seconds: float) -> dict[str, Any]:
    """Judge with budgets 10% above (must be met) and 10% below (must be missed), alternating."""
    target, rows = build_target(CpuTarget()), []
    for i in range(times):
        for factor, right in ((1.1, "met"), (0.9, "missed")):
            started = time.monotonic()
            found = judge_budget(job, target, factor * truth, percentile, max_seconds=max_seconds)
            rows.append(
                {
                    "factor": factor, "outcome": found.outcome, "wrong": found.outcome not in (right, "inconclusive"),
                    "value_ms": found.measurement.percentile(percentile), "interval_ms": list(found.interval),
                    "looks": found.looks, "disturbed": found.measurement.disturbed_share,
                    "seconds": time.monotonic() - started, "reason": found.reason,
                }
            )  # fmt: skip
        print(i + 1, Counter(r["outcome"] for r in rows), f"wrong {sum(r['wrong'] for r in rows)}", flush=True)
    return {
        "verdicts": len(rows),
        "wrong": sum(r["wrong"] for r in rows),
        "inconclusive": sum(r["outcome"] == "inconclusive" for r in rows),
        "median_seconds": float(np.median([r["seconds"] for r in rows])),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--length", type=int, help="tokens; the bundle's own without it")
    parser.add_argument("--percentile", type=float, default=95)
    parser.add_argument("--times", type=int, default=50, help="verdicts above and as many below")
    parser.add_argument("--reference-seconds", type=float, default=60)
    parser.add_argument("--busy", action="store_true", help="also with a busy process on every core")
    parser.add_argument("--busy-times", type=int, default=50)
    options = parser.parse_args()
    job = job_of(options.bundle, options.length)
    truth = reference(job, options.percentile, options.reference_seconds)
    print("truth", truth)
    found: dict[str, Any] = {"truth": truth}
    found["quiet"] = judge_often(job, truth["percentile_ms"], options.percentile, options.times, 120)
    if options.busy:
        with busy_cores(usable_cpus()):
            found["busy"] = judge_often(job, truth["percentile_ms"], options.percentile, options.busy_times, 5)
    print("written:", write_record("latency_gate", found))


if __name__ == "__main__":
    main()
