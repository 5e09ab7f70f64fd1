"""How often the whole procedure, looks included, is wrong where the truth lies exactly on the budget.

    python benchmarks/latency_procedure.py

Synthetic samples, log-normal, independent and autocorrelated (AR(0.9)), so that the percentile is known. With the
truth on the budget neither `met` nor `missed` is earned: every verdict but `inconclusive` counts as wrong.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from record import write_record

from edgekd.latency.measure import judge_budget
from edgekd.latency.timer import GraphJob, LoadReport, RoundSample
from edgekd.targets.base import SessionSpec
from edgekd.targets.spec import FakeTarget

SIGMA = 0.2
# Standard normal quantiles.
QUANTILES = {95.0: 1.6448536269514722, 99.0: 2.3263478740408408}


class SyntheticTimer:
    """Rounds of a log-normal AR(1) series, one series a process."""

    def __init__(self, processes: int, rho: float, seed: int) -> None:
        self.processes, self.rho = processes, rho
        self.rng = np.random.default_rng(seed)
        self.state = self.rng.standard_normal(processes)
        self.turn = 0

    def round(self, job: str, calls: int) -> RoundSample:
        """The next `calls` samples of the process whose turn it is."""
        process = self.turn % self.processes
        self.turn += 1
        series = np.empty(calls)
        for i, noise in enumerate(self.rng.standard_normal(calls) * np.sqrt(1 - self.rho**2)):
            self.state[process] = self.rho * self.state[process] + noise
            series[i] = self.state[process]
        return RoundSample(process, tuple(np.exp(SIGMA * series).tolist()))

    def look(self, rounds: int) -> tuple[RoundSample, ...]:
        """Nothing disturbs."""
        return (RoundSample(0, ()),) * rounds

    def load_reports(self, job: str) -> tuple[LoadReport, ...]:
        """Nothing was loaded."""
        return tuple(LoadReport(p, "synthetic", 1.0, 1.0, 1.0) for p in range(self.processes))

    def close(self) -> None:
        """Nothing to end."""

    def __enter__(self) -> SyntheticTimer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to end."""


class SyntheticTarget:
    """A target that runs nothing."""

    spec = FakeTarget()

    def __init__(self, rho: float, seed: int) -> None:
        self.rho, self.seed = rho, seed

    def check(self) -> None:
        """It can always run."""

    def session_spec(self) -> SessionSpec:
        """Any."""
        return SessionSpec()

    def session_variants(self) -> tuple[SessionSpec, ...]:
        """Any."""
        return (SessionSpec(),)

    def timer(self, jobs: Any, processes: int = 1) -> SyntheticTimer:
        """A fresh series."""
        return SyntheticTimer(processes, self.rho, self.seed)


def run(rho: float, percentile: float, times: int) -> dict[str, Any]:
    """Judge `times` series with the budget on the true percentile."""
    budget = float(np.exp(SIGMA * QUANTILES[percentile]))
    job = GraphJob("synthetic", Path("none"))
    outcomes: Counter[str] = Counter()
    for seed in range(times):
        outcomes[judge_budget(job, SyntheticTarget(rho, seed), budget, percentile).outcome] += 1
    decided = outcomes["met"] + outcomes["missed"]
    return {
        "rho": rho, "percentile": percentile, "times": times, "outcomes": dict(outcomes),
        "wrong_share": decided / times,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=400, help="runs of the procedure a row")
    options = parser.parse_args()
    rows = []
    for percentile in QUANTILES:
        for rho in (0.0, 0.9):
            started = time.monotonic()
            rows.append(run(rho, percentile, options.times))
            print(rows[-1], f"{time.monotonic() - started:.0f} s", flush=True)
    print("written:", write_record("latency_procedure", {"rows": rows}))


if __name__ == "__main__":
    main()
