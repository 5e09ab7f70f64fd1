"""A profile: everything that a compress run is asked to do, in one frozen, re-runnable value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from edgekd.settings.base import Spec, validated
from edgekd.settings.budget import Accept, Budget, Workload
from edgekd.settings.distill import Distill, Teach
from edgekd.settings.export import Export
from edgekd.settings.plan import Search
from edgekd.settings.target import CpuTarget, TargetSpec
from edgekd.settings.transfer import Transfer


class Profile(Spec):
    """A device class and what is wanted of it."""

    name: str
    description: str = ""
    budget: Budget = Budget()
    workload: Workload = Workload()
    target: TargetSpec = CpuTarget()
    search: Search = Search()
    transfer: Transfer = Transfer()
    teach: Teach = Teach()
    distill: Distill = Distill()
    export: Export = Export()
    accept: Accept = Accept()

    @model_validator(mode="after")
    def _elastic(self) -> Profile:
        last = len(self.distill.stages) - 1
        loss = self.distill.stages[last].loss
        asked = {"search.select accuracy": self.search.select == "accuracy"}
        asked["distill.assistants lambda"] = self.distill.assistants.name == "lambda"
        why = next((name for name, wanted in asked.items() if wanted), None)
        if why is not None and loss.family != "prediction":
            raise ValueError(
                f"distill.stages.{last}.loss {loss.name}: {why} trains slices in one run, on the teacher's logits: "
                "let a stage on logits (kl) follow"
            )
        return self


def parse(content: Mapping[str, Any], source: str) -> Profile:
    """Validate a profile's content; `source` names it in errors."""
    return validated(Profile, content, source)


def override(profile: Profile, changes: Mapping[str, Any], source: str = "flags") -> Profile:
    """Return the profile with dotted fields replaced, such as {"budget.latency_ms": 10}; None changes nothing.

    A number picks an entry of a list: {"distill.stages.0.training.epochs": 3}.
    """
    content: Any = profile.model_dump(mode="json")
    for dotted, value in changes.items():
        if value is None:
            continue
        *parents, leaf = dotted.split(".")
        place = content
        for parent in parents:
            place = place[int(parent) if isinstance(place, list) else parent]
        place[leaf] = value
    return parse(content, source)
