"""Augmented texts as a Parquet file, with their provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data.augment.apply import Augmented
from edgekd.data.split import Split
from edgekd.errors import DataError, require
from edgekd.store import replacing

# The key of the file's own metadata that notes and seed are under.
_METADATA = b"edgekd"
_PROVENANCE = ("parent", "policy", "seed")


def write_augmented(path: Path, augmented: Augmented) -> None:
    """Write texts with the columns parent, policy and seed; the file is either the old one or the whole new one.

    The columns of the text are named as `edgekd.settings.columns` finds them: text, text_pair, tokens; token tasks
    have `alignment` too.

    Raises:
        UnavailableError: pyarrow is not installed.
    """
    arrow = require("pyarrow", "cpu", f"write {path.name}")
    parquet = require("pyarrow.parquet", "cpu", f"write {path.name}")
    split, text = augmented.split, arrow.string()
    columns: dict[str, Any] = {"text": arrow.array(split.texts, text)}
    if split.pairs is not None:
        columns["text_pair"] = arrow.array(split.pairs, text)
    if split.words is not None:
        columns["tokens"] = arrow.array(split.words, arrow.list_(text))
        columns["alignment"] = arrow.array(augmented.alignment, arrow.list_(arrow.int32()))
    columns["parent"] = arrow.array(augmented.parents, arrow.int64())
    columns["policy"] = arrow.array(augmented.policies, text)
    columns["seed"] = arrow.array([augmented.seed] * len(augmented), arrow.int64())
    about = json.dumps({"seed": augmented.seed, "notes": augmented.notes}).encode()
    table = arrow.table(columns).replace_schema_metadata({_METADATA: about})
    with replacing(path) as file:
        parquet.write_table(table, file)


def read_augmented(path: Path) -> Augmented:
    """Read what `write_augmented` wrote.

    Raises:
        DataError: It is no such file.
        UnavailableError: pyarrow is not installed.
    """
    parquet = require("pyarrow.parquet", "cpu", f"read {path.name}")
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"{path}: not a readable parquet file: {str(error).splitlines()[0]}") from error
    about = (table.schema.metadata or {}).get(_METADATA)
    if about is None or not {"text", *_PROVENANCE} <= set(table.column_names):
        raise DataError(f"{path}: these are no augmented texts of edgekd: make them again")
    known: dict[str, list[Any]] = table.drop_columns(["seed"]).to_pydict()
    split = Split("augmented", known["text"], known.get("text_pair"), known.get("tokens"))
    meta = json.loads(about)
    parents = np.array(known["parent"], dtype=np.int64)
    return Augmented(split, parents, known["policy"], meta["seed"], known.get("alignment"), tuple(meta["notes"]))
