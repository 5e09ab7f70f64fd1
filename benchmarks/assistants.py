"""Does an assistant between teacher and student pay, and does any rule find the right one?

    python benchmarks/assistants.py --edition cpu --data ../shared/data
    python benchmarks/assistants.py --edition cpu --data ../shared/data --seconds 0    (the table of what is finished)

For every data set, student and seed: the student through each assistant, with none at equal steps, with none at equal
compute, and through the one that `lambda` finds in an elastic run. The teacher, a fine-tuned MiniLM-L6, sees 10 labels
a class; the rest of train is unlabelled text. Everything is chosen on validation and scored on test once. Finished
steps are in the store: the same command goes on where it was, and what was not run says so.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from assistants_table import Cell, draw, markdown, summarise
from few_labels import few_labels
from record import write_record

from edgekd.assistants.chain import (
    REFRESH,
    REFRESH_RATE,
    Chain,
    gap_of,
    lengthened,
    make_chain,
    refreshing,
    training_flops,
)
from edgekd.assistants.choose import MULTIPLES, Assistant, Gap
from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.data.demo.generate import demo_encoder
from edgekd.data.read import read_data
from edgekd.distill import elastic as elastic_training
from edgekd.distill import student as distillation
from edgekd.distill.elastic import cut
from edgekd.distill.engine import Engine
from edgekd.distill.predict import predict_rows
from edgekd.distill.student import Lesson, Start, distill, load_student, start_of
from edgekd.errors import EdgekdError
from edgekd.inputs.gather import Inputs, prepare
from edgekd.models.initialize import slice_weights
from edgekd.models.teacher import load_teacher
from edgekd.plan.weights import importance_of
from edgekd.profiles import load_profile
from edgekd.records.plan import Candidate
from edgekd.session import Session, teach_from
from edgekd.settings.distill import Distill, Stage, Training
from edgekd.settings.plan import AssistantStrategy
from edgekd.settings.profile import override
from edgekd.settings.shape import Slice
from edgekd.settings.task import TextClassification
from edgekd.store import Artefact, Store, default_root

# Labelled texts a class, and the teacher's epochs on them.
LABELS, TEACHER_EPOCHS = 10, {"clinc150": 12, "mr": 60, "snips": 40}

# Of the six layers x 384 (12 heads, FFN 1536) of a MiniLM-L6: by encoder parameters 10% and 5%.
STUDENTS = {
    "10%": Slice(layers=(2, 5), heads=(6, 6), ffn=(320, 320)),
    "5%": Slice(layers=(2, 5), heads=(3, 3), ffn=(160, 160)),
}


@dataclass(frozen=True)
class Edition:
    """How much is run.

    Attributes:
        sets: Names of the data sets.
        students: Names of the students.
        sizes: Which of the five candidates become assistants, by their place; all five are scored and trained alone.
        steps: Of every run.
        seeds: Seeds, from 0.
        unlabelled: Unlabelled texts at most; None: all.
        validation: Validation texts at most; None: all.
        looks: At validation in a run.
    """

    sets: tuple[str, ...]
    students: tuple[str, ...]
    sizes: tuple[int, ...]
    steps: int
    seeds: int
    unlabelled: int | None
    validation: int | None
    looks: int


EDITIONS = {
    "cpu": Edition(("clinc150",), ("10%",), (0, 2, 4), 800, 2, 5000, 1000, 6),
    "full": Edition(("clinc150", "mr", "snips"), ("10%", "5%"), (0, 1, 2, 3, 4), 3000, 3, None, None, 10),
}


class _TimeUpError(Exception):
    """No new run may begin."""


@dataclass(frozen=True)
class Group:
    """All runs of one data set, student and seed.

    Attributes:
        session: Store and engine.
        edition: How much is run.
        folder: The data.
        name: Of the data set.
        student: Of the student.
        seed: Decides the labelled texts, the teacher, the unlabelled texts and every run.
        may_begin: Raises once no new run may begin.
    """

    session: Session
    edition: Edition
    folder: Path
    name: str
    student: str
    seed: int
    may_begin: Callable[[], None]

    @cached_property
    def spec(self) -> Distill:
        """The one stage that everything is trained by."""
        looks = self.edition.looks
        training = Training(
            epochs=1000, learning_rate=5e-4, dropout=0.0, freeze_words=True, evaluations=looks, patience=looks
        )
        return Distill(stages=(Stage(training=training, max_steps=self.edition.steps),), seed=self.seed)

    @cached_property
    def inputs(self) -> Inputs:
        """The teacher, taught and asked for its answers."""
        changes = {
            "teach.training.epochs": TEACHER_EPOCHS[self.name],
            "teach.training.patience": 8,
            "teach.seed": self.seed,
            "distill": self.spec.model_dump(mode="json"),
        }
        profile, edition = override(load_profile("cpu"), changes), self.edition
        whole = read_data(self.folder / self.name, task=TextClassification())
        data = few_labels(whole, LABELS, self.seed, unlabelled=edition.unlabelled, validation=edition.validation)
        self.may_begin()
        taught = teach_from(self.session, str(demo_encoder()), data, profile)
        return prepare(self.session.store, self.session.engine, profile, load_teacher(taught.path), data)

    @cached_property
    def gap(self) -> Gap:
        """Teacher and student."""
        return gap_of(self.session, self.inputs, STUDENTS[self.student], self.inputs.teacher.width)

    def run(self) -> Cell:
        """Everything of this group, as one entry of the record.

        Raises:
            _TimeUpError: A run that is not finished may not begin.
        """
        inputs, direct = self.inputs, self.start
        none = self.taught(direct, inputs.lesson(), self.spec, "no assistant")
        own = training_flops(inputs, self.spec, direct.shape, [none])
        elastic = self.chain(AssistantStrategy(name="lambda"))
        considered = elastic.found.choice.considered if elastic.found is not None else ()
        rows = [self.assistant_row(elastic, assistant) for assistant in considered]
        found = self.taught(elastic.start, elastic.lesson, self.spec, "lambda")
        ratio = next(row for row in rows if row["multiple"] == 2.5)
        equal = {
            "ratio": 1 + ratio.get("flops", 0.0) / own,
            "lambda": 1 + sum(elastic.found.flops.values()) / own,
        }
        return {
            "set": self.name, "student": self.student, "seed": self.seed, "share": self.gap.share,
            "teacher": inputs.test.score(inputs.task, inputs.test_rows),
            "none": self.scores(none) | {"flops": own},
            "none_equal_compute": {
                rule: self.scores(self.taught(direct, inputs.lesson(), lengthened(self.spec, factor), f"as {rule}"))
                | {"factor": factor}
                for rule, factor in equal.items()
            },
            "lambda": self.scores(found) | {
                "flops": elastic.found.flops, "finetune_flops": elastic.found.finetune_flops,
                "seconds": elastic.trained["elastic run"][0].result["seconds"],
                "reason": elastic.found.choice.reason if elastic.found is not None else "",
                "picks": {} if elastic.found is None else {
                    rule: None if pick is None else pick.share for rule, pick in elastic.found.choice.picks.items()
                },
            },
            "assistants": rows,
        }  # fmt: skip

    @cached_property
    def start(self) -> Start:
        """The student as it is cut out of the teacher."""
        hosted, importance = self.inputs.teacher.hosted, importance_of(self.session, self.inputs).importance
        assert hosted is not None
        return Start(*slice_weights(*hosted, importance, STUDENTS[self.student]), self.inputs.task.labels)

    def chain(self, assistants: AssistantStrategy) -> Chain:
        """What a strategy makes of this teacher and student."""
        self.may_begin()
        inputs, shape = self.inputs, self.start.shape
        profile = override(inputs.profile, {"distill.assistants": assistants.model_dump(mode="json")})
        candidate = Candidate(
            kind="student", precision="fp32", shape=shape, choice=STUDENTS[self.student], kept=self.gap.share,
            predicted_ms=None, measured_ms=None, fits=True,
        )  # fmt: skip
        asked = Inputs(**{**inputs.__dict__, "profile": profile})
        return make_chain(self.session, asked, candidate, self.start)

    def taught(self, start: Start, lesson: Lesson, spec: Distill, what: str) -> Artefact:
        """A trained model."""
        self.may_begin()
        title = f"{self.name}, {self.student}, seed {self.seed}: {what}"
        return distill(self.session.store, self.session.engine, start, self.inputs.task, lesson, spec, title)[-1]

    def scores(self, made: Artefact) -> dict[str, Any]:
        """A student's score on validation and, text by text, on test."""
        inputs = self.inputs
        rows = predict_rows(load_student(made.path), inputs.test.encodings, self.session.engine)
        counts = inputs.test.counts(inputs.task, rows)
        return {
            "validation": made.result["validation"],
            "score": inputs.task.score(counts),
            "steps": made.result["steps"],
            "seconds": made.result["seconds"],
            "texts": len(counts),
            "correct": np.packbits(counts[:, 0].astype(bool)).tobytes().hex(),
        }

    def assistant_row(self, elastic: Chain, assistant: Assistant) -> dict[str, Any]:
        """One candidate: its score in the elastic run, alone and, where the edition has it, as a teacher."""
        assert elastic.found is not None
        place = elastic.found.choice.considered.index(assistant)
        row: dict[str, Any] = {
            "multiple": MULTIPLES[place],
            "share": assistant.share,
            "shape": assistant.shape.describe(),
            "elastic": assistant.score,
            "t": assistant.tradeoff(0.2),
        }
        chain = self.chain(AssistantStrategy(name="fixed", shapes=(assistant.choice,)))
        (alone,) = next(iter(chain.trained.values()))
        row |= {
            "alone": alone.result["validation"],
            "refreshed": self.refreshed(elastic, assistant).result["validation"],
            "seconds": alone.result["seconds"],
            "flops": sum(chain.found.flops.values()),
        }
        if place not in self.edition.sizes:
            return row
        title = f"through {100 * assistant.share:.0f}%"
        return row | self.scores(self.taught(chain.start, chain.lesson, self.spec, title))

    def refreshed(self, elastic: Chain, assistant: Assistant) -> Artefact:
        """The slice of the elastic run, trained on alone for a tenth of the steps."""
        assert elastic.found is not None
        base = start_of(load_student(elastic.trained["elastic run"][0].path), self.start.labels)
        whole = elastic.found.choice.considered[-1].choice  # the candidates are nested: the last holds all
        start = cut(base, whole, assistant.choice, importance_of(self.session, self.inputs).importance)
        return self.taught(start, self.inputs.lesson(), refreshing(self.spec), "refreshed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edition", choices=list(EDITIONS), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with clinc150, mr and snips")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no new run after so many seconds")
    parser.add_argument("--sets", nargs="+", choices=list(TEACHER_EPOCHS), help="only these sets")
    parser.add_argument("--part", default="1/1", help="k/n: this process takes every n-th group, from the k-th")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument("--steps", type=int, help="other steps than the edition's, to try it out: nothing is written")
    parser.add_argument("--cache-dir", type=Path, default=default_root())
    options = parser.parse_args()
    edition = EDITIONS[options.edition]
    if options.steps is not None:
        edition = Edition(**{**asdict(edition), "steps": options.steps})
    session = Session(Store(options.cache_dir), Engine.detect(options.threads, ConsoleProgress(error_console())))
    started = time.monotonic()

    def may_begin() -> None:
        if time.monotonic() - started > options.seconds:
            raise _TimeUpError

    places = [
        (name, student, seed)
        for seed in range(edition.seeds)
        for name in options.sets or edition.sets
        for student in edition.students
    ]
    part, parts = map(int, options.part.split("/"))
    cells = finished(session, edition, options.data, places, places[part - 1 :: parts], may_begin)
    tables = summarise(cells)
    print(markdown(tables, [place for place in places if place not in {_place(cell) for cell in cells}]))
    if options.steps is None and cells:
        path = write_record(f"assistants_{options.edition}", {"edition": asdict(edition), **tables, "cells": cells})
        print("written:", path, draw(cells, path.with_suffix(".svg")))


def finished(
    session: Session,
    edition: Edition,
    folder: Path,
    places: Sequence[tuple[str, str, int]],
    mine: Sequence[tuple[str, str, int]],
    may_begin: Callable[[], None],
) -> list[Cell]:
    """Run what is this process's, and read what others have finished."""
    cells = []
    for place in places:
        group = Group(session, edition, folder, *place, may_begin)
        key = {
            "set": place[0], "student": STUDENTS[place[1]].model_dump(mode="json"), "seed": place[2],
            "edition": asdict(edition), "labels": LABELS,
            "refresh": [REFRESH, REFRESH_RATE],
            "versions": [elastic_training.VERSION, distillation.VERSION],
        }  # fmt: skip

        def build(_: Path, group: Group = group, place: tuple[str, str, int] = place) -> dict[str, Any]:
            if place not in mine:
                raise _TimeUpError
            return group.run()

        try:
            cells.append(session.store.make("assistants_benchmark", 2, key, build).result)
        except _TimeUpError:
            continue
        except EdgekdError:
            if place in mine:
                raise  # else another process is at it
    return cells


def _place(cell: Cell) -> tuple[str, str, int]:
    return cell["set"], cell["student"], cell["seed"]


if __name__ == "__main__":
    main()
