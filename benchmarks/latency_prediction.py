"""Prediction of the median latency on random per-layer shapes that were never used in the fit.

    python benchmarks/latency_prediction.py --busy 2

For each length: the latency table is measured as a plan measures it; then random shapes twice, in turns. The second
measurement of the same graphs is the noise floor that no prediction can beat. The table's minutes are others than the
shapes': what a user gets, the machine's own drift included. Service times at the machine's usual speed; with --busy
once more beside so many processes of other load.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from latency_trace import busy
from record import write_record

from edgekd.latency.interval import steady_medians
from edgekd.latency.machine import detect_instruction_set
from edgekd.latency.measure import compare
from edgekd.latency.speed_log import SpeedLog
from edgekd.latency.table import LatencyTable, measure_table, narrowed, write_graph
from edgekd.latency.targets.build import build_target
from edgekd.latency.timer import GraphJob
from edgekd.plan.space import widths_of
from edgekd.settings.export import GraphOptions
from edgekd.settings.plan import Search
from edgekd.settings.shape import EncoderShape, HeadShape
from edgekd.settings.target import CpuTarget, Precision

# MiniLM-L6 as a classifier.
TEACHER = EncoderShape(
    vocabulary=30522, positions=512, token_types=2, embedding=384, hidden=384, head_size=32, heads=(12,) * 6,
    ffn=(1536,) * 6, head=HeadShape(kind="sequence", labels=150, activation="tanh"),
)  # fmt: skip
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def random_shapes(count: int, widths: list[int], seed: int) -> list[EncoderShape]:
    """Per-layer shapes with any number of heads and any multiple of 8 neurons."""
    rng = np.random.default_rng(seed)
    shapes = []
    for i in range(count):
        depth = int(rng.integers(1, TEACHER.depth + 1))
        heads = rng.integers(1, 13, depth).tolist()
        ffn = (8 * rng.integers(16, 193, depth)).tolist()
        shapes.append(narrowed(TEACHER, widths[i % len(widths)], heads, ffn))
    return shapes


def run_length(length: int, count: int, rounds: int, busy_processes: int) -> dict[str, Any]:
    """Fit and judge the predictions at one length, both precisions."""
    log = SpeedLog()
    target, instruction_set = build_target(CpuTarget(), log), detect_instruction_set()
    widths = widths_of(TEACHER, Search().widths)
    started = time.monotonic()
    table = measure_table(
        target, TEACHER, widths, PRECISIONS, batch_size=1, length=length, options=GraphOptions(),
        instruction_set=instruction_set,
    )  # fmt: skip
    seconds = time.monotonic() - started
    cases = [(p, shape) for p in PRECISIONS for shape in random_shapes(count, widths, seed=length)]
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write_graph(Path(folder) / f"{i}.onnx", shape, precision, GraphOptions(), instruction_set)
            for i, (precision, shape) in enumerate(cases)
        ]
        jobs = [GraphJob(f"{i} {k}", path, 1, length) for i, path in enumerate(paths) for k in ("a", "b")]
        measured = compare(jobs, target, processes=1, rounds=rounds, calls=6)
    medians = steady_medians(measured, target.clock, log.looks())
    return {
        "length": length, "busy": busy_processes, "table_seconds": seconds,
        "residuals": [c.residual for c in table.costs], "speed": log.summary(),
        **{precision: judge(precision, cases, table, medians) for precision in PRECISIONS},
    }  # fmt: skip


def judge(
    precision: Precision, cases: list[tuple[Precision, EncoderShape]], table: LatencyTable, medians: dict[str, float]
) -> dict[str, Any]:
    """Errors of the predictions, and of measuring again."""
    mine = [i for i, (p, _) in enumerate(cases) if p == precision]
    predicted = np.array([table.median_ms(cases[i][1], precision) for i in mine])
    first = np.array([medians[f"{i} a"] for i in mine])
    second = np.array([medians[f"{i} b"] for i in mine])
    truth = (first + second) / 2
    errors = np.abs(predicted / truth - 1)
    ranks = [np.argsort(np.argsort(x)) for x in (predicted, truth)]
    return {
        "mape": float(errors.mean()),
        "worst": float(errors.max()),
        "bias": float((predicted / truth - 1).mean()),
        "spearman": float(np.corrcoef(*ranks)[0, 1]),
        "noise_mape": float(np.abs(second / first - 1).mean()),
        "samples": [
            {"shape": cases[i][1].describe(), "predicted": float(p), "a": float(a), "b": float(b)}
            for i, p, a, b in zip(mine, predicted, first, second, strict=True)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=[16, 64, 128])
    parser.add_argument("--shapes", type=int, default=30, help="random shapes a length and precision")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--busy", type=int, default=0, help="processes of other load, in a second run of each length")
    options = parser.parse_args()
    found = []
    for count, length in itertools.product(sorted({0, options.busy}), options.lengths):
        with busy(count):
            found.append(run_length(length, options.shapes, options.rounds, count))
        for precision in PRECISIONS:
            row = {k: round(v, 4) for k, v in found[-1][precision].items() if k != "samples"}
            print(length, f"busy {count}", precision, row, flush=True)
        print(f"{length} table {found[-1]['table_seconds']:.0f} s, speed {found[-1]['speed']}", flush=True)
    print("written:", write_record("latency_prediction", {"lengths": found}))


if __name__ == "__main__":
    main()
