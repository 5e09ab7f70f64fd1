"""What several budgets cost together, and whether the student chosen by accuracy is the best of those that fit.

    python benchmarks/family.py --data ../shared/data --out ./out

Family: three budgets in one run against three runs of one budget each, every run with a store of its own, so that
nothing but the teacher is shared; seconds of the whole, and each member's test score beside its single run's. Elastic:
the same of five budgets. With --made-up both ask a made-up device, whose plans no busy machine moves and which takes no
time: then the cost is of everything but measuring, and a member's plan is its single run's.
Selection: at each budget, every student that competes by accuracy is also trained alone; the choice is held against
the best of them on test. That asks a made-up device, so that a busy machine does not say who competes.

The teacher, a fine-tuned MiniLM-L6, sees 10 labels a class of clinc150; 4,000 texts are unlabelled. Finished steps of
the selection are in the store; a timed run that has finished is kept in the output folder and not made again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from few_labels import few_labels
from record import write_record

import edgekd
from edgekd.assistants.by_accuracy import by_accuracy, fitting
from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.data.demo.generate import demo_encoder
from edgekd.data.read import read_data
from edgekd.data.split import Split
from edgekd.distill.engine import Engine
from edgekd.distill.predict import predict_rows
from edgekd.distill.student import Start, distill, load_student
from edgekd.latency.targets.build import build_target
from edgekd.models.initialize import slice_weights
from edgekd.pipeline.compress import compress
from edgekd.pipeline.family import compress_family
from edgekd.pipeline.sources import gather
from edgekd.plan.device import Device
from edgekd.plan.planner import Planner, planner_of
from edgekd.plan.stage import make_plan
from edgekd.plan.weights import importance_of
from edgekd.profiles import load_profile
from edgekd.reading import read_json
from edgekd.records.plan import Plan
from edgekd.records.result import Result
from edgekd.session import Session, teach_from
from edgekd.settings.profile import Profile, override
from edgekd.settings.request import Request
from edgekd.settings.shape import Slice
from edgekd.settings.task import TextClassification
from edgekd.store import Store, default_root, write_json

LABELS, UNLABELLED, VALIDATION = 10, 4000, 1000

# Budgets as shares of the teacher's FP32 p95, of the smaller family and of the larger.
SHARES, MANY_SHARES = (0.12, 0.25, 0.5), (0.12, 0.2, 0.3, 0.4, 0.5)
MADE_UP = {"kind": "fake", "gflops": 20.0}

COST_GOAL, MEMBER_GOAL, SELECT_GOAL = 0.7, 0.5, 0.3


def write_data(source: Path, folder: Path, seed: int) -> None:
    """clinc150 with few labels, as the files that a user has."""
    whole = read_data(source / "clinc150", task=TextClassification())
    data = few_labels(whole, LABELS, seed, unlabelled=UNLABELLED, validation=VALIDATION)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "validation", "test", "unlabeled"):
        split: Split | None = getattr(data, name)
        assert split is not None
        labels: Sequence[str | None] = [None] * len(split) if split.labels is None else [str(x) for x in split.labels]
        rows = [
            {"text": text} | ({} if label is None else {"label": label})
            for text, label in zip(split.texts, labels, strict=True)
        ]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def timed(
    file: Path, asked: Mapping[str, Any], make: Callable[[Session], list[Result]], threads: int
) -> dict[str, Any]:
    """Seconds of a run with an empty store, and its bundles; as the file has it, if it was asked the same."""
    if file.is_file() and (known := read_json(file))["asked"] == asked:
        return dict(known)
    with tempfile.TemporaryDirectory(prefix="edgekd-family-") as root:
        session = Session(Store(Path(root)), Engine.detect(threads, ConsoleProgress(error_console())))
        began = time.monotonic()
        results = make(session)
        found = {
            "asked": dict(asked), "finished": datetime.now(UTC).isoformat(), "seconds": time.monotonic() - began,
            "bundles": [summary(result) for result in results],
        }  # fmt: skip
    write_json(file, found)
    return found


def summary(result: Result) -> dict[str, Any]:
    """One bundle."""
    shipped, chosen = result.shipped, result.chosen
    assert shipped is not None
    return {
        "budget_ms": result.budget_ms, "outcome": result.outcome, "score": shipped.score,
        "student": None if chosen is None else chosen.shape, "model": shipped.name, "timings": result.timings,
        "elastic": bool(result.origin),
    }  # fmt: skip


def run_family(request: Request, budgets: Sequence[float], out: Path, threads: int) -> dict[str, Any]:
    """The family and its members' single runs, timed."""
    asked = {"request": request.model_dump(mode="json"), "budgets_ms": list(budgets), "version": edgekd.__version__}

    def single(budget: float) -> dict[str, Any]:
        profile = override(request.profile, {"budget.latency_ms": budget})
        one, folder = request.model_copy(update={"profile": profile}), out / f"single-{budget:g}ms"
        file = out / f"single-{budget:g}ms.json"
        return timed(file, asked, lambda s: [compress(s, one, folder, overwrite=True)], threads)

    out.mkdir(parents=True, exist_ok=True)
    family = timed(
        out / "family-timed.json", asked,
        lambda s: compress_family(s, request, budgets, out / "family", overwrite=True)[1], threads,
    )  # fmt: skip
    singles = [single(budget) for budget in budgets]
    cost = family["seconds"] / sum(each["seconds"] for each in singles)
    pairs = zip(family["bundles"], singles, strict=True)
    gaps = [100 * (alone["bundles"][0]["score"] - member["score"]) for member, alone in pairs]
    for each in (family, *singles):
        del each["asked"]  # names folders of this machine
    return {
        "family": family, "singles": singles, "cost": cost, "points_behind_single": gaps,
        "reached": {"cost": cost <= COST_GOAL, "members": max(gaps) <= MEMBER_GOAL},
    }  # fmt: skip


def run_selection(planner: Planner, plan: Plan) -> dict[str, Any]:
    """The choice by accuracy at one budget, and every competitor trained alone."""
    competitors = fitting(planner, plan)
    if len(competitors) < 2 or plan.choice is None:
        return {"budget_ms": planner.budget_ms, "competitors": [], "reason": "nothing to choose from", "reached": None}
    chosen = by_accuracy(planner, plan)
    assert chosen.choice is not None
    assert chosen.choice.choice is not None
    scores = {choice: trained_alone(planner, choice) for choice in competitors}
    rows = [
        {"choice": choice.model_dump(mode="json"), "test": score, "chosen": choice == chosen.choice.choice}
        for choice, score in scores.items()
    ]
    behind = 100 * (max(scores.values()) - scores[chosen.choice.choice])
    return {
        "budget_ms": planner.budget_ms, "competitors": rows, "reason": chosen.reason,
        "by_importance": scores[plan.choice.choice] if plan.choice and plan.choice.choice in scores else None,
        "points_behind_best": behind, "reached": behind <= SELECT_GOAL,
    }  # fmt: skip


def trained_alone(planner: Planner, choice: Slice) -> float:
    """Test score of one slice of the teacher after the whole of its own training."""
    session, inputs = planner.session, planner.inputs
    hosted = inputs.teacher.hosted
    assert hosted is not None
    start = Start(*slice_weights(*hosted, importance_of(session, inputs).importance, choice), inputs.task.labels)
    made = distill(
        session.store, session.engine, start, inputs.task, inputs.lesson(), inputs.profile.distill, "alone"
    )[-1]  # fmt: skip
    rows = predict_rows(load_student(made.path), inputs.test.encodings, session.engine)
    return inputs.test.score(inputs.task, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with clinc150")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), help="folder for the bundles")
    parser.add_argument("--steps", type=int, default=400, help="of each student")
    parser.add_argument("--finalists", type=int, default=4, help="students that compete by accuracy, at most")
    parser.add_argument(
        "--budgets", type=float, nargs="+", help="milliseconds of the family, not shares of the teacher's"
    )
    parser.add_argument("--made-up", action="store_true", help="families on a made-up device")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument("--only", choices=("family", "elastic", "selection"))
    options = parser.parse_args()
    session = Session(Store(default_root()), Engine.detect(options.threads, ConsoleProgress(error_console())))
    folder = options.out / "family-data"
    write_data(options.data, folder, seed=0)
    base = override(load_profile("cpu"), {"teach.training.epochs": 12, "teach.training.patience": 8})
    taught = teach_from(session, str(demo_encoder()), read_data(folder, task=TextClassification()), base)

    def asked(**changes: Any) -> Request:
        profile: Profile = override(
            base,
            {
                "search.always_distill": True,
                "distill.stages": [{"max_steps": options.steps}],
                "budget.latency_ms": 1000.0,
            }
            | changes,
        )
        return Request(teacher=str(taught.path), data=str(folder), task=TextClassification(), profile=profile)

    def planner(request: Request) -> Planner:
        device = Device.of(build_target(request.profile.target, session.log), session.store)
        return planner_of(session, gather(session, request), device)

    content: dict[str, Any] = {"steps": options.steps}
    place = {"target": MADE_UP} if options.made_up else {}
    if options.only != "selection":
        p95 = planner(asked(**place)).latency.p95_ms["fp32"]
        budgets = options.budgets or [round(share * p95, 2) for share in SHARES]
        content |= {"teacher_p95_ms": p95, "budgets_ms": budgets}
    if options.only in (None, "elastic"):
        many = [round(share * p95, 2) for share in MANY_SHARES]
        content["elastic"] = run_family(asked(**place), many, options.out / "elastic", options.threads)
        print({k: v for k, v in content["elastic"].items() if k not in ("family", "singles")})
    if options.only in (None, "family"):
        content["family"] = run_family(asked(**place), budgets, options.out, options.threads)
        print({k: v for k, v in content["family"].items() if k not in ("family", "singles")})
    if options.only in (None, "selection"):
        # What is chosen by accuracy among those that fit does not ask how latency was measured: a made-up device.
        changes = {"search.select": "accuracy", "search.finalists": options.finalists, "target": MADE_UP}
        p95 = planner(asked(**changes)).latency.p95_ms["fp32"]
        budgets = [share * p95 for share in SHARES]
        planners = [planner(asked(**changes, **{"budget.latency_ms": budget})) for budget in budgets]
        plans = [make_plan(each) for each in planners]  # all before the first is trained: a plan wants a quiet machine
        content["selection"] = [run_selection(each, plan) for each, plan in zip(planners, plans, strict=True)]
        for found in content["selection"]:
            print(found["budget_ms"], found.get("points_behind_best"), "points behind the best;", found["reason"])
    name = "_".join(["family", *([options.only] if options.only else []), *(["made_up"] if options.made_up else [])])
    print("written:", write_record(name, content))


if __name__ == "__main__":
    main()
