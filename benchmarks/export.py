r"""This product's files against optimum's and OpenVINO's, same weights, side by side in one run; and what INT8 costs.

    python benchmarks/export.py --rivals ./rival-files --rivals-python rivals/bin/python \
        --quality clinc150 ./bundle ./data

`benchmarks/export_rivals.py` makes the rival files, in an environment of its own. Every file is loaded with the
default session options on one thread; all are measured in turns, in fresh processes. A ratio is this product's time
over the rival's in the same round, with its 95% interval over rounds. `--quality` takes finished
bundles: what their INT8 file costs against their FP32 file on the test set, and how many answers are the same.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import write_record
from transformers import BertForSequenceClassification

from edgekd.data.read import read_data
from edgekd.export.guard import agreement
from edgekd.export.stage import onnx_rows
from edgekd.graph.parity import compare_logits, run_onnx
from edgekd.graph.quantize import quantize_dynamic
from edgekd.graph.variants import fused_nodes
from edgekd.graph.writer import save_model, write_student
from edgekd.latency.interval import round_ratio
from edgekd.latency.machine import detect_instruction_set
from edgekd.latency.measure import Measurement
from edgekd.latency.targets.build import build_target
from edgekd.latency.timer import GraphJob, RoundSample
from edgekd.models.families import host
from edgekd.profiles import load_request
from edgekd.runtime.config import read_config
from edgekd.runtime.tokenise import load_tokenizer
from edgekd.settings.target import CpuTarget
from edgekd.settings.task import TextClassification
from edgekd.tasks.build import build_task

FP32_RIVALS = ("o0", "o1", "o2", "o3")
OPTIMUM_INT8, OPENVINO_INT8 = "int8_avx512_vnni", "openvino_int8"
MINE_FP32, MINE_INT8 = "edgekd", "edgekd_int8"

FP32_TARGET, OPENVINO_TARGET = 1.02, 1.0
INT8_TARGETS = {16: 1.0, 32: 1.0, 64: 0.85, 128: 0.85}
DROP_TARGET, AGREEMENT_TARGET = 0.3, 0.99

# A round of one file takes about this long.
ROUND_MS = 40.0


class OpenVino:
    """An OpenVINO model timed in processes of the rivals' environment."""

    def __init__(self, python: Path, model: Path, length: int, processes: int) -> None:
        script = Path(__file__).with_name("export_rivals.py")
        command = [str(python), str(script), "--serve", str(model), "--length", str(length)]
        self.turn = 0
        self.children = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
            for _ in range(processes)
        ]

    def round(self, calls: int) -> tuple[float, ...]:
        """Milliseconds of each call, in the process whose turn it is."""
        child = self.children[self.turn % len(self.children)]
        self.turn += 1
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{calls}\n")
        child.stdin.flush()
        return tuple(json.loads(child.stdout.readline()))

    def close(self) -> None:
        """End the processes."""
        for child in self.children:
            child.kill()
            child.wait()


def mine(rival: Path, folder: Path) -> dict[str, Path]:
    """Write the rival's weights with this product: FP32, and INT8 as it ships; checked to be the same function."""
    hosted = host(BertForSequenceClassification.from_pretrained(rival / "model").eval())
    assert hosted is not None
    files = {MINE_FP32: folder / "edgekd.onnx", MINE_INT8: folder / "edgekd_int8.onnx"}
    save_model(write_student(*hosted), files[MINE_FP32])
    quantize_dynamic(files[MINE_FP32], files[MINE_INT8], instruction_set="avx512_vnni")
    ids = np.random.default_rng(0).integers(1000, 30000, (4, 32))
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    (theirs,), (ours,) = run_onnx(rival / "o0.onnx", [batch]), run_onnx(files[MINE_FP32], [batch])
    gap = compare_logits(theirs, ours).max_abs_gap
    if gap > 1e-3:
        raise SystemExit(f"{rival}: the two FP32 graphs differ by {gap:.2g}: not the same weights")
    return files


def measure(
    files: Mapping[str, Path], openvino: OpenVino | None, length: int, rounds: int, processes: int
) -> dict[str, Measurement]:
    """Measure all files in turns, in a random order each time."""
    target = build_target(CpuTarget())
    jobs = [GraphJob(name, path, 1, length) for name, path in files.items()]
    names = [*files, *([OPENVINO_INT8] if openvino is not None else [])]
    taken: dict[str, list[RoundSample]] = {name: [] for name in names}
    order = np.random.default_rng(0)
    with target.timer(jobs, processes) as timer:
        calls = {name: _calls(timer.round(name, 3).wall_ms) for name in files}
        if openvino is not None:
            calls[OPENVINO_INT8] = _calls(openvino.round(3))
        last = timer.round(names[0], 3)
        for _ in range(rounds * processes):
            for name in (names[i] for i in order.permutation(len(names))):
                if name == OPENVINO_INT8 and openvino is not None:
                    # Another process and another library: only the wall is read in it.
                    sample = RoundSample(last.process, last.at, openvino.round(calls[name]))
                else:
                    sample = last = timer.round(name, calls[name])
                taken[name].append(sample)
    return {name: Measurement(name, tuple(taken[name]), ()) for name in names}


def _calls(milliseconds: Sequence[float]) -> int:
    return int(np.clip(round(ROUND_MS / float(np.median(milliseconds))), 3, 40))


def judged(found: Mapping[str, Measurement], mine: str, rival: str, target: float) -> dict[str, Any]:
    """This product's file over a rival's; reached if the upper end of the interval is."""
    value, low, high = round_ratio(found[rival].rounds, found[mine].rounds, "response")
    return {
        "mine": mine, "rival": rival, "target": target, "ratio": value, "interval": (low, high),
        "reached": high <= target if math.isfinite(high) else None,
    }  # fmt: skip


def speed(rivals: Path, python: Path, lengths: Sequence[int], rounds: int, processes: int) -> list[dict[str, Any]]:
    """All ratios of one uniform student."""
    table = []
    with tempfile.TemporaryDirectory() as name:
        files = mine(rivals, Path(name))
        files |= {rival: rivals / f"{rival}.onnx" for rival in (*FP32_RIVALS, OPTIMUM_INT8)}
        fused = {rival: fused_nodes(path) for rival, path in files.items()}
        for length in lengths:
            openvino = OpenVino(python, rivals / f"{OPENVINO_INT8}.xml", length, processes)
            try:
                found = measure(files, openvino, length, rounds, processes)
            finally:
                openvino.close()
            medians = {file: measured.percentile(50, "response") for file, measured in found.items()}
            best = min(FP32_RIVALS, key=lambda rival: medians[rival])
            ratios = [
                judged(found, MINE_FP32, best, FP32_TARGET),
                judged(found, MINE_INT8, OPTIMUM_INT8, INT8_TARGETS.get(length, 1.0)),
                judged(found, MINE_INT8, OPENVINO_INT8, OPENVINO_TARGET),
            ]
            row = {"student": rivals.name, "length": length, "median_ms": medians, "ratios": ratios}
            table.append(row | {"fused": fused})
            print(markdown(table[-1]), flush=True)
    return table


def markdown(row: dict[str, Any]) -> str:
    """One length as people read it."""
    medians = ", ".join(f"{name} {ms:.2f}" for name, ms in row["median_ms"].items())
    lines = [f"{row['student']}, {row['length']} tokens (ms: {medians})"]
    for found in row["ratios"]:
        lower, upper = found["interval"]
        verdict = {True: "reached", False: "not reached", None: "too few rounds to tell"}[found["reached"]]
        lines.append(
            f"  {found['mine']} / {found['rival']}: {found['ratio']:.3f} ({lower:.3f} to {upper:.3f}), "
            f"at most {found['target']:g}: {verdict}"
        )
    return "\n".join(lines)


def quality(name: str, bundle: Path, data: Path) -> dict[str, Any]:
    """What a bundle's INT8 file costs on the test set, one text a call."""
    request, config = load_request(bundle / "edgekd.yaml"), read_config(bundle / "config.json")
    split = read_data(data, task=request.task, columns=request.columns).test
    assert split is not None
    task = build_task(request.task or TextClassification(), config.labels)
    encodings = task.encode(load_tokenizer(bundle), split, config.max_length)
    rows = {p: onnx_rows(bundle / "onnx" / f"{p}.onnx", encodings) for p in ("model", "model_quantized")}
    gold, answers = task.gold(split), {p: task.answers(task.decide(found), encodings) for p, found in rows.items()}
    exact, quantised = (task.metric(gold, answers[p]) for p in rows)
    found = {
        "data": name,
        "texts": len(split),
        "metric": task.metric_name,
        "fp32": exact,
        "int8": quantised,
        "drop": 100 * (exact - quantised),
        "agreement": agreement(task, *rows.values()),
    }
    print(
        f"{name}: FP32 {100 * exact:.2f}, INT8 {100 * quantised:.2f}, {found['drop']:+.2f} points lost, "
        f"{100 * found['agreement']:.2f}% of the answers the same",
        flush=True,
    )
    return found


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the bundles, against what is wanted."""
    drop, same = (float(np.mean([row[key] for row in rows])) for key in ("drop", "agreement"))
    print(f"mean: {drop:+.2f} points lost (at most {DROP_TARGET}), {100 * same:.2f}% the same (at least 99)")
    return {
        "drop": drop,
        "agreement": same,
        "reached": {"drop": drop <= DROP_TARGET, "agreement": same >= AGREEMENT_TARGET},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", type=Path, help="folder that benchmarks/export_rivals.py wrote")
    parser.add_argument("--rivals-python", type=Path, help="Python of the rivals' environment: it runs OpenVINO")
    parser.add_argument("--lengths", nargs="+", type=int, default=[16, 32, 64, 128])
    parser.add_argument("--rounds", type=int, default=15, help="of each file in each process")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument(
        "--quality", nargs=3, action="append", default=[], metavar=("NAME", "BUNDLE", "DATA"), help="may be repeated"
    )
    parser.add_argument("--name", default="export", help="name of the result file; empty writes none")
    options = parser.parse_args()
    content: dict[str, Any] = {"instruction_set": detect_instruction_set()}
    if options.rivals is not None:
        if options.rivals_python is None:
            parser.error("--rivals needs --rivals-python")
        content["rivals"] = json.loads((options.rivals / "versions.json").read_text())
        content["speed"] = [
            row
            for folder in sorted(options.rivals.glob("*-layers"), reverse=True)
            for row in speed(folder, options.rivals_python, options.lengths, options.rounds, options.processes)
        ]
    if options.quality:
        rows = [quality(name, Path(bundle), Path(data)) for name, bundle, data in options.quality]
        content["quality"] = {"rows": rows, "mean": summary(rows)}
    if options.name:
        print("written:", write_record(options.name, content))


if __name__ == "__main__":
    main()
