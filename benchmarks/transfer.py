"""What the student's text is worth: target-domain text, generic text like it or taken at random, new texts.

    python benchmarks/transfer.py --edition cpu --data ../shared/data --part 1/2     (and 2/2 beside it)
    python benchmarks/transfer.py --edition cpu --data ../shared/data --seconds 0    (the tables of what is finished)

Domains: each domain of clinc150 in turn is the target. Its teacher, a fine-tuned MiniLM-L6, sees 10 labels a class, the
rest of the domain's training texts is unlabelled target text; the other nine domains and generic sentences are the
pool. snips: the same for joint intents and slots; 1,000 of its texts are the target text, those of clinc150 and generic
sentences the pool. Augmentation: all of clinc150 at few labels a class and with all labels; no unlabelled text. Within
a target and a seed all rows train the same first weights for the same number of steps. Finished runs are in the store.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ablation_rows import STUDENTS
from few_labels import few_labels
from record import RESULTS, write_record
from transfer_table import Cell, draw_gain, gain_by_likeness, markdown, summarise

from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.data.demo.generate import demo_encoder
from edgekd.data.read import read_data
from edgekd.data.select.pool import Pool
from edgekd.data.split import Split, TaskData
from edgekd.distill import student as distillation
from edgekd.distill.engine import Engine
from edgekd.distill.predict import predict_rows
from edgekd.errors import EdgekdError
from edgekd.inputs.gather import Inputs, prepare
from edgekd.models.identity import folder_id
from edgekd.models.initialize import slice_weights
from edgekd.models.teacher import load_teacher
from edgekd.plan.weights import importance_of
from edgekd.profiles import load_profile
from edgekd.session import Session, teach_from
from edgekd.settings.distill import Distill, Stage
from edgekd.settings.losses import KL
from edgekd.settings.profile import Profile, override
from edgekd.settings.task import JointIntentSlots, TextClassification
from edgekd.settings.transfer import Transfer
from edgekd.store import Artefact, Store, default_root
from edgekd.tasks.base import Task
from edgekd.tasks.joint_intent_slots import JointIntentSlotsTask

VERSION = 1

# Row: what of the target it learns from, generic texts a target text, how they are chosen.
DOMAIN_ROWS: dict[str, tuple[bool, float, str]] = {
    "target": (True, 0, ""),
    "none": (False, 0, ""),
    "target + similar 1:1": (True, 1, "cascade"),
    "target + random 1:1": (True, 1, "random"),
    "similar only": (False, 1, "cascade"),
    "target + similar 1:3": (True, 3, "cascade"),
    "target + random 1:3": (True, 3, "random"),
}
SNIPS, SNIPS_TEXTS = "snips, joint intents and slots", 1000
POLICIES = ("none", "typos", "swap", "delete")


@dataclass(frozen=True)
class Edition:
    """How much is run.

    Attributes:
        domains: Targets, of clinc150's ten.
        labels: Labels a class of the augmentation table; None: all.
        seeds: Seeds, from 0.
        steps: Of every row.
        generic: Generic sentences in the pool, beside the other domains; None: all.
        copies: New texts a policy makes of each text, at few labels; 1 where all texts are labelled.
    """

    domains: tuple[str, ...]
    labels: tuple[int | None, ...]
    seeds: int
    steps: int
    generic: int | None
    copies: int = 4


EDITIONS = {
    "cpu": Edition(("banking", "travel", "small_talk"), (10, None), 2, 300, 2000),
    "full": Edition(
        ("auto_and_commute", "banking", "credit_cards", "home", "kitchen_and_dining", "meta", "small_talk", "travel",
         "utility", "work"),
        (5, 10, 50, None), 3, 3000, None,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """All rows that share a teacher and first weights.

    Attributes:
        session: Store and engine.
        edition: How much is run.
        name: "domain banking", or "augmentation, 10 labels a class".
        data: The target's data.
        rows: Each row's transfer set.
        seed: Decides the labelled texts, the teacher and every run.
        encoder_id: Identity of the encoder that the teacher is made of.
    """

    session: Session
    edition: Edition
    name: str
    data: TaskData
    rows: dict[str, Transfer]
    seed: int
    encoder_id: str

    @cached_property
    def profile(self) -> Profile:
        """The teacher's schedule and the seeds."""
        few = self.data.unlabeled is not None
        # Ten texts of each of snips' seven intents are few steps an epoch.
        epochs = 40 if self.name == SNIPS else 12 if few else 5
        changes = {
            "teach.training.epochs": epochs, "teach.training.patience": 8,
            "teach.seed": self.seed, "distill.seed": self.seed,
        }  # fmt: skip
        return override(load_profile("cpu"), changes)

    @cached_property
    def taught(self) -> Artefact:
        """The teacher."""
        return teach_from(self.session, str(demo_encoder()), self.data, self.profile)

    def inputs(self, transfer: Transfer) -> Inputs:
        """What a row learns from, labelled by the teacher."""
        profile = self.profile.model_copy(update={"transfer": transfer})
        return prepare(self.session.store, self.session.engine, profile, load_teacher(self.taught.path), self.data)

    @cached_property
    def start(self) -> distillation.Start:
        """The first weights, by importance on the target's own texts."""
        inputs = self.inputs(Transfer())
        hosted = inputs.teacher.hosted
        assert hosted is not None
        importance = importance_of(self.session, inputs).importance
        shape, weights = slice_weights(*hosted, importance, STUDENTS["1/4"].kept)
        return distillation.Start(shape, weights, inputs.task.labels)

    def key(self, row: str) -> dict[str, Any]:
        """What decides a run's result."""
        transfer = self.rows[row].model_dump(mode="json")
        if transfer["generic"]:
            transfer["generic"].pop("path")
        return {
            "data": self.data.fingerprint, "encoder": self.encoder_id, "transfer": transfer, "seed": self.seed,
            "steps": self.edition.steps, "generic": self.edition.generic,
            "teach": self.session.engine.resolve(self.profile.teach.training).model_dump(mode="json"),
            "versions": [VERSION, distillation.VERSION],
        }  # fmt: skip

    def finished(self, row: str) -> Artefact | None:
        """The run if it is in the store."""

        def refuse(_: Path) -> None:
            raise EdgekdError("not run")

        try:
            return self.session.store.make("transfer-benchmark", VERSION, self.key(row), refuse)
        except EdgekdError:
            return None

    def run(self, row: str) -> None:
        """Run it and keep its figures."""
        self.session.store.make("transfer-benchmark", VERSION, self.key(row), lambda _: self._run(row))

    def _run(self, row: str) -> dict[str, Any]:
        session, inputs, steps = self.session, self.inputs(self.rows[row]), self.edition.steps
        stage = Stage(loss=KL(), max_steps=steps)
        # An epoch has a step at least: so many epochs always reach `max_steps`; every look is made.
        training = stage.training.model_copy(update={"epochs": float(steps), "evaluations": 6, "patience": 13})
        spec = Distill(stages=(stage.model_copy(update={"training": training}),), seed=self.seed)
        title = f"{self.name}, seed {self.seed}: {row}"
        made = distillation.distill(
            session.store, session.engine, self.start, inputs.task, inputs.lesson(), spec, title
        )[-1]
        model = distillation.load_student(made.path)
        counts = inputs.test.counts(inputs.task, predict_rows(model, inputs.test.encodings, session.engine))
        return {
            "score": inputs.task.score(counts),
            "validation": made.result["validation"],
            "teacher": inputs.test.score(inputs.task, inputs.test_rows),
            "untrained": made.result["untrained"],
            "steps": made.result["steps"],
            "seconds": made.result["seconds"],
            "counts": inputs.transfer.counts,
            "selection": None
            if inputs.transfer.selection is None
            else inputs.transfer.selection.model_dump(mode="json"),
            "texts": len(counts),
        } | _by_text(inputs.task, counts)


def _by_text(task: Task, counts: np.ndarray) -> dict[str, Any]:
    """What each text brings to the score, whose mean over texts it is; of two heads, their parts too."""
    if not isinstance(task, JointIntentSlotsTask):
        return {"correct": np.packbits(counts[:, 0].astype(bool)).tobytes().hex()}
    _, hits, _, missed, errors, texts = counts.T
    share = len(counts) / (hits + missed + texts).sum()
    return {"credit": (1 - share * errors).round(5).tolist(), "parts": task.parts(counts)}


def of_domain(data: TaskData, domains: dict[str, str], domain: str) -> TaskData:
    """The texts of one domain's intents."""
    labels = tuple(label for label in data.labels if domains[label] == domain)

    def part(split: Split | None) -> Split | None:
        if split is None:
            return None
        assert split.labels is not None
        return split.take([i for i, label in enumerate(split.labels) if label in set(labels)])

    return replace(data, labels=labels, train=part(data.train), validation=part(data.validation), test=part(data.test))


def write_pool(path: Path, data: TaskData, domains: dict[str, str], domain: str, generic: Sequence[str]) -> None:
    """The other domains' training texts, then generic sentences."""
    assert data.train is not None
    assert data.train.labels is not None
    others = [t for t, label in zip(data.train.texts, data.train.labels, strict=True) if domains[label] != domain]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*others, *generic]), encoding="utf-8")


def groups_of(session: Session, edition: Edition, folder: Path, scratch: Path) -> Iterator[Group]:
    """Every group of an edition, in the order in which they matter."""
    data = read_data(folder / "clinc150", task=TextClassification())
    domains = json.loads((folder / "clinc150" / "domains.json").read_text(encoding="utf-8"))
    generic = [text for chunk in Pool(folder / "generic" / "train.jsonl") for text in chunk.texts]
    if edition.generic is not None:
        rows = np.random.default_rng(0).permutation(len(generic))[: edition.generic]
        generic = [generic[i] for i in np.sort(rows)]
    encoder_id = folder_id(demo_encoder())
    for seed in range(edition.seeds):
        for domain in edition.domains:
            pool = scratch / f"{domain}.jsonl"
            write_pool(pool, data, domains, domain, generic)
            few = few_labels(of_domain(data, domains, domain), 10, seed, unlabelled=None, validation=None)
            assert few.unlabeled is not None
            size = len(few.unlabeled)
            rows_of = {name: _domain_row(*row, pool, size) for name, row in DOMAIN_ROWS.items()}
            yield Group(session, edition, f"domain {domain}", few, rows_of, seed, encoder_id)
    for seed in range(edition.seeds):
        yield _snips(session, edition, folder, scratch / "snips.jsonl", [*_texts(data), *generic], seed, encoder_id)
    for seed in range(edition.seeds):
        for labels in edition.labels:
            some = few_labels(data, labels, seed, unlabelled=0, validation=1000)
            copies = 1 if labels is None else edition.copies
            name = f"augmentation, {'all labels' if labels is None else f'{labels} labels a class'}"
            yield Group(session, edition, name, some, {p: _policy_row(p, copies) for p in POLICIES}, seed, encoder_id)


def _snips(
    session: Session, edition: Edition, folder: Path, path: Path, pool: Sequence[str], seed: int, encoder_id: str
) -> Group:
    """Joint intents and slots, with other text to draw from."""
    whole = read_data(folder / "snips", task=JointIntentSlots())
    few = few_labels(whole, 10, seed, unlabelled=SNIPS_TEXTS, validation=None)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in pool), encoding="utf-8")
    rows = {name: _domain_row(*row, path, SNIPS_TEXTS) for name, row in DOMAIN_ROWS.items()}
    return Group(session, edition, SNIPS, few, rows, seed, encoder_id)


def _texts(data: TaskData) -> Sequence[str]:
    assert data.train is not None
    return data.train.texts


def _domain_row(target: bool, ratio: float, method: str, pool: Path, size: int) -> Transfer:
    generic = {"path": str(pool), "size": round(ratio * size), "method": method} if ratio else None
    return Transfer.model_validate({"use_unlabeled": target, "generic": generic})


def _policy_row(policy: str, copies: int) -> Transfer:
    augment = [] if policy == "none" else [{"name": policy}]
    return Transfer.model_validate({"use_unlabeled": False, "augment": augment, "copies": copies})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edition", choices=list(EDITIONS), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with clinc150, snips and generic")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no new run after so many seconds")
    parser.add_argument("--part", default="1/1", help="k/n: this process takes every n-th group, from the k-th")
    parser.add_argument("--groups", nargs="+", default=[], help="only groups whose names begin with one of these")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument("--steps", type=int, help="other steps than the edition's, to try it out: nothing is written")
    options = parser.parse_args()
    began, edition = time.monotonic(), EDITIONS[options.edition]
    edition = replace(edition, steps=options.steps or edition.steps)
    session = Session(Store(default_root()), Engine.detect(options.threads, ConsoleProgress(error_console())))
    part, parts = map(int, options.part.split("/"))
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory() as scratch:
        groups = list(groups_of(session, edition, options.data, Path(scratch)))
        mine = [group for group in groups if not options.groups or group.name.startswith(tuple(options.groups))]
        for group in mine[part - 1 :: parts]:
            for row in group.rows:
                if group.finished(row) is None and time.monotonic() - began < options.seconds:
                    group.run(row)
            group.__dict__.pop("start", None)
        for group in groups:
            for row in group.rows:
                found = group.finished(row)
                if found is not None:
                    cells.append({"target": group.name, "row": row, "seed": group.seed} | found.result)
    tables = summarise(cells, [group.name for group in groups], {g.name: list(g.rows) for g in groups})
    for name, table in tables.items():
        print(markdown(name, table) if any("mean" in line for line in table) else f"### {name}\n\nnot run\n")
    gain = gain_by_likeness(cells)
    print(f"gain against likeness over {len(gain['points'])} domains and seeds: Spearman {gain['spearman']}")
    content = {
        "edition": asdict(edition), "student": STUDENTS["1/4"].kept.model_dump(), "tables": tables, "gain": gain,
        "cells": cells,
    }  # fmt: skip
    if options.steps is None:
        print("written:", write_record(f"transfer_{options.edition}", content))
        draw_gain(gain, RESULTS / f"transfer_{options.edition}.svg")


if __name__ == "__main__":
    main()
