"""What each component of distillation is worth, on the same texts, first weights and steps.

    python benchmarks/ablation.py --edition cpu --data ../shared/data --part 1/2     (and 2/2 beside it)
    python benchmarks/ablation.py --edition cpu --data ../shared/data --seconds 0    (the table of what is finished)

At 10 labels a class the teacher, a fine-tuned MiniLM-L6, sees those labels alone; the rest of train is unlabelled
text. The baseline is the same slice of that teacher fine-tuned on the labels, its epochs and learning rate tuned on
validation. All other rows train for the same number of steps. Everything is chosen on validation and scored on test
once. Finished runs are in the store: the same command goes on where it was, and rows that were not run say so.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ablation_rows import (
    BASELINE,
    EDITIONS,
    ROWS,
    SETTINGS,
    STUDENTS,
    Edition,
    Row,
    Setting,
    Student,
    why_left_out,
)
from ablation_table import Cell, default_check, markdown, summarise
from few_labels import few_labels
from record import write_record

from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.data.demo.generate import demo_encoder
from edgekd.data.read import read_data
from edgekd.data.split import TaskData
from edgekd.distill import student as distillation
from edgekd.distill import teach as teaching
from edgekd.distill.engine import Engine
from edgekd.distill.predict import predict_rows
from edgekd.errors import EdgekdError
from edgekd.inputs.gather import Inputs, prepare
from edgekd.models.identity import folder_id
from edgekd.models.initialize import project_width, random_initial, slice_weights
from edgekd.models.teacher import load_teacher
from edgekd.plan import importance
from edgekd.plan.weights import importance_of
from edgekd.profiles import load_profile
from edgekd.session import Session, teach_from
from edgekd.settings.distill import Distill, Stage
from edgekd.settings.profile import Profile, override
from edgekd.settings.shape import EncoderShape
from edgekd.settings.task import TextClassification
from edgekd.store import Artefact, Store, default_root

VERSION = 1

# Tokens at which a student's share of the teacher's FLOPs is given.
_FLOPS_LENGTH = 32


class _NotRunError(Exception):
    """Asked for a finished run that is not there."""


@dataclass(frozen=True)
class Group:
    """All runs that share a teacher: one setting, one seed.

    Attributes:
        session: Store and engine.
        edition: How much is run.
        name: Of the setting.
        seed: Decides the labelled texts, the teacher, the unlabelled texts and every run.
        whole: The data as they are on disk.
        encoder_id: Identity of the encoder that the teacher is made of.
    """

    session: Session
    edition: Edition
    name: str
    seed: int
    whole: TaskData
    encoder_id: str

    @property
    def setting(self) -> Setting:
        """The setting."""
        return SETTINGS[self.name]

    @cached_property
    def profile(self) -> Profile:
        """The teacher's schedule and the seeds."""
        changes = {
            "teach.training.epochs": self.setting.teacher_epochs,
            "teach.training.patience": 8,
            "teach.seed": self.seed,
            "distill.seed": self.seed,
        }
        return override(load_profile("cpu"), changes)

    @cached_property
    def inputs(self) -> Inputs:
        """The teacher, taught and asked for its answers; what a killed run had finished is read."""
        edition = self.edition
        data = few_labels(
            self.whole, self.setting.labels, self.seed, unlabelled=edition.unlabelled, validation=edition.validation
        )
        taught = teach_from(self.session, str(demo_encoder()), data, self.profile)
        return prepare(self.session.store, self.session.engine, self.profile, load_teacher(taught.path), data)

    def key(self, student: str, row: Row) -> dict[str, Any]:
        """What decides a run's result; known without a teacher."""
        engine = self.session.engine
        return {
            "data": self.whole.fingerprint,
            "encoder": self.encoder_id,
            "labels": self.setting.labels,
            "unlabelled": self.edition.unlabelled,
            "validation": self.edition.validation,
            "teach": engine.resolve(self.profile.teach.training).model_dump(mode="json"),
            "seed": self.seed,
            "student": asdict(STUDENTS[student], dict_factory=_plain),
            "first": row.first,
            "runs": [[_resolved(engine, stage) for stage in stages] for stages in self.runs(row)],
            "versions": [VERSION, teaching.VERSION, importance.VERSION, distillation.VERSION],
        }

    def runs(self, row: Row) -> list[tuple[Stage, ...]]:
        """The runs of a row: one, or the grid that a tuned row chooses from."""
        edition = self.edition
        if row.tuned:
            return row.grid(self.setting.epochs, edition.looks)
        return [row.stages(edition.steps, edition.looks, edition.inner_looks)]

    def finished(self, student: str, row: Row) -> Artefact | None:
        """The run if it is in the store."""

        def refuse(_: Path) -> None:
            raise _NotRunError

        try:
            return self.session.store.make("ablation", VERSION, self.key(student, row), refuse)
        except (_NotRunError, EdgekdError):  # EdgekdError: another process is at it
            return None

    def run(self, student: str, row: Row) -> None:
        """Run it and keep its figures."""
        title = f"{self.name}, {student}, seed {self.seed}: {row.name}"
        self.session.store.make(
            "ablation", VERSION, self.key(student, row), lambda _: self._run(STUDENTS[student], row, title)
        )

    def _run(self, student: Student, row: Row, title: str) -> dict[str, Any]:
        session, inputs = self.session, self.inputs
        start = first_weights(session, inputs, student, row, self.seed)
        found = []
        for stages in self.runs(row):
            spec = Distill(stages=stages, seed=self.seed)
            found.append(
                distillation.distill(session.store, session.engine, start, inputs.task, inputs.lesson(), spec, title)
            )
        made = max(found, key=lambda artefacts: artefacts[-1].result["validation"])
        model = distillation.load_student(made[-1].path)
        counts = inputs.test.counts(inputs.task, predict_rows(model, inputs.test.encodings, session.engine))
        stages = self.runs(row)[found.index(made)]
        return {
            "score": inputs.task.score(counts),
            "validation": made[-1].result["validation"],
            "teacher": inputs.test.score(inputs.task, inputs.test_rows),
            "untrained": made[0].result["untrained"],
            "steps": sum(artefact.result["steps"] for artefact in made),
            "seconds": sum(artefact.result["seconds"] for artefact in made),
            "tried_seconds": sum(artefact.result["seconds"] for artefacts in found for artefact in artefacts),
            "epochs": stages[-1].training.epochs if row.tuned else None,
            "learning_rate": stages[-1].training.learning_rate,
            "shape": start.shape.describe(),
            "texts": len(counts),
            "correct": np.packbits(counts[:, 0].astype(bool)).tobytes().hex(),
        }


def first_weights(session: Session, inputs: Inputs, student: Student, row: Row, seed: int) -> distillation.Start:
    """The row's student before training."""
    hosted, measured = inputs.teacher.hosted, importance_of(session, inputs)
    assert hosted is not None
    shape, weights = slice_weights(
        *hosted, measured.importance, student.wide if row.first == "narrow" else student.kept
    )
    if row.first == "narrow":
        shape, weights, _ = project_width(shape, weights, measured.states, student.width)
    if row.first == "random":
        weights = random_initial(shape, seed)
    return distillation.Start(shape, weights, inputs.task.labels)


def _plain(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value.model_dump() if hasattr(value, "model_dump") else value for name, value in fields}


def _resolved(engine: Engine, stage: Stage) -> dict[str, Any]:
    return stage.model_copy(update={"training": engine.resolve(stage.training)}).model_dump(mode="json")


def planned(edition: str, group: Group) -> Iterator[tuple[str, Row]]:
    """The runs of a group, in the order in which they matter."""
    for student in group.edition.students:
        for row in ROWS:
            if not why_left_out(edition, group.name, student, row):
                yield student, row


def collect(edition: str, groups: Sequence[Group]) -> list[Cell]:
    """All finished runs, whoever ran them."""
    cells: list[Cell] = []
    for group in groups:
        for student, row in planned(edition, group):
            found = group.finished(student, row)
            if found is not None:
                place = {"setting": group.name, "student": student, "row": row.name, "seed": group.seed}
                cells.append(place | found.result)
    return cells


def report(edition: str, settings: Sequence[str], cells: Sequence[Cell]) -> dict[str, Any]:
    """Print the tables and return them; students and settings without a run are named."""
    tables = {}
    for setting in settings:
        for student in STUDENTS:
            mine = [c for c in cells if (c["setting"], c["student"]) == (setting, student)]
            in_edition = student in EDITIONS[edition].students
            reasons = {row.name: why_left_out(edition, setting, student, row) for row in ROWS} if in_edition else {}
            tables[f"{setting}, student {student}"] = summarise(mine, reasons)
    for name, table in tables.items():
        ran = any("mean" in line for line in table)
        print(markdown(name, table) if ran else f"### {name}\n\nnot run\n")
    others = [name for name in SETTINGS if name not in settings]
    if others:
        print("not run:", ", ".join(others))
    few = {name: table for name, table in tables.items() if SETTINGS[name.split(",")[0]].labels is not None}
    check = default_check(few)
    beaten = f"{check['beats']} of {check['of']}"
    print(f"at 10 labels a class the default beats {BASELINE.name!r} outside the interval: {beaten}")
    return {"tables": tables, "settings_not_run": others, "default_at_10_labels": check}


def students_flops() -> dict[str, Any]:
    """Each student's share of the teacher's FLOPs in its layers, by its two shapes."""
    whole = _flops(384, (12,) * 6, (1536,) * 6)
    return {
        name: {
            "slice": student.kept.model_dump() | {"flops": _flops(384, student.kept.heads, student.kept.ffn) / whole},
            "projected": student.wide.model_dump()
            | {"width": student.width, "flops": _flops(student.width, student.wide.heads, student.wide.ffn) / whole},
        }
        for name, student in STUDENTS.items()
    }


def _flops(width: int, heads: tuple[int, ...], ffn: tuple[int, ...]) -> float:
    shape = EncoderShape(
        vocabulary=1, positions=1, token_types=0, embedding=width, hidden=width, head_size=32, heads=heads, ffn=ffn
    )
    return shape.flops(_FLOPS_LENGTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edition", choices=list(EDITIONS), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with clinc150, mr and snips")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no new run after so many seconds")
    parser.add_argument("--sets", nargs="+", choices=list(SETTINGS), help="only these settings")
    parser.add_argument("--seeds", type=int, help="seeds 0 .. N-1; the edition's number if left out")
    parser.add_argument(
        "--part", default="1/1", help="k/n: this process takes every n-th setting and seed, from the k-th"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument("--steps", type=int, help="other steps than the edition's, to try it out: nothing is written")
    options = parser.parse_args()
    began = time.monotonic()
    edition = EDITIONS[options.edition]
    edition = replace(edition, steps=options.steps or edition.steps, seeds=options.seeds or edition.seeds)
    settings = tuple(options.sets or edition.settings)
    progress = ConsoleProgress(error_console())
    session = Session(Store(default_root()), Engine.detect(options.threads, progress))
    encoder_id = folder_id(demo_encoder())
    groups = []
    for name in settings:
        whole = read_data(options.data / SETTINGS[name].folder, task=TextClassification())
        groups += [Group(session, edition, name, seed, whole, encoder_id) for seed in range(edition.seeds)]
    part, parts = map(int, options.part.split("/"))
    for group in groups[part - 1 :: parts]:
        for student, row in planned(options.edition, group):
            if group.finished(student, row) is None and time.monotonic() - began < options.seconds:
                group.run(student, row)
        group.__dict__.pop("inputs", None)  # a teacher and its answers are large
    cells = collect(options.edition, groups)
    content = {
        "edition": asdict(edition),
        "settings": {name: asdict(SETTINGS[name]) for name in settings},
        "students": students_flops(),
        **report(options.edition, settings, cells),
        "cells": cells,
    }
    if options.steps is None:
        print("written:", write_record(f"ablation_{options.edition}", content))


if __name__ == "__main__":
    main()
