"""The plan's promise: over budgets from the fastest student to the quantised teacher, the exported file meets each.

    python benchmarks/latency_budgets.py

Latency does not depend on weights, so nothing is trained: the teacher's head is new, each plan's choice is written
with random weights as the bundle that it would become, judged as `validate` judges, and planned again where `compress`
would. Says also how long the first plan on a machine takes, and each later one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import write_record

from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.data.demo.generate import demo_encoder
from edgekd.data.generic import generic_split
from edgekd.latency.measure import Judgement
from edgekd.models.teacher import load_encoder
from edgekd.pipeline.attempt import miss_factor
from edgekd.pipeline.compress import REPLANS, gather, planner_of
from edgekd.plan.finalists import prove
from edgekd.plan.result import Plan
from edgekd.plan.stage import Device, Planner
from edgekd.profile import load, override
from edgekd.proof.validate import fixed_texts, judge_latency
from edgekd.request import Request
from edgekd.runtime.tokenise import load_tokenizer
from edgekd.session import Session
from edgekd.store import Store
from edgekd.targets.build import build_target

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
    profile = override(load("cpu"), settings)
    request = Request(teacher=str(folder / "teacher"), data=str(folder / "data"), profile=profile)
    return planner_of(session, gather(session, request), Device.of(build_target(profile.target), session.store))


def try_budget(session: Session, folder: Path, length: int, budget_ms: float) -> dict[str, Any]:
    """Plan for a budget, write the choice, judge it; plan again where `compress` would."""
    planner = planner_for(session, folder, length, budget_ms)
    _ = planner.measured  # of the teacher, not of the device: a finished step in any later run
    started = time.monotonic()
    plan = planner.make()
    row: dict[str, Any] = {"budget_ms": budget_ms, "plan_seconds": time.monotonic() - started, "tries": 0}
    correction = 1.0
    while (choice := plan.choice) is not None:
        found, judged = judge_choice(planner, plan)
        row |= judged | {"tries": row["tries"] + 1}
        factor = miss_factor(found, choice.best_known_ms, plan.headroom)
        if factor <= 1 or row["tries"] > REPLANS:
            break
        correction *= factor
        again = planner.make(correction)
        if again.choice is None or again.choice.same_model(choice):
            break
        plan = again
    return row if row["tries"] else row | {"outcome": "no plan", "reason": plan.reason, "used": 0.0}


def judge_choice(planner: Planner, plan: Plan) -> tuple[Judgement, dict[str, Any]]:
    """The verdict on a plan's choice, and what the record keeps of it."""
    choice, session = plan.choice, plan.session or planner.device.target.session_spec()
    assert choice is not None
    with tempfile.TemporaryDirectory() as scratch:
        job = planner.random_bundle(choice, session, Path(scratch))
        target = planner.device.target
        found = judge_latency(job.bundle, job.texts, target, planner.budget_ms, 95, planner.progress, "judge")
    value = found.measurement.percentile(95)
    return found, {
        "tail": plan.tail, "correction": plan.correction, "outcome": found.outcome, "value_ms": value,
        "used": value / planner.budget_ms, "interval_ms": list(found.interval), "planned_ms": choice.measured_ms,
        "choice": choice.describe(), "session": session.model_dump(mode="json"), "looks": found.looks,
        "disturbed": found.measurement.disturbed_share, "reason": found.reason,
        "samples_ms": found.measurement.samples().tolist(),
    }  # fmt: skip


def fastest_ms(planner: Planner) -> float:
    """The fastest student, measured whole: the floor that a plan for an impossible budget names."""
    students = [c for c in planner.make().candidates if c.kind == "student"]
    floor = min(students, key=lambda c: c.best_known_ms)
    session = planner.device.target.session_spec()
    return max(prove(planner.bench(), floor, session, floor.best_known_ms).cautious_ms(0.07) for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=64, help="tokens a text")
    parser.add_argument("--budgets", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, options.length)
        session = Session.open(Store(folder / "store"), ConsoleProgress(error_console()))
        first = planner_for(session, folder, options.length, 0.01)
        _ = first.measured, first.exported  # what any plan finds ready: of the teacher, not of the device
        started = time.monotonic()
        floor = fastest_ms(first)
        slowest = first.latency.measured_ms["int8"]
        print(f"fastest {floor:.2f} ms, INT8 teacher {slowest:.2f} ms, {time.monotonic() - started:.1f} s", flush=True)
        table_seconds = time.monotonic() - started
        rows = []
        # A budget that the fastest student just meets leaves no headroom: the plan must refuse it.
        for budget in np.geomspace(floor / (1 - 0.07), slowest, options.budgets):
            rows.append(try_budget(session, folder, options.length, float(budget)))
            print({k: v for k, v in rows[-1].items() if k not in ("samples_ms", "session")}, flush=True)
    met = sum(row["outcome"] == "met" for row in rows)
    used = sum(row["outcome"] == "met" and row["used"] >= 0.85 for row in rows)
    print(f"met {met} of {len(rows)}, {used} use 85% or more")
    content = {
        "length": options.length, "fastest_ms": floor, "int8_teacher_ms": slowest,
        "device_and_teacher_seconds": table_seconds, "first_plan_seconds": table_seconds + rows[0]["plan_seconds"],
        "later_plan_seconds": float(np.median([row["plan_seconds"] for row in rows])),
        "met": met, "used_85": used, "rows": rows,
    }  # fmt: skip
    print("written:", write_record("latency_budgets", content))


if __name__ == "__main__":
    main()
