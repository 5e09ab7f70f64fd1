"""What a teacher that can only be asked, such as a model behind an API, said of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.convert import as_number, convert, is_missing
from edgekd.data.files import read_table
from edgekd.data.holdout import hold_out
from edgekd.data.split import Split, TaskData, ordered_labels
from edgekd.data.table import Table
from edgekd.errors import DataError, UsageError
from edgekd.settings.columns import Columns
from edgekd.settings.task import TextClassification

# The columns that an output may stand in; where a row has several, the first counts.
_KINDS = ("logits", "probs", "label")

# What rounding in an API's answer may make of a sum of one.
_ROUNDING = 0.01

# Decides which texts are held out where there are no data; `read_data` takes the same.
_SEED = 0

_Said = tuple[str, dict[str, float]]


@dataclass(frozen=True)
class Outputs:
    """Probabilities of a teacher that is known by its outputs alone.

    Attributes:
        labels: Label names, in the order of the columns.
        texts: Each once.
        probabilities: (texts, labels) float32; each row sums to one.
        notes: What was done while reading.
    """

    labels: tuple[str, ...]
    texts: list[str]
    probabilities: NDArray[np.float32]
    notes: tuple[str, ...] = ()

    @cached_property
    def _places(self) -> dict[str, int]:
        return {text: i for i, text in enumerate(self.texts)}

    def places(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """The row of each text, (n,), -1 where there is none."""
        return np.array([self._places.get(text, -1) for text in texts], dtype=np.int64)

    def answers(self, places: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The likeliest label of these rows."""
        return [self.labels[i] for i in self.probabilities[places].argmax(axis=-1)]


def read_outputs(
    path: str | Path, labels: Sequence[str] = (), ids: Callable[[], Mapping[str, str]] | None = None
) -> Outputs:
    """Read a file of outputs.

    A row has `text` (or `id`, see `ids`) and one of `label` (a name), `probs` (an object from label to probability;
    labels that are not named share the rest evenly) and `logits` (the same, all labels named). Rows of one text are
    averaged.

    Args:
        labels: The data's labels; none: those that the file names.
        ids: Gives the texts of the data by their ids; asked where the rows have no text.

    Raises:
        DataError: A row is wrong; one line names file, row and mend.
    """
    table = read_table(Path(path).expanduser())
    said = [_said(table, i, labels) for i in range(len(table.rows))]
    names = tuple(labels) or ordered_labels({name for _, values in said for name in values})
    if len(names) < 2:
        raise DataError(f'{table.origin}: the only label is "{names[0]}"; there is nothing to tell apart')
    columns = {name: i for i, name in enumerate(names)}
    rows = np.stack([_probabilities(table, i, *one, columns) for i, one in enumerate(said)])
    return _each_once(names, _texts(table, ids), rows)


def data_of(outputs: Outputs) -> TaskData:
    """The outputs' own texts as data: validation and test are held out, and there are no gold labels.

    Raises:
        DataError: They are too few.
    """
    answers = outputs.answers(range(len(outputs.texts)))
    split, held, notes = hold_out(Split("unlabeled", outputs.texts, labels=answers), ["test", "validation"], _SEED)
    notes.append("no data given: the texts of the teacher's outputs, and quality is agreement with the local teacher")
    bare = {name: part.without_labels() for name, part in held.items()}
    return TaskData(TextClassification(), (), unlabeled=split.without_labels(), notes=tuple(notes), **bare)


def join(data: TaskData, outputs: Outputs) -> TaskData:
    """The data with the texts that only the outputs have, and a note on what the outputs cover.

    Raises:
        UsageError: Outputs are not read for such a task.
    """
    if not isinstance(data.task, TextClassification) or data.task.pair:
        what = f"{data.task.name} of pairs" if getattr(data.task, "pair", False) else data.task.name
        raise UsageError(f"--teacher-outputs are read for text classification of single texts, not for {what}")
    known = {text for split in data.splits for text in split.texts}
    extra = Split("unlabeled", [text for text in outputs.texts if text not in known])
    covered = [f"{int((outputs.places(split.texts) >= 0).sum())} of {len(split)} {split.name}" for split in data.splits]
    notes = [*data.notes, *outputs.notes, f"teacher outputs cover {', '.join(covered)} texts"]
    if not len(extra):
        return replace(data, notes=tuple(notes))
    notes.append(f"{len(extra)} texts of the teacher outputs are not in the data: they count as unlabeled")
    unlabeled = extra if data.unlabeled is None else data.unlabeled.concat(extra)
    return replace(data, unlabeled=unlabeled, notes=tuple(notes))


def lesson(data: TaskData, outputs: Outputs) -> tuple[TaskData, NDArray[np.float32]]:
    """What a local teacher learns: texts with an output, and gold labels of train where there is none.

    Texts of validation and test are never among them.

    Args:
        data: As `join` gives them.
        outputs: The outputs, their labels those of the data where these have some.

    Returns:
        Data whose train has a target for each text, in the order of (texts, labels) probabilities. Validation has its
        gold labels, or the outputs' answers where there are none. What is left without a target is unlabeled.

    Raises:
        DataError: No text to learn from, or to judge by, has an output.
    """
    held = {text for split in (data.validation, data.test) if split is not None for text in split.texts}
    rows: dict[str, NDArray[np.float32]] = {}
    rest: list[str] = []
    one_hot = np.eye(len(outputs.labels), dtype=np.float32)
    for split in (data.train, data.unlabeled):
        if split is None:
            continue
        labels: Sequence[str | None] = split.labels or [None] * len(split)
        for text, place, label in zip(split.texts, outputs.places(split.texts), labels, strict=True):
            if text in held:
                continue
            if place >= 0:
                rows[text] = outputs.probabilities[place]
            elif label is not None:
                rows[text] = one_hot[outputs.labels.index(label)]
            else:
                rest.append(text)
    if not (outputs.places(list(rows)) >= 0).any():
        raise DataError(
            "--teacher-outputs: none of their texts may be learned from: all are in validation or test; ask the "
            "teacher about train or unlabeled texts too"
        )
    targets = np.stack(list(rows.values()))
    train = Split("train", list(rows), labels=[outputs.labels[i] for i in targets.argmax(axis=-1)])
    unlabeled = Split("unlabeled", [text for text in rest if text not in rows])
    lesson = replace(
        data, labels=outputs.labels, train=train, validation=_judged(data.validation, outputs),
        unlabeled=unlabeled if len(unlabeled) else None,
    )  # fmt: skip
    return lesson, targets


def _judged(validation: Split | None, outputs: Outputs) -> Split:
    assert validation is not None
    if validation.labels is not None:
        return validation
    places = outputs.places(validation.texts)
    covered = np.flatnonzero(places >= 0)
    if not len(covered):
        raise DataError(
            "--teacher-outputs: no validation text has one, nor a gold label: ask the teacher about some of them"
        )
    return replace(validation.take(covered), labels=outputs.answers(places[covered]))


def _said(table: Table, i: int, known: Sequence[str]) -> _Said:
    """Which column row i speaks in, and its values by label; a label alone has probability one."""
    row = table.rows[i]
    kind = next((kind for kind in _KINDS if not is_missing(row.get(kind))), None)
    if kind is None:
        raise table.error(i, "no output: give label, probs or logits")
    values = {_label(table, i, row[kind]): 1.0} if kind == "label" else _numbers(table, i, row[kind], kind)
    for name in values:
        if known and name not in known:
            shown = ", ".join(known[:3]) + (", ..." if len(known) > 3 else "")
            raise table.error(i, f'label "{name}" is none of the data\'s {len(known)} ({shown})')
    return ("probs" if kind == "label" else kind), values


def _label(table: Table, i: int, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():  # integers with gaps arrive as floats
        value = int(value)
    if not isinstance(value, int | str):
        raise table.error(i, "label must be the name of one label")
    return str(value).strip()


def _numbers(table: Table, i: int, cell: Any, kind: str) -> dict[str, float]:
    """A number a label; parquet holds maps as lists of pairs, and structs with nothing for what a row lacks."""
    pairs = list(cell.items()) if isinstance(cell, dict) else cell
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise table.error(i, f"{kind} must be an object from label to number")
    found: dict[str, float] = {}
    for name, value in pairs:
        number = as_number(value)
        if value is None:
            continue
        if number is None:
            raise table.error(i, f'{kind} of "{name}" is {value!r}, not a finite number')
        if str(name) in found:
            raise table.error(i, f'{kind} names "{name}" twice')
        found[str(name)] = number
    if not found:
        raise table.error(i, f"{kind} names no label")
    return found


def _probabilities(
    table: Table, i: int, kind: str, values: Mapping[str, float], columns: Mapping[str, int]
) -> NDArray[np.float32]:
    """The row's probabilities, (labels,)."""
    row, missing = np.zeros(len(columns)), len(columns) - len(values)
    named = [columns[name] for name in values]
    row[named] = list(values.values())
    if kind == "logits":
        if missing:
            lacking = next(name for name in columns if name not in values)
            raise table.error(i, f'logits lack "{lacking}": give those of all {len(columns)} labels, or probs')
        return _normalised(np.exp(row - row.max()))
    total = row.sum()
    if (row < 0).any():
        lowest = min(values, key=lambda name: values[name])
        raise table.error(i, f'the probability of "{lowest}" is negative ({values[lowest]:g})')
    if total > 1 + _ROUNDING:
        raise table.error(i, f"the probabilities sum to {total:.4g}, more than one")
    if not missing and total < 1 - _ROUNDING:
        raise table.error(i, f"the probabilities of all {len(columns)} labels sum to {total:.4g}, not to one")
    if missing:
        others = np.ones(len(columns), dtype=bool)
        others[named] = False
        row[others] = max(0.0, 1 - total) / missing
    return _normalised(row)


def _normalised(row: NDArray[np.float64]) -> NDArray[np.float32]:
    shares: NDArray[np.float32] = (row / row.sum()).astype(np.float32)
    return shares


def _texts(table: Table, ids: Callable[[], Mapping[str, str]] | None) -> list[str]:
    if "text" in table.names:
        return convert(table, "unlabeled", TextClassification(), Columns(text="text", drop_labels=True))[0].texts
    if "id" not in table.names:
        raise DataError(f"{table.origin}: no column 'text', nor 'id' (found {', '.join(table.names)}); rename one")
    known = ids() if ids is not None else {}
    if not known:
        raise DataError(f"{table.origin}: rows of id, but no --data with a column 'id'; give the texts, or such data")
    texts = []
    for i, row in enumerate(table.rows):
        text = known.get(str(row.get("id")))
        if text is None:
            raise table.error(i, f'id "{row.get("id")}" is that of no text in the data')
        texts.append(text)
    return texts


def _each_once(labels: tuple[str, ...], texts: list[str], rows: NDArray[np.float32]) -> Outputs:
    """Rows of one text averaged."""
    once = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    if len(once) == len(texts):
        return Outputs(labels, texts, rows)
    slots = np.array([once[text] for text in texts])
    summed = np.zeros((len(once), len(labels)), dtype=np.float32)
    np.add.at(summed, slots, rows)
    again = len(texts) - len(once)
    note = f"{again} of {len(texts)} teacher outputs are on a text that has one already: each text's are averaged"
    summed /= np.bincount(slots)[:, None]
    return Outputs(labels, list(once), summed, (note,))
