"""What every record is, and how one is read back from a file or from the store."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from edgekd.errors import UsageError
from edgekd.reading import read_json
from edgekd.settings.base import Spec, validated
from edgekd.store import Artefact

ModelT = TypeVar("ModelT", bound=BaseModel)


class Record(Spec):
    """Base of what is written down about a run: frozen, no unknown keys, and only numbers that JSON can hold."""


def _open_end(value: Any) -> Any:
    """Turn an infinite upper end into None: JSON has no infinity."""
    if isinstance(value, list | tuple) and len(value) == 2 and value[1] == math.inf:
        return (value[0], None)
    return value


Interval = Annotated[tuple[float, float | None], BeforeValidator(_open_end)]
"""Lower and upper end; the upper end is None where the samples are too few to bound it."""


def read_record(path: Path, model: type[ModelT]) -> ModelT:
    """Read and validate a JSON file that carries a `schema_version`.

    Raises:
        UsageError: The file is missing, not JSON, of a newer schema, or does not fit the model.
    """
    content = read_json(path, "name the folder of a finished run, or make it again")
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a JSON object, got {type(content).__name__}")
    version, known = content.get("schema_version"), model.model_fields["schema_version"].default
    if isinstance(version, int) and version > known:
        raise UsageError(f"{path}: schema_version {version} is newer than this edgekd reads ({known}): upgrade edgekd")
    return validated(model, content, str(path))


def record_of(artefact: Artefact, model: type[ModelT]) -> ModelT:
    """What a stage wrote down, out of the store.

    Raises:
        UsageError: It was written by an edgekd that told it otherwise.
    """
    try:
        return model.model_validate(artefact.result)
    except ValidationError as error:
        raise UsageError(f"{artefact.path} is of another version of edgekd: delete it, and it is made again") from error
