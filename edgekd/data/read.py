"""The user's data, from a folder, a file or the hub, as one checked `TaskData`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgekd.data.convert import as_number, convert, find_column, gold_column, is_list
from edgekd.data.files import find_files, read_table, read_tables, require_no_others
from edgekd.data.holdout import hold_out
from edgekd.data.hub import read_hub
from edgekd.data.split import Split, TaskData, ordered_labels
from edgekd.data.table import Table
from edgekd.errors import DataError
from edgekd.runtime.words import WordSplit
from edgekd.settings.columns import Columns
from edgekd.settings.request import is_hub_data
from edgekd.settings.task import (
    JointIntentSlots,
    MultiLabelClassification,
    SequenceTask,
    TaskSpec,
    TextClassification,
    TextRegression,
    TokenClassification,
    WordTask,
)

LABELLED = ("train", "validation", "test")

_WHOLE = re.compile(r"-?\d+(\.0+)?")

# Names that may be a class, or stand for a label that is missing.
_DOUBTFUL = ("na", "n/a", "none")

# Files and columns that are not read are named, so many of them.
_NAMED = 8


def read_data(
    source: str | Path,
    *,
    task: TaskSpec | None = None,
    columns: Columns | None = None,
    hub_config: str | None = None,
    seed: int = 0,
) -> TaskData:
    """Read, check and complete the user's data.

    Args:
        source: A folder with files named after the splits, one file (then it is train), or a hub id.
        task: The task; None reads it off the columns.
        columns: Names of columns that are not the usual ones.
        hub_config: Configuration of a hub set.
        seed: Decides which texts are held out where a split is missing.

    Returns:
        The data. Without gold labels there is no train, and validation and test are texts held out of the
        unlabelled ones.

    Raises:
        DataError: The data are wrong; one line names the file, the row and the mend.
        UnavailableError: The hub cannot be reached, or a library is missing.
    """
    columns = columns or Columns()
    tables, unread = _load(source, hub_config)
    task, remarks = _task(tables, task, columns)
    notes = [*unread, *remarks]
    splits: dict[str, Split] = {}
    # What has words tells how plain text is to be split into words; it comes first.
    for name, table in sorted(tables.items(), key=lambda item: item[0] == "unlabeled"):
        notes += table.notes
        split = WordSplit.of(text for known in splits.values() for text in known.words or ())
        splits[name], remarks = convert(table, name, task, columns, split)
        notes += remarks
    notes += _unread_columns(tables, task, columns)
    _hide(splits)
    _as_whole_numbers(splits)
    _as_booleans(splits)
    notes += _settle_gold(splits, tables, task, columns, unread)
    labels = _labels(splits, tables, task)
    notes += [
        f'label "{label}" is taken as a class of that name; where it stands for none, leave the cell empty'
        for label in labels
        if label.casefold() in _DOUBTFUL
    ]
    notes += _complete(splits, seed)
    notes += _overlaps(splits)
    return TaskData(task, labels, notes=tuple(notes), **splits)


def _load(source: str | Path, hub_config: str | None) -> tuple[dict[str, Table], list[str]]:
    if isinstance(source, str) and not source.strip():
        raise DataError("--data is empty: give a folder, a file or owner/name of the hub")
    path = Path(source).expanduser()
    if path.is_dir():
        found, others = find_files(path)
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        notes = [f"not read, as not named after a split: {', '.join(others[:_NAMED])}{more}"] if others else []
        return {name: read_tables(files) for name, files in found.items()}, notes
    if path.is_file():
        require_no_others(path)
        return {"train": read_table(path)}, []
    if isinstance(source, str) and is_hub_data(source):
        return read_hub(source, hub_config)
    raise DataError(f"{source}: no such file or folder (a data set of the hub is named owner/name)")


def _task(tables: dict[str, Table], task: TaskSpec | None, columns: Columns) -> tuple[TaskSpec, list[str]]:
    """The task as asked for or as the columns tell, and a note on a second text that is not read."""
    names = next(tables[name] for name in (*LABELLED, "unlabeled") if name in tables).names
    if task is None and columns.text is None and columns.label is None:
        asked = columns.tokens is not None or columns.tags is not None
        if asked or (columns.find("tokens", names) and columns.find("tags", names)):
            return TokenClassification(), []
    if isinstance(task, WordTask):
        return task, []
    pair = columns.find("text_pair", names)
    if task is None:
        kind, notes = _kind_of_gold(tables, columns)
        return kind(pair=pair is not None or columns.text_pair is not None), notes
    if not task.pair:
        if columns.text_pair is not None:
            return task.model_copy(update={"pair": True}), []
        if pair is not None:
            return task, [f"column {pair} is not used: the task takes one text a row"]
    return task, []


def _kind_of_gold(tables: dict[str, Table], columns: Columns) -> tuple[type[SequenceTask], list[str]]:
    """What the label column holds: lists are sets of labels, fractions are values, all else is one label a text."""
    table = next((tables[name] for name in LABELLED if name in tables), None)
    if table is None:
        return TextClassification, []
    found = columns.find("label", table.names)
    value = columns.find("value", table.names)
    if found is None and value is not None:
        scores = [as_number(row.get(value)) for row in table.rows]
        if None not in scores and any(not score.is_integer() for score in scores if score is not None):
            return TextRegression, [f"column {value} holds numbers with fractions: read as regression"]
    if found is None:
        return TextClassification, []
    cells = [cell for row in table.rows if (cell := row.get(found)) not in (None, "")]
    lists = [i for i, row in enumerate(table.rows) if is_list(row.get(found))]
    if lists and 2 * len(lists) < len(cells):
        raise table.error(
            lists[0],
            f"column '{found}' holds a list where most rows hold one label; write one label, "
            "or --task multi-label-classification",
        )
    if lists:
        return MultiLabelClassification, [f"column {found} holds lists: read as multi-label classification"]
    numbers = [as_number(cell) for cell in cells]
    fraction = any(number is not None and not number.is_integer() for number in numbers)
    if fraction and None not in numbers:
        return TextRegression, [
            f"column {found} holds numbers with fractions: read as regression (--task text-classification: as labels)"
        ]
    return TextClassification, []


def _unread_columns(tables: dict[str, Table], task: TaskSpec, columns: Columns) -> list[str]:
    """A note on the columns of which nothing is read."""
    roles = ["tokens", "tags"] if isinstance(task, WordTask) else ["text", "label"]
    roles += ["text", "label"] if isinstance(task, JointIntentSlots) else ["text"]
    roles += ["value"] if task.output == "value" else []
    roles += ["text_pair"] if getattr(task, "pair", False) else []
    names = dict.fromkeys(name for table in tables.values() for name in table.names)
    read = {columns.find(role, table.names) for role in roles for table in tables.values()}
    unread = [name for name in names if name not in read and name]
    if not unread:
        return []
    more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
    return [f"columns not used: {', '.join(unread[:_NAMED])}{more}"]


def _as_whole_numbers(splits: dict[str, Split]) -> None:
    """Take the ".0" off labels that are all whole numbers: a gap in a column, or pandas, brings it."""
    labelled = {name: split for name, split in splits.items() if split.labels is not None}
    labels = {label for split in labelled.values() for label in split.labels or ()}
    if all(map(_WHOLE.fullmatch, labels)):
        for name, split in labelled.items():
            splits[name] = replace(split, labels=[label.partition(".")[0] for label in split.labels or ()])


def _as_booleans(splits: dict[str, Split]) -> None:
    """Write true and false in one way: JSON, pandas and spreadsheets write each in their own."""
    labelled = {name: split for name, split in splits.items() if split.labels is not None}
    if {label.casefold() for split in labelled.values() for label in split.labels or ()} <= {"true", "false"}:
        for name, split in labelled.items():
            splits[name] = replace(split, labels=[label.capitalize() for label in split.labels or ()])


def _hide(splits: dict[str, Split]) -> None:
    """Take the labels off a split in which all are -1, as benchmarks hide them, where train knows no such class."""
    train = splits.get("train")
    known = set() if train is None or train.labels is None else set(train.labels)
    for name in ("validation", "test"):
        if name in splits and set(splits[name].labels or ()) == {"-1"} and known and "-1" not in known:
            splits[name] = replace(splits[name], labels=None)


def _settle_gold(
    splits: dict[str, Split], tables: dict[str, Table], task: TaskSpec, columns: Columns, unread: list[str]
) -> list[str]:
    """Splits without labels: train becomes unlabelled text, others are left out if others have labels."""
    notes = []
    train = splits.get("train")
    if train is not None and not train.has_gold:
        del splits["train"]
        texts = replace(train, name="unlabeled")
        splits["unlabeled"] = texts.concat(splits["unlabeled"]) if "unlabeled" in splits else texts
        notes.append(f"train has no labels: its {len(train)} texts count as unlabeled")
    labelled = [name for name in LABELLED if name in splits and splits[name].has_gold]
    for name in [name for name in LABELLED if name in splits and labelled and name not in labelled]:
        if gold_column(tables[name], task, columns) is None:
            find_column(tables[name], "tags" if isinstance(task, WordTask) else "label", columns)
        del splits[name]
        notes.append(f"{name} left out: all its labels are empty or hidden")
    if "train" not in splits and "unlabeled" not in splits:
        others = "".join(f" ({note})" for note in unread)
        raise DataError(f"{', '.join(tables)} alone: nothing to learn from{others}; add train or unlabeled")
    return notes


def _labels(splits: dict[str, Split], tables: dict[str, Table], task: TaskSpec) -> tuple[str, ...]:
    """The labels of train (of all labelled splits without it); no other split may have one more."""
    labelled = {name: splits[name] for name in LABELLED if name in splits and splits[name].has_gold}
    if not labelled:
        return ()
    if task.output == "value":
        return _one_value(labelled, tables)
    if isinstance(task, JointIntentSlots):
        intents = _known(labelled, tables, lambda split: [[label] for label in split.labels or []], set())
        tags = _known(labelled, tables, lambda split: split.tags or [], {"O"})
        if both := sorted(intents & tags):
            raise DataError(f'{tables[next(iter(labelled))].origin}: "{both[0]}" is a label and a tag; rename one')
        return (*ordered_labels(intents), *ordered_labels(tags, bio=True))
    if task.name == "token-classification":
        return ordered_labels(_known(labelled, tables, lambda split: split.tags or [], {"O"}), bio=True)
    return ordered_labels(
        _known(labelled, tables, lambda s: s.label_sets or [[label] for label in s.labels or []], set())
    )


def _known(
    labelled: dict[str, Split], tables: dict[str, Table], listed: Callable[[Split], list[list[str]]], known: set[str]
) -> set[str]:
    """Names that occur in train (in all labelled splits without it), and `known` ones; no other split has one more."""
    bio = bool(known)
    for split in [labelled["train"]] if "train" in labelled else labelled.values():
        known = known.union(*listed(split))
    if len(known) < 2:
        what = "every tag is O" if bio else f'the only label is "{next(iter(known))}"'
        raise DataError(f"{tables[next(iter(labelled))].origin}: {what}; there is nothing to tell apart")
    for name, split in labelled.items():
        for i, row in enumerate(listed(split)):
            for label in row:
                if label not in known:
                    what = "tag" if bio else "label"
                    mend = "; put a row that has it into train, or leave this one out"
                    raise tables[name].error(i, f'{what} "{label}" does not occur in train{mend}')
    return known


def _one_value(labelled: dict[str, Split], tables: dict[str, Table]) -> tuple[str, ...]:
    """A regression's one label, once it is known that there is something to learn."""
    first = next(iter(labelled))
    if len(set(labelled[first].values or [])) < 2:
        raise DataError(f"{tables[first].origin}: every value is the same; there is nothing to tell apart")
    return ("value",)


def _complete(splits: dict[str, Split], seed: int) -> list[str]:
    """Hold out the missing validation and test: of labelled texts if there are any, else of unlabelled."""
    missing = [name for name in ("test", "validation") if name not in splits]
    labelled = [name for name in LABELLED if name in splits and splits[name].has_gold]
    notes: list[str] = []
    if missing:
        donor = labelled[0] if labelled else "unlabeled"
        splits[donor], held, notes = hold_out(splits[donor], missing, seed)
        splits |= held
    if not labelled:
        notes.append("no gold labels: quality is agreement with the teacher on held-out text")
    return notes


def _overlaps(splits: dict[str, Split]) -> list[str]:
    notes = []
    for here in ("train", "unlabeled"):
        seen = set(splits[here].keys()) if here in splits else set()
        for name in ("validation", "test"):
            both = sum(map(seen.__contains__, splits[name].keys()))
            if both:
                notes.append(f"{both} of {len(splits[name])} {name} texts are also in {here}; {name} keeps them")
    return notes


def read_ids(source: str | Path, columns: Columns, hub_config: str | None) -> dict[str, str]:
    """The data's texts by the column `id`; empty where no file has one.

    Raises:
        DataError: Two texts have one id.
    """
    texts: dict[str, str] = {}
    for table in _load(source, hub_config)[0].values():
        column = columns.find("text", table.names)
        if "id" not in table.names or column is None:
            continue
        for i, row in enumerate(table.rows):
            if row.get("id") is None:
                continue
            if texts.setdefault(str(row.get("id")), row[column]) != row[column]:
                raise table.error(i, f'id "{row.get("id")}" is that of another text too')
    return texts
