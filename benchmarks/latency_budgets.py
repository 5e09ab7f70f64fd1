"""The plan's promise: over budgets from the fastest student to the quantised teacher, the exported file meets each.

    python benchmarks/latency_budgets.py --busy 0 2

Latency does not depend on weights, so nothing is trained: the teacher's head is new, each plan's choice is written
with random weights as the bundle that it would become, and judged as `validate` judges. What counts is what `compress`
would ship if quality were no question: it plans again after a miss and where a choice is too near its budget, and falls
back on the latter where what came after it missed. Unlike `compress`, which ships the nearest student as `missed` where
the first plan finds nothing that fits, this tries none then: such a budget has no plan.

Everything is done once for each number of busy processes beside it: latency table, plans and verdicts. A number that is
left out keeps what the record says of it. Says also how long the first plan on a machine takes, and each later one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latency_trace import busy
from record import RESULTS, write_record

from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.data.demo.generate import demo_encoder
from edgekd.data.generic import generic_split
from edgekd.latency.judge import Judgement
from edgekd.latency.machine import read_machine
from edgekd.latency.targets.build import build_target
from edgekd.models.teacher import load_encoder
from edgekd.pipeline.attempt import miss_factor
from edgekd.pipeline.sources import gather
from edgekd.pipeline.tries import REPLANS, leads_on
from edgekd.plan.device import Device
from edgekd.plan.finalists import cautious_ms, prove
from edgekd.plan.planner import Planner, planner_of
from edgekd.plan.stage import bench_of, make_plan, random_bundle
from edgekd.profiles import load_profile
from edgekd.proof.latency import judge_latency
from edgekd.proof.texts import fixed_texts
from edgekd.reading import read_json
from edgekd.records.plan import Candidate, Plan
from edgekd.records.result import thin
from edgekd.runtime.tokenise import load_tokenizer
from edgekd.session import Session
from edgekd.settings.profile import override
from edgekd.settings.request import Request
from edgekd.store import Store

LABELS = tuple(f"class {i}" for i in range(20))


def write_inputs(folder: Path, length: int) -> None:
    """A teacher whose head is new, and texts of `length` tokens with any labels."""
    torch.manual_seed(0)
    encoder = demo_encoder()
    load_encoder(encoder, LABELS, "sequence").save_pretrained(folder / "teacher")
    tokenizer = load_tokenizer(encoder)
    tokenizer.save(str(folder / "teacher" / "tokenizer.json"))
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    for name, count in (("train", 320), ("validation", 100), ("test", 100)):
        rows = []
        for i, text in enumerate(fixed_texts(tokenizer, generic_split(), length, seed=len(name))):
            rows += [
                {"text": f"{text} {i} {k}", "label": LABELS[int(rng.integers(20))]} for k in range(count // 64 + 1)
            ]
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:count]))


def planner_for(session: Session, folder: Path, length: int, budget_ms: float) -> Planner:
    """A planner for one budget."""
    settings = {"budget.latency_ms": budget_ms, "search.always_distill": True, "workload.max_length": length}
    profile = override(load_profile("cpu"), settings)
    request = Request(teacher=str(folder / "teacher"), data=str(folder / "data"), profile=profile)
    return planner_of(
        session, gather(session, request), Device.of(build_target(profile.target, session.log), session.store)
    )


@dataclass(frozen=True)
class Tried:
    """A try, as much of an `edgekd.pipeline.attempt.Attempt` as latency decides on."""

    candidate: Candidate
    judged: Judgement
    row: dict[str, Any]

    @property
    def outcome(self) -> str:
        """Of the latency, which is all there is."""
        return self.judged.outcome


def try_budget(session: Session, folder: Path, length: int, budget_ms: float) -> dict[str, Any]:
    """Plan for a budget, and judge what `compress` would ship."""
    planner = planner_for(session, folder, length, budget_ms)
    _ = planner.measured  # of the teacher, not of the device: a finished step in any later run
    started = time.monotonic()
    plan = make_plan(planner)
    row = {"budget_ms": budget_ms, "plan_seconds": time.monotonic() - started}
    if plan.choice is None:
        return row | {"tried": [], "outcome": "no plan", "reason": plan.reason, "used": 0.0}
    return row | shipped(planner, plan)


def shipped(planner: Planner, plan: Plan) -> dict[str, Any]:
    """The row of what `compress` would ship, whatever its quality: `tries.make_attempts` for latency alone."""
    tried: list[str] = []
    tries: list[dict[str, Any]] = []
    correction, set_aside = 1.0, None
    while True:
        made = judge_choice(planner, plan, plan.choice or plan.nearest())
        tried.append(made.outcome)
        tries.append({k: v for k, v in made.row.items() if k != "samples_ms"})
        factor = miss_factor(made.judged, made.candidate.best_known_ms, plan.headroom)
        if plan.choice is None or len(tried) > REPLANS or not (made.outcome == "missed" or factor > 1):
            break
        correction *= factor
        again = make_plan(planner, correction)
        if not leads_on(again, made):
            break
        set_aside = made if made.outcome == "inconclusive" else set_aside
        plan = again
    final = set_aside if set_aside is not None and made.outcome == "missed" else made
    return final.row | {"tried": tried, "tries": tries}


def judge_choice(planner: Planner, plan: Plan, choice: Candidate) -> Tried:
    """Write a plan's choice with random weights, and judge it."""
    session = plan.session or planner.device.target.session_spec()
    with tempfile.TemporaryDirectory() as scratch:
        job = random_bundle(planner, choice, session, Path(scratch))
        target = planner.device.target
        found = judge_latency(job.bundle, job.texts, target, planner.budget_ms, 95, planner.progress, "judge")
    value, clock = found.value_ms, found.clock
    row = {
        "tail": plan.tail, "correction": plan.correction, "outcome": found.outcome, "value_ms": value,
        "used": value / planner.budget_ms, "interval_ms": list(found.estimate.interval),
        "planned_ms": choice.measured_ms,
        "choice": choice.describe(), "session": session.model_dump(mode="json"), "clock": clock,
        "observed_ms": found.estimate.observed_ms, "slowdown": found.estimate.slowdown, "reason": found.reason,
        "calls": found.measurement.calls, "samples_ms": thin(found.measurement.samples(clock).tolist()),
    }  # fmt: skip
    return Tried(choice, found, row)


def fastest_ms(planner: Planner) -> float:
    """The smallest student of the space, measured whole three times: the tail of so short a call is any but steady."""
    floor = next(c for c in make_plan(planner).candidates if c.kind == "student")
    session = planner.device.target.session_spec()
    return float(np.median([cautious_ms(prove(bench_of(planner), floor, session), 0.07) for _ in range(3)]))


def try_budgets(
    folder: Path, inputs: Path, length: int, count: int, keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Plan and judge budgets from the fastest student to the quantised teacher, on a store of its own.

    Args:
        keep: Called with what is known after each budget: a run that is ended early has a record.
    """
    session = Session.open(Store(folder), ConsoleProgress(error_console()))
    first = planner_for(session, inputs, length, 0.01)
    _ = first.measured, first.exported  # what any plan finds ready: of the teacher, not of the device
    started = time.monotonic()
    floor = fastest_ms(first)
    slowest = first.latency.measured_ms["int8"]
    table_seconds = time.monotonic() - started
    print(f"fastest {floor:.2f} ms, INT8 teacher {slowest:.2f} ms, {table_seconds:.1f} s", flush=True)
    rows = []
    # The first is what the fastest student just meets with the headroom left.
    for budget in np.geomspace(floor / (1 - 0.07), slowest, count):
        rows.append(try_budget(session, inputs, length, float(budget)))
        for made in rows[-1].get("tries", ())[:-1]:
            print("  tried", {k: v for k, v in made.items() if k != "session"}, flush=True)
        print({k: v for k, v in rows[-1].items() if k not in ("samples_ms", "session", "tries")}, flush=True)
        found = figures(rows, floor, slowest, table_seconds)
        keep(found)
    return found


def figures(rows: list[dict[str, Any]], floor: float, slowest: float, table_seconds: float) -> dict[str, Any]:
    """What is known after so many budgets."""
    return {
        "fastest_ms": floor, "int8_teacher_ms": slowest, "first_plan_seconds": table_seconds,
        "later_plan_seconds": [row["plan_seconds"] for row in rows],
        "planned": sum(row["outcome"] != "no plan" for row in rows),
        "met": sum(row["outcome"] == "met" for row in rows),
        "used_85": sum(row["outcome"] == "met" and row["used"] >= 0.85 for row in rows), "rows": rows,
    }  # fmt: skip


def keep_half(content: dict[str, Any], name: str, found: dict[str, Any]) -> None:
    """Write the record with what is known of one half."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    content[name] = {"date": date, "machine": read_machine().to_json(), **found}
    write_record("latency_budgets", content)


def main() -> None:
    """Budgets alone, then beside other load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=64, help="tokens a text")
    parser.add_argument("--budgets", type=int, default=20, help="for each number of processes")
    parser.add_argument("--busy", nargs="+", type=int, default=[0], help="numbers of processes of other load")
    options = parser.parse_args()
    record = RESULTS / "latency_budgets.json"
    known = read_json(record) if record.is_file() else {}
    content: dict[str, Any] = {key: half for key, half in known.items() if key.startswith("beside ")}
    content["length"] = options.length
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, options.length)
        for count in options.busy:
            with busy(count):
                keep = partial(keep_half, content, f"beside {count} processes")
                found = try_budgets(folder / f"store{count}", folder, options.length, options.budgets, keep)
            print(count, {k: v for k, v in found.items() if k != "rows"}, flush=True)


if __name__ == "__main__":
    main()
