"""A profile: everything that a compress run is asked to do, in one frozen, re-runnable value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError

from edgekd.data.spec import Transfer
from edgekd.distill.spec import Distill, Teach
from edgekd.errors import UsageError, meant
from edgekd.graph.spec import Export
from edgekd.models.spec import Spec
from edgekd.plan.spec import Search
from edgekd.resources import resource
from edgekd.store import Store, default_root
from edgekd.targets.spec import CpuTarget, TargetSpec

ModelT = TypeVar("ModelT", bound=BaseModel)

# What was given is quoted in an error up to so many characters.
_SHOWN_INPUT = 80


class Budget(Spec):
    """The promise: this percentile of the end-to-end latency stays within `latency_ms`.

    Attributes:
        latency_ms: Milliseconds a call; None until the user gives one.
        percentile: Which percentile the limit is on, in percent: 95, not 0.95.
        headroom: Share of the budget that the plan leaves free, against noise and prediction error.
    """

    latency_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    percentile: float = Field(default=95, ge=1, lt=100)
    headroom: float = Field(default=0.07, ge=0, lt=1)


class Workload(Spec):
    """The calls that the budget is about.

    Attributes:
        batch_size: Texts a call.
        max_length: Tokens at which the budget is judged and longer texts are cut; "auto" is the 99.9th
            percentile of train + unlabeled, rounded up to 8 and capped by the model (128 without data).
        judge: "fixed" judges at `max_length`; "replay" on real texts at their own lengths. Both are reported.
    """

    batch_size: int = Field(default=1, ge=1)
    max_length: Literal["auto"] | int = "auto"
    judge: Literal["fixed", "replay"] = "fixed"


class Accept(Spec):
    """The quality floor, and the limits beside latency.

    Attributes:
        min_retained: Share of the teacher's metric on test that the student must keep, by a paired interval.
        max_drop: Points of the metric that quantisation may cost, on validation.
        max_mb: Largest model.onnx, in MB of 10^6 bytes; None sets no limit.
        max_memory_mb: Most memory that the process which runs the bundle may ever hold, Python and the runtime
            included, in MB of 2^20 bytes; None sets no limit.
    """

    min_retained: float = Field(default=0.97, gt=0, le=1)
    max_drop: float = Field(default=0.5, ge=0)
    max_mb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_memory_mb: float | None = Field(default=None, gt=0, allow_inf_nan=False)


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


def available(store: Store | None = None) -> dict[str, Path]:
    """Name and file of every shipped profile, and of every device added to `store` (None: at its usual place)."""
    store = store or Store(default_root())
    devices = {name: store.device_folder(name) / "profile.yaml" for name in store.device_names()}
    return {path.stem: path for path in sorted(resource("profiles").glob("*.yaml"))} | devices


def load(name: str, store: Store | None = None) -> Profile:
    """Load a shipped profile or that of an added device by name, or a YAML file by path.

    Args:
        name: Name or path.
        store: Where devices were added; None is the usual place.

    Raises:
        UsageError: No such profile ("did you mean"), not YAML, or a field is wrong.
    """
    known = available(store)
    path = known.get(name) or Path(name)
    if not path.is_file():
        raise UsageError(f"--profile {name or repr(name)}: no such profile or file; {_hint(name, known)}")
    content = read_yaml(path)
    if isinstance(content.get("profile"), dict):
        raise UsageError(f"--profile {name}: this is a whole request; run it with `edgekd compress -c {name}`")
    return parse(content, source=str(path.name))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; one clear line if it is none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}" if place is not None else ""
        raise UsageError(f"{path}{where}: not valid YAML") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a mapping of settings, got {type(content).__name__}")
    return content


def parse(content: Mapping[str, Any], source: str) -> Profile:
    """Validate a profile's content; `source` names it in errors."""
    return validated(Profile, content, source)


def validated(model: type[ModelT], content: Mapping[str, Any], source: str) -> ModelT:
    """Validate `content` as `model`; every pydantic complaint becomes one line naming the field.

    Raises:
        UsageError: A field is wrong or unknown ("did you mean").
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        # A list of which an entry is wrong is "too short" to pydantic as well.
        found = error.errors()
        places = [e["loc"] for e in found]
        own = [
            e for e in found
            if e["type"] != "too_short" or not any(p[: len(e["loc"])] == e["loc"] != p for p in places)
        ]  # fmt: skip
        raise UsageError(f"{source}: " + "; ".join(_complaint(model, content, e) for e in own[:3])) from error


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


def _hint(name: str, known: Iterable[str]) -> str:
    return meant(name, known) or f"known: {', '.join(known)}"


def _place(content: Any, location: Sequence[int | str]) -> str:
    """A field's path as the user wrote it: pydantic adds the names of what it tried."""
    written = []
    for i, part in enumerate(location):
        inside = part in content if isinstance(content, Mapping) else isinstance(part, int)
        if inside or i == len(location) - 1:
            written.append(str(part))
        if inside:
            try:
                content = content[part]
            except (IndexError, KeyError, TypeError):
                content = None
    return ".".join(written)


def _complaint(model: type[BaseModel], content: Mapping[str, Any], error: Any) -> str:
    place = _place(content, error["loc"])
    if error["type"] == "missing":
        return f"{place}: missing"
    if error["type"] == "union_tag_not_found":
        return f"{place}: {error['ctx']['discriminator'].strip(chr(39))} is missing: it says which one this is"
    if error["type"] == "union_tag_invalid":
        context = error["ctx"]
        known = [name.strip("' ") for name in context["expected_tags"].split(",")]
        return f"{place}: no {context['tag']!r} here; {_hint(str(context['tag']), known)}"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}".removeprefix(": ")
    if error["type"] in ("model_attributes_type", "model_type"):
        return f"{place}: expected settings such as {{name: ...}} (got {str(error['input'])[:_SHOWN_INPUT]!r})"
    if error["type"] != "extra_forbidden":
        got = repr(error["input"])
        return f"{place}: {error['msg']}" + (f" (got {got})" if len(got) <= _SHOWN_INPUT else "")
    parent: Any = model
    for part in error["loc"][:-1]:
        field = parent.model_fields.get(part) if hasattr(parent, "model_fields") else None
        parent = field.annotation if field is not None else None
    names = list(getattr(parent, "model_fields", {}))
    hint = meant(str(error["loc"][-1]), names)
    return f"{place}: unknown setting" + (f", {hint}" if hint else "")
