"""What `edgekd teach` makes of an encoder, few labels and many: test accuracy of its parts, one after the other.

    python benchmarks/teachers.py --data ../shared/data [--labels 10] [--seeds 3] [--seconds 5000] [--part 1/2]

The encoder is MiniLM-L6; labels are drawn by the seed, validation and test are the set's own. What is chosen is chosen
on validation. Finished teachers are read from the store, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from few_labels import few_labels
from record import write_record

from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.data.read import read_data
from edgekd.data.split import TaskData
from edgekd.distill.engine import Engine
from edgekd.distill.predict import predict_rows
from edgekd.distill.scoring import Judged
from edgekd.models.teacher import load_teacher
from edgekd.pipeline.demo import demo_encoder
from edgekd.profiles import load_profile
from edgekd.session import Session, teach_from
from edgekd.settings.profile import override
from edgekd.settings.task import TextClassification
from edgekd.store import Store, default_root
from edgekd.tasks.build import build_task

SETS = ("clinc150", "mr", "snips")
ROWS: dict[str, dict[str, Any]] = {
    "default": {},
    "new head": {"teach.probe": False},
    "first token": {"teach.pool": "first"},
    "before: first token, no least number of steps": {"teach.pool": "first", "teach.min_steps": 1},
}  # fmt: skip
MAX_LENGTH = 64
# Texts of validation: those of the ablation, whose draws of labels are then the same.
VALIDATION = 1000


def run(session: Session, data: TaskData, changes: dict[str, Any], seed: int) -> dict[str, Any]:
    """Teach one, and score it on test."""
    profile = override(load_profile("cpu"), changes | {"teach.seed": seed, "workload.max_length": MAX_LENGTH})
    taught = teach_from(session, str(demo_encoder()), data, profile)
    teacher, task = load_teacher(taught.path), build_task(data.task, data.labels)
    assert data.test is not None
    test = Judged(data.test, task.encode(teacher.tokenizer, data.test, MAX_LENGTH), task.gold(data.test))
    return {
        "test": 100 * test.score(task, predict_rows(teacher.model, test.encodings, session.engine)),
        "validation": 100 * taught.result["validation"],
        "steps": taught.result["steps"],
        "training_seconds": taught.result["seconds"],
        "seconds": taught.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with clinc150, mr and snips")
    parser.add_argument("--labels", type=int, help="labelled texts a class; all if left out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="start no new teacher after so many seconds"
    )
    parser.add_argument("--part", default="1/1", help="k/n: this process takes every n-th seed, from the k-th")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    session = Session(Store(default_root()), Engine.detect(options.threads, ConsoleProgress(error_console())))
    part, parts = map(int, options.part.split("/"))
    found: dict[str, Any] = {}
    for name in options.sets:
        whole = read_data(str(options.data / name), task=TextClassification())
        for row in options.rows:
            scores = []
            for seed in range(part - 1, options.seeds, parts):
                if time.monotonic() - began < options.seconds:
                    data = few_labels(whole, options.labels, seed, unlabelled=None, validation=VALIDATION)
                    scores.append(run(session, data, ROWS[row], seed) | {"seed": seed})
            if scores:
                tests = [score["test"] for score in scores]
                spread = stdev(tests) if len(tests) > 1 else 0.0
                print(f"{name:<9} {row:<56} {mean(tests):6.2f} +- {spread:.2f} of {len(tests)}", flush=True)
                found.setdefault(name, {})[row] = scores
    if parts == 1:
        print(write_record(f"teachers_{options.labels or 'all'}", {"labels": options.labels, "sets": found}))


if __name__ == "__main__":
    main()
