"""What every specification is: a frozen model, whose complaints are one line that names the field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekd.errors import UsageError, meant

ModelT = TypeVar("ModelT", bound=BaseModel)

# numpy's and torch's generators take no larger one.
Seed = Annotated[int, Field(ge=0, lt=2**32)]

# What was given is quoted in an error up to so many characters.
_SHOWN_INPUT = 80
# Pydantic lists what a literal may be as text: "'a', 'b' or 'c'".
_LITERAL = re.compile("'([^']*)'")


class Spec(BaseModel):
    """Base of every specification: frozen, finite, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SettingError(UsageError):
    """A setting is wrong.

    Attributes:
        place: The first wrong field's dotted path.
        why: What is wrong with it, without what was given.
    """

    def __init__(self, source: str, complaints: Sequence[tuple[str, str, str]]) -> None:
        self.place, self.why, _ = complaints[0]
        said = "; ".join(": ".join(part for part in (place, why + got) if part) for place, why, got in complaints)
        super().__init__(f"{source}: {said}")


def validated(model: type[ModelT], content: Mapping[str, Any], source: str) -> ModelT:
    """Validate `content` as `model`; every pydantic complaint becomes one line naming the field.

    Raises:
        SettingError: A field is wrong or unknown ("did you mean").
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
        raise SettingError(source, [_complaint(model, content, e) for e in own[:3]]) from error


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


def _complaint(model: type[BaseModel], content: Mapping[str, Any], error: Any) -> tuple[str, str, str]:
    """Where, why, and what was given instead, where that is worth showing."""
    place, kind = _place(content, error["loc"]), error["type"]
    if kind == "missing":
        return place, "missing", ""
    if kind == "union_tag_not_found":
        return place, f"{error['ctx']['discriminator'].strip(chr(39))} is missing: it says which one this is", ""
    if kind == "union_tag_invalid":
        context = error["ctx"]
        known = [name.strip("' ") for name in context["expected_tags"].split(",")]
        return place, f"no {context['tag']!r} here; {hint(str(context['tag']), known)}", ""
    if kind == "literal_error" and isinstance(error["input"], str):
        known = _LITERAL.findall(error["ctx"]["expected"])
        return place, f"no {error['input']!r} here; {hint(error['input'], known)}", ""
    if kind == "value_error":
        # Where a combination is refused, the message begins with the field that is to change.
        field, colon, why = str(error["ctx"]["error"]).partition(": ")
        if colon and field.isidentifier():
            return ".".join(part for part in (place, field) if part), why, ""
        return place, str(error["ctx"]["error"]), ""
    if kind in ("model_attributes_type", "model_type"):
        return place, "expected settings such as {name: ...}", f" (got {str(error['input'])[:_SHOWN_INPUT]!r})"
    if kind == "extra_forbidden":
        near = meant(str(error["loc"][-1]), _fields(model, error["loc"][:-1]))
        return place, "unknown setting" + (f", {near}" if near else ""), ""
    got = repr(error["input"])
    return place, error["msg"], f" (got {got})" if len(got) <= _SHOWN_INPUT else ""


def _fields(model: Any, path: Sequence[int | str]) -> list[str]:
    """Names of the fields that are known at a place; none where a list or a choice is on the way."""
    for part in path:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field is not None else None
    return list(getattr(model, "model_fields", {}))
