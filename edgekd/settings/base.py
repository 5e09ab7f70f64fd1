"""What every specification is: a frozen model, whose complaints are one line that names the field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edgekd.errors import UsageError, meant

ModelT = TypeVar("ModelT", bound=BaseModel)

# What was given is quoted in an error up to so many characters.
_SHOWN_INPUT = 80


class Spec(BaseModel):
    """Base of every specification: frozen, finite, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


def hint(name: str, known: Iterable[str]) -> str:
    """What to say of a name that is not known: the nearest, or all there are."""
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
        return f"{place}: no {context['tag']!r} here; {hint(str(context['tag']), known)}"
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
    near = meant(str(error["loc"][-1]), names)
    return f"{place}: unknown setting" + (f", {near}" if near else "")
