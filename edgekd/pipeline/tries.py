"""The plan's choice, tried; and what follows from a try that missed or came too near."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.assistants.by_accuracy import choose_student
from edgekd.distill.elastic import ElasticRun
from edgekd.output import emptied
from edgekd.pipeline.attempt import Attempt
from edgekd.pipeline.build import attempt
from edgekd.plan.planner import Planner
from edgekd.records.plan import Plan
from edgekd.records.result import Try
from edgekd.settings.target import Precision

REPLANS = 2
"""How often at most a choice is planned again that does not meet the budget."""


@dataclass
class StageClock:
    """Seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to a stage."""
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


@dataclass(frozen=True)
class Planned:
    """A request that was planned before: a family plans all of its members before it trains the first.

    Attributes:
        planner: Teacher, data and device.
        shared: The elastic run that students are cut out of which are among its slices.
        origin: What the report is to say of such a student.
    """

    planner: Planner
    plan: Plan
    shared: ElasticRun | None = None
    origin: str = ""


def make_attempts(planned: Planned, work: Path, clock: StageClock, pinned: bool) -> tuple[Attempt, list[Try]]:
    """Try the plan's choice; plan again where it does not meet the budget, train longer after a miss on quality.

    A try that was merely too near the budget is kept: where a smaller student does worse, it is what is shipped.
    """
    planner, plan, shared = planned.planner, planned.plan, planned.shared
    tries: list[Try] = []
    correction, longer, replans = 1.0, False, 0
    refused: tuple[Precision, ...] = ()
    made: Attempt | None = None
    with TemporaryDirectory(prefix="edgekd-kept-") as folder:
        kept = _Kept(Path(folder) / "bundle")
        while True:
            with clock.stage("distil, export, validate"):
                candidate = plan.choice or plan.nearest()
                made = attempt(planner, plan, candidate, work, longer=longer, previous=made, shared=shared)
            can_replan = not pinned and plan.chosen is not None and replans < REPLANS
            action = made.next_action(can_replan=can_replan, trained_longer=longer)
            if action == "without INT8":
                refused = ("int8",)
            elif action == "plan again":
                correction *= made.miss_factor
            if action in ("without INT8", "plan again"):
                replans += 1
                with clock.stage("plan"):
                    again = choose_student(planner, correction, refused)
                if leads_on(again, made):
                    plan = again
                else:
                    action = made.next_action(can_replan=False, trained_longer=longer)
                    planner.progress.say("planned again: there is no smaller student to try")
            tries.append(made.as_try(action))
            if action == "done":
                return kept.better(made, work), tries
            planner.progress.say(f"again: {tries[-1].action}")
            if action in ("train alone", "train longer"):
                shared, longer = None, action == "train longer"
                continue
            if made.outcome == "inconclusive":
                kept.keep(made, work)
            planner.progress.say(f"plan: {plan.said()}")


def leads_on(plan: Plan, made: Attempt) -> bool:
    """Whether a plan made after a try offers something else: the same again would be judged until it is met by luck.

    After a miss the nearest is worth a try too; what is only too near the budget is better than what surely misses it.
    """
    if plan.choice is None:
        return made.outcome == "missed"
    return not plan.choice.same_model(made.candidate)


@dataclass
class _Kept:
    """A try with its bundle, set aside while a smaller one is tried.

    Attributes:
        folder: Where the bundle is copied to.
        attempt: The try.
    """

    folder: Path
    attempt: Attempt | None = None

    def keep(self, attempt: Attempt, work: Path) -> None:
        """Set a try aside; an earlier one makes room."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(work, self.folder)
        self.attempt = attempt

    def better(self, last: Attempt, work: Path) -> Attempt:
        """The last try, or the one set aside where that came out better; its bundle is then in `work` again."""
        if self.attempt is None or last.outcome != "missed":
            return last
        shutil.copytree(self.folder, emptied(work), dirs_exist_ok=True)
        return self.attempt
