"""How often a verdict on a minute of calls is wrong, and how often there is one, on recorded traces.

    python benchmarks/latency_verdict.py                    # of the traces in results/traces
    python benchmarks/latency_verdict.py --traces DIR ...

A trace (see latency_trace.py) holds ten minutes of calls of a file on a host as it was. Its truth is the budget's
percentile of all its calls on that clock. Windows are drawn at random; each is judged as `edgekd validate` judges its
calls, with the speed log of the whole trace, against budgets around the truth. `met` below the truth is wrong, and
`missed` above it. With `--before COMMIT` the gate of that commit, which threw disturbed rounds away, judges the same
windows of traces that hold the kernel's wall times; it read the wall alone.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, write_record

from edgekd.latency.interval import Floats, estimate
from edgekd.latency.timer import RoundSample
from edgekd.settings.target import Clock

BUDGETS = (0.80, 0.85, 0.90, 0.95, 0.97, 1.03, 1.05, 1.10, 1.15, 1.25)
FILES = ("long", "short")
TRACES = RESULTS / "traces"

# In the record: one letter a budget.
_LETTERS = {"met": "m", "missed": "x", "inconclusive": "?"}


def read_trace(path: Path, file: str) -> tuple[list[RoundSample], Floats]:
    """The rounds of one file in a trace, and the speed log that `edgekd` would have kept beside them."""
    trace = np.load(path, allow_pickle=False)
    kernel = (trace["kernel_before"].astype(np.float64) + trace["kernel_after"].astype(np.float64)) / 2
    if kernel.shape[1] == 4:  # both clocks: the thread's CPU time is the second of each pair
        kernel = kernel[:, [1, 3]]
    at = trace["t"] - trace["t"][0]
    rounds = [
        RoundSample(0, float(t), tuple(map(float, wall)), tuple(map(float, cpu)), (), float(product), float(walk))
        for t, wall, cpu, (product, walk) in zip(at, trace[f"{file}_wall"], trace[f"{file}_cpu"], kernel, strict=True)
    ]
    step = max(1, int(2.0 / np.median(np.diff(at))))
    return rounds, np.column_stack([at, kernel])[::step]


class GateBefore:
    """The gate of an older commit, as it judged a look of its procedure: quiet rounds, and order statistics of them."""

    def __init__(self, commit: str, path: Path, file: str) -> None:
        source = subprocess.run(
            ["git", "show", f"{commit}:edgekd/latency/statistics.py"],
            capture_output=True, text=True, check=True, cwd=Path(__file__).parent,
        ).stdout  # fmt: skip
        self.code: dict[str, Any] = {"__name__": "statistics_before"}
        exec(compile(source, "statistics.py", "exec"), self.code)
        trace = np.load(path, allow_pickle=False)
        blocks = np.stack([trace["kernel_before"], trace["kernel_after"]]).astype(np.float64)
        self.product, _, self.walk, _ = blocks.max(axis=0).T
        wall, cpu = blocks[..., [0, 2]].sum(axis=-1), blocks[..., [1, 3]].sum(axis=-1)
        self.waited = np.maximum(0.0, 1.0 - cpu / wall).max(axis=0)
        self.calls = trace[f"{file}_wall"].astype(np.float64)

    def judge(self, low: int, high: int, q: float, budgets: Sequence[float]) -> list[str]:
        """Its verdicts on a window of rounds."""
        part = slice(low, high)
        quiet = self.code["quiet_rounds"](self.product[part], self.waited[part])
        quiet &= self.code["quiet_rounds"](self.walk[part])
        if 1.0 - quiet.mean() > 0.30 or quiet.sum() * self.calls.shape[1] < 200:
            return ["inconclusive"] * len(budgets)
        confidence = self.code["split_confidence"](0.95, 5)
        interval = self.code["round_bootstrap_interval"](list(self.calls[part][quiet]), q, confidence, resamples=200)
        return [self.code["judge"](interval, budget) for budget in budgets]


def judge_windows(
    path: Path, file: str, clock: Clock, seconds: float, count: int, q: float, seed: int, before: str | None = None
) -> dict[str, Any]:
    """Judge windows of a trace that were drawn at random; by the gate of an older commit where one is named."""
    rounds, log = read_trace(path, file)
    name = "cpu_ms" if clock == "service" else "wall_ms"
    truth = float(np.percentile(np.concatenate([getattr(r, name) for r in rounds]), q))
    at = np.array([r.at for r in rounds])
    rng, windows = np.random.default_rng(seed), []
    gate = GateBefore(before, path, file) if before is not None else None
    for begin in rng.uniform(0.0, at[-1] - seconds, count):
        low, high = np.searchsorted(at, [begin, begin + seconds])
        if gate is not None:
            told = gate.judge(int(low), int(high), q, [factor * truth for factor in BUDGETS])
            outcomes = dict(zip([f"{factor:.2f}" for factor in BUDGETS], told, strict=True))
            windows.append({"begin_s": float(begin), "outcomes": outcomes})
            continue
        found = estimate(rounds[low:high], q, clock, log)
        outcomes = {f"{factor:.2f}": found.against(factor * truth) for factor in BUDGETS}
        windows.append(
            {
                "begin_s": round(float(begin), 1), "value": found.value_ms / truth,
                "interval": [end / truth for end in found.interval], "observed": found.observed_ms / truth,
                "slowdown": found.slowdown, "outcomes": outcomes,
            }
        )  # fmt: skip
    return {
        "trace": path.stem, "file": file, "gate": before or "now", "clock": clock, "seconds": seconds,
        "truth_ms": truth, "figures": figures(windows), "windows": [_line(window) for window in windows],
    }  # fmt: skip


def _line(window: dict[str, Any]) -> str:
    """A window in a line: begin, value, observed, slowdown, interval; then the outcomes, budget by budget."""
    single = (window.get(key) for key in ("begin_s", "value", "observed", "slowdown"))
    numbers = [*single, *window.get("interval", ())]
    told = "".join(_LETTERS[outcome] for outcome in window["outcomes"].values())
    return " ".join([*(f"{number:.4g}" for number in numbers if number is not None), told])


def figures(windows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Shares of wrong and of conclusive verdicts, by how far the budget is from the truth."""
    values = np.array([window["value"] for window in windows if "value" in window])
    found = {"bias": float(values.mean() - 1.0), "sd": float(values.std())} if len(values) else {}
    for distance in (0.05, 0.10, 0.15):
        below = [window["outcomes"][f"{1 - distance:.2f}"] for window in windows]
        above = [window["outcomes"][f"{1 + distance:.2f}"] for window in windows]
        wrong = below.count("met") + above.count("missed")
        right = below.count("missed") + above.count("met")
        found[f"wrong_{100 * distance:.0f}"] = wrong / (2 * len(windows))
        found[f"conclusive_{100 * distance:.0f}"] = (wrong + right) / (2 * len(windows))
    return found


def main() -> None:
    """Judge every trace, file and clock, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, nargs="+", default=[TRACES], help="folders of .npz files, or such files")
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0, 180.0])
    parser.add_argument("--percentile", type=float, default=95.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--before", metavar="COMMIT", help="judge with the gate of this commit as well")
    parser.add_argument("--name", default="latency_verdict")
    options = parser.parse_args()
    paths = [path for given in options.traces for path in (sorted(given.glob("*.npz")) if given.is_dir() else [given])]
    jobs = [
        (path, file, clock, seconds, options.windows, options.percentile, options.seed)
        for path in paths
        for clock in ("service", "response")
        for file in FILES
        for seconds in options.seconds
    ]
    jobs = [(*job, None) for job in jobs]
    if options.before is not None:
        whole = [path for path in paths if np.load(path, allow_pickle=False)["kernel_before"].shape[1] == 4]
        jobs += [(*job[:-1], options.before) for job in jobs if job[0] in whole and job[2] == "response"]
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(judge_windows, *zip(*jobs, strict=True)))
    print(f"{'trace':<10} {'file':<6} {'clock':<9} {'gate':<8} {'s':>4}   bias    sd   wrong, conclusive at 5, 10, 15%")
    for row in rows:
        f = row["figures"]
        shares = "   ".join(f"{f[f'wrong_{d}']:6.1%} {f[f'conclusive_{d}']:4.0%}" for d in (5, 10, 15))
        head = f"{row['trace']:<10} {row['file']:<6} {row['clock']:<9} {row['gate']:<8} {row['seconds']:4.0f}"
        spread = f"{f['bias']:+6.1%} {f['sd']:5.1%}" if "sd" in f else " " * 12
        print(f"{head}  {spread}  {shares}")
    write_record(options.name, {"budgets": BUDGETS, "rows": rows})


if __name__ == "__main__":
    main()
