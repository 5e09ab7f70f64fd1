"""The gate: is a bundle's verdict right, and the same each time?

    python benchmarks/latency_gate.py --bundle ./bundle

Truth is the budget's percentile in a long quiet reference run. The same bundle is judged again and again with budgets
10% above and 10% below it. A shared machine's own speed moves, so truth is taken anew before each pair of verdicts and
after the last: `met` is wrong where the budget was below both neighbouring truths, `missed` where it was above both.
With --busy, once more with a busy process on every core, between two truths without it.
"""

from __future__ import annotations

import argparse
import itertools
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
from edgekd.latency.measure import MAX_DISTURBED, compare, judge_budget
from edgekd.latency.timer import BundleJob
from edgekd.proof.validate import fixed_texts
from edgekd.runtime.tokenise import load_tokenizer
from edgekd.store import read_json
from edgekd.targets.build import build_target
from edgekd.targets.spec import CpuTarget

FACTORS = (1.1, 0.9)


def job_of(bundle: Path, length: int | None) -> BundleJob:
    """The bundle at its fixed length, or at another one."""
    wanted = length or int(read_json(bundle / "config.json")["edgekd"]["max_length"])
    return BundleJob("gate", bundle, fixed_texts(load_tokenizer(bundle), generic_split(), wanted))


def reference(job: BundleJob, percentile: float, seconds: float) -> float:
    """The percentile in ms over 3 processes' quiet rounds, until `seconds` have passed."""
    target, deadline, pooled = build_target(CpuTarget()), time.monotonic() + seconds, []
    while not pooled or time.monotonic() < deadline:
        pooled.append(compare([job], target, processes=3, rounds=10, calls=20)["gate"].samples())
    return float(np.percentile(np.concatenate(pooled), percentile))


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


def judge_pair(job: BundleJob, truth: float, percentile: float, max_seconds: float) -> list[dict[str, Any]]:
    """Judge with a budget 10% above (to be met) and one 10% below (to be missed)."""
    target, rows = build_target(CpuTarget()), []
    for factor in FACTORS:
        started = time.monotonic()
        found = judge_budget(job, target, factor * truth, percentile, max_seconds=max_seconds)
        rows.append(
            {
                "factor": factor, "budget_ms": factor * truth, "outcome": found.outcome,
                "value_ms": found.measurement.percentile(percentile), "interval_ms": list(found.interval),
                "looks": found.looks, "disturbed": found.measurement.disturbed_share,
                "seconds": time.monotonic() - started, "reason": found.reason,
            }
        )  # fmt: skip
    return rows


def summary(rows: list[dict[str, Any]], truths: list[float]) -> dict[str, Any]:
    """Count the verdicts; `rows` are pairs, each between two neighbours of `truths`."""
    for i, row in enumerate(rows):
        neighbours = truths[i // len(FACTORS)], truths[i // len(FACTORS) + 1]
        row["wrong"] = (row["outcome"] == "met" and row["budget_ms"] < min(neighbours)) or (
            row["outcome"] == "missed" and row["budget_ms"] > max(neighbours)
        )
    quiet = [row for row in rows if row["disturbed"] <= MAX_DISTURBED]
    return {
        "verdicts": len(rows),
        "wrong": sum(row["wrong"] for row in rows),
        "inconclusive": sum(row["outcome"] == "inconclusive" for row in rows),
        "quiet_verdicts": len(quiet),
        "quiet_inconclusive": sum(row["outcome"] == "inconclusive" for row in quiet),
        "outcomes": {str(f): Counter(r["outcome"] for r in rows if r["factor"] == f) for f in FACTORS},
        "median_seconds": float(np.median([row["seconds"] for row in rows])),
        "truths_ms": truths,
        "truth_moved": float(max(abs(b / a - 1) for a, b in itertools.pairwise(truths))),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--length", type=int, help="tokens; the bundle's own without it")
    parser.add_argument("--percentile", type=float, default=95)
    parser.add_argument("--times", type=int, default=50, help="verdicts above and as many below")
    parser.add_argument("--reference-seconds", type=float, default=10, help="of each truth")
    parser.add_argument("--max-seconds", type=float, default=120, help="of each verdict")
    parser.add_argument("--busy", action="store_true", help="also with a busy process on every core")
    parser.add_argument("--busy-times", type=int, default=50)
    options = parser.parse_args()
    job, percentile = job_of(options.bundle, options.length), options.percentile
    truths, rows = [reference(job, percentile, options.reference_seconds)], []
    for i in range(options.times):
        rows += judge_pair(job, truths[-1], percentile, options.max_seconds)
        truths.append(reference(job, percentile, options.reference_seconds))
        print(i + 1, f"truth {truths[-1]:.3f} ms", dict(Counter(r["outcome"] for r in rows)), flush=True)
    found: dict[str, Any] = {"quiet": summary(rows, truths)}
    if options.busy:
        with busy_cores(usable_cpus()):
            rows = [row for _ in range(options.busy_times) for row in judge_pair(job, truths[-1], percentile, 5)]
        ends = [truths[-1], reference(job, percentile, options.reference_seconds)]
        found["busy"] = summary(rows, [ends[i % 2] for i in range(len(rows) + 1)])
    for name, counts in found.items():
        print(name, {k: v for k, v in counts.items() if k not in ("rows", "truths_ms")})
    print("written:", write_record("latency_gate", found))


if __name__ == "__main__":
    main()
