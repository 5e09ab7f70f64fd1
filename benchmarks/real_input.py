"""Real input: teach a teacher, then compress to one quarter of its FP32 ONNX p95 (same length, one thread).

    python benchmarks/real_input.py --data ../shared/data --sets clinc150 mr snips
    python benchmarks/real_input.py --data ../shared/data --sets snips-joint

Finished steps are kept in the store, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from record import write_record

from edgekd.bundle import write_core
from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.data.demo.generate import demo_encoder
from edgekd.data.read import read_data
from edgekd.export.stage import onnx_rows
from edgekd.latency.interval import round_ratio
from edgekd.latency.measure import compare
from edgekd.latency.targets.build import build_target
from edgekd.latency.timer import BundleJob
from edgekd.pipeline.compress import compress
from edgekd.pipeline.sources import gather
from edgekd.plan.device import Device
from edgekd.plan.planner import Planner, planner_of
from edgekd.profiles import load_profile
from edgekd.records.result import Result
from edgekd.session import Session, teach_from
from edgekd.settings.profile import Profile, override
from edgekd.settings.request import Request
from edgekd.settings.task import JointIntentSlots, TaskSpec, TextClassification, TokenClassification
from edgekd.store import Store, default_root


@dataclass(frozen=True)
class Goal:
    """One set and what is to be reached on it.

    Attributes:
        folder: Of the data.
        task: The task.
        settings: Of the teacher.
        seeds: Seeds of the student.
        kept: Share of the teacher's metric to keep, the mean over seeds.
        points: By part of the metric, how many points below the teacher the mean over seeds may be.
    """

    folder: str
    task: TaskSpec
    settings: dict[str, Any]
    seeds: int
    kept: float = 0.0
    points: dict[str, float] = field(default_factory=dict)


SETS = {
    "clinc150": Goal(
        "clinc150", TextClassification(), {"teach.training.epochs": 5, "teach.training.head_rate": 1}, 1, 0.99
    ),
    "mr": Goal("mr", TextClassification(), {"teach.training.epochs": 3, "teach.training.learning_rate": 5e-5}, 3, 0.98),
    "snips": Goal("snips", TokenClassification(), {"teach.training.epochs": 4}, 1, 0.98),
    "snips-joint": Goal(
        "snips", JointIntentSlots(), {"teach.training.epochs": 4}, 3, points={"intent accuracy": 0.5, "slot F1": 1.5}
    ),
}


def run_set(
    session: Session, name: str, data: Path, out: Path, share: float, with_baselines: bool, plans: Path | None
) -> dict[str, Any]:
    """Teach, measure, compress; return the figures of one set."""
    goal = SETS[name]
    profile, folder = override(load_profile("cpu"), goal.settings), data / goal.folder
    taught = teach_from(session, str(demo_encoder()), read_data(folder, task=goal.task), profile)
    request = Request(teacher=str(taught.path), data=str(folder), task=goal.task, profile=_budget(profile, 1000.0, 0))
    planner = planner_of(
        session, gather(session, request), Device.of(build_target(profile.target, session.log), session.store)
    )
    inputs = planner.inputs
    parts = inputs.task.parts(inputs.test.counts(inputs.task, inputs.test_rows))
    teacher_p95 = planner.latency.p95_ms["fp32"]
    runs = []
    for seed in range(goal.seeds):
        wanted = request.model_copy(update={"profile": _budget(profile, share * teacher_p95, seed)})
        if plans is not None:
            wanted = wanted.model_copy(update={"plan": str(plans / f"{name}.json")})
        bundle = out / f"{name}-{seed}"
        result = compress(session, wanted, bundle, overwrite=True, with_baselines=with_baselines and seed == 0)
        rows = onnx_rows(bundle / "model.onnx", inputs.test.encodings)
        made = inputs.task.parts(inputs.test.counts(inputs.task, rows))
        runs.append(_figures(result) | {"seed": seed, "parts": made})
    shares = [run["retained"] for run in runs]
    lost = {part: 100 * (parts[part] - mean(run["parts"][part] for run in runs)) for part in goal.points}
    return {
        "teacher_p95_ms": teacher_p95,
        "budget_ms": share * teacher_p95,
        "max_length": planner.inputs.max_length,
        "teacher_seconds": taught.result["seconds"],
        "teacher_validation": taught.result["validation"],
        "teacher_parts": parts,
        "floor": goal.kept,
        "retained_mean": mean(shares),
        "points_allowed": goal.points,
        "points_lost": lost,
        "side_by_side": side_by_side(planner, [out / f"{name}-{seed}" for seed in range(goal.seeds)]),
        "reached": mean(shares) >= goal.kept
        and all(points <= goal.points[part] for part, points in lost.items())
        and all(run["latency"]["outcome"] == "met" for run in runs),
        "runs": runs,
    }


def side_by_side(planner: Planner, bundles: Sequence[Path]) -> dict[str, Any]:
    """The bundles and the FP32 teacher in turns, end to end: the budget's own measurement met another hour."""
    with TemporaryDirectory() as folder:
        write_core(Path(folder) / "teacher", planner.core("fp32"))
        texts = tuple(planner.texts)
        jobs = [BundleJob("teacher", Path(folder) / "teacher", texts)]
        jobs += [BundleJob(bundle.name, bundle, texts) for bundle in bundles]
        found = compare(jobs, planner.device.target, processes=3, rounds=20, calls=20)
    teacher, clock = found["teacher"], planner.device.target.clock
    return {
        name: {
            "p50_ms": measured.percentile(50, clock), "p95_ms": measured.percentile(95, clock),
            "p95_of_teacher": measured.percentile(95, clock) / teacher.percentile(95, clock),
            "median_ratio_by_round": round_ratio(teacher.rounds, measured.rounds, clock),
        }
        for name, measured in found.items()
    }  # fmt: skip


def _budget(profile: Profile, budget_ms: float, seed: int) -> Profile:
    return override(profile, {"budget.latency_ms": budget_ms, "distill.seed": seed})


def _figures(result: Result) -> dict[str, Any]:
    latency, quality = (c.model_dump(mode="json") for c in result.criteria)
    judged = result.latency.judged
    chosen = result.chosen
    return {
        "outcome": result.outcome,
        "retained": quality["value"],
        "latency": latency,
        "quality": quality,
        "student": None if chosen is None else chosen.model_dump(mode="json"),
        "table": [row.model_dump(mode="json") for row in result.quality],
        "tries": [t.model_dump(mode="json") for t in result.tries],
        "timings": result.timings,
        "samples_ms": [] if judged is None else list(judged.samples_ms),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with clinc150, mr and snips")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--share", type=float, default=0.25, help="budget as a share of the FP32 teacher's p95")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), help="folder for the bundles")
    parser.add_argument("--plans", type=Path, help="folder of <set>.json: plans that pin the students")
    parser.add_argument("--no-baselines", dest="baselines", action="store_false", help="leave the baselines out")
    parser.add_argument("--name", default="real_input", help="name of the result file")
    options = parser.parse_args()
    session = Session.open(Store(default_root()), ConsoleProgress(error_console()))
    found: dict[str, Any] = {}
    for name in options.sets:
        found[name] = run_set(session, name, options.data, options.out, options.share, options.baselines, options.plans)
        print(name, {k: v for k, v in found[name].items() if k not in ("runs", "side_by_side")})
        print("  side by side:", found[name]["side_by_side"])
        for run in found[name]["runs"]:
            print(
                "  ", run["outcome"], run["student"]["shape"], f"{100 * run['retained']:.2f}%", run["latency"]["value"]
            )
    print("written:", write_record(options.name, {"sets": found}))


if __name__ == "__main__":
    main()
