"""Is a bundle's verdict right here and now, and the same each time, alone and beside other load?

    python benchmarks/latency_live.py --bundle ./bundle --times 20 --busy 2

Truth is the budget's percentile over the rounds of all verdicts of one condition, on the clock that is judged. Each
verdict is on budgets of 0.85 and 1.15 times a first truth, in turns, as `edgekd validate` judges, with a speed log
of the benchmark's own. `met` below the truth, or `missed` above it, is wrong.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from latency_trace import busy
from record import write_record

from edgekd.data.generic import generic_split
from edgekd.latency.judge import judge_budget
from edgekd.latency.measure import measure_for
from edgekd.latency.speed_log import SpeedLog
from edgekd.latency.targets.build import build_target
from edgekd.latency.timer import BundleJob
from edgekd.proof.texts import fixed_texts
from edgekd.reading import read_json
from edgekd.runtime.tokenise import load_tokenizer
from edgekd.settings.target import Clock, CpuTarget

FACTORS = (0.85, 1.15)


def judge_times(job: BundleJob, log: SpeedLog, clock: Clock, truth: float, times: int, q: float) -> dict[str, Any]:
    """Judge each budget so often, in turns; truth is then that of all calls."""
    target, rows, calls = build_target(CpuTarget(), log), [], []
    for _ in range(times):
        for factor in FACTORS:
            started = time.monotonic()
            found = judge_budget(job, target, factor * truth, q, clock)
            calls.append(found.measurement.samples(clock))
            rows.append(
                {
                    "factor": factor, "budget_ms": factor * truth, "outcome": found.outcome,
                    "value_ms": found.value_ms, "interval_ms": list(found.estimate.interval),
                    "observed_ms": found.estimate.observed_ms, "slowdown": found.estimate.slowdown,
                    "waited": found.measurement.waited_share, "seconds": time.monotonic() - started,
                    "reason": found.reason,
                }
            )  # fmt: skip
            print({k: rows[-1][k] for k in ("factor", "outcome", "value_ms", "seconds", "slowdown")}, flush=True)
    long_run = float(np.percentile(np.concatenate(calls), q))
    wrong = [row for row in rows if row["outcome"] == ("met" if row["budget_ms"] < long_run else "missed")]
    return {
        "truth_ms": long_run, "wrong": len(wrong),
        "conclusive": {str(f): sum(r["outcome"] != "inconclusive" for r in rows if r["factor"] == f) for f in FACTORS},
        "longest_seconds": max(row["seconds"] for row in rows), "rows": rows,
    }  # fmt: skip


def main() -> None:
    """Judge one bundle alone, then beside other load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--busy", type=int, default=2, help="processes of other load in the second half")
    parser.add_argument("--percentile", type=float, default=95.0)
    options = parser.parse_args()
    length = int(read_json(options.bundle / "config.json")["edgekd"]["max_length"])
    job = BundleJob("bundle", options.bundle, fixed_texts(load_tokenizer(options.bundle), generic_split(), length))
    content: dict[str, Any] = {"length": length, "percentile": options.percentile}
    with tempfile.TemporaryDirectory() as folder:
        log = SpeedLog.of_this_machine(Path(folder))
        clock = build_target(CpuTarget()).clock
        first = measure_for(job, build_target(CpuTarget(), log), 120.0)
        truth = first.percentile(options.percentile, clock)
        for name, count in (("alone", 0), (f"beside {options.busy} processes", options.busy)):
            with busy(count):
                content[name] = judge_times(job, log, clock, truth, options.times, options.percentile)
            shown = {k: v for k, v in content[name].items() if k != "rows"}
            print(name, shown, flush=True)
            print("written:", write_record("latency_live", content | {"first_truth_ms": truth}), flush=True)


if __name__ == "__main__":
    main()
