"""A table's columns to the texts, labels and tags of a split, with every row checked."""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from dataclasses import replace
from itertools import pairwise
from typing import Any

from edgekd.data.split import Split
from edgekd.data.table import Table
from edgekd.errors import DataError
from edgekd.runtime.tags import OUTSIDE, begins_with_i, repair_bio, scheme_of, unknown_scheme
from edgekd.runtime.words import PLAIN, WordSplit
from edgekd.settings.columns import Columns
from edgekd.settings.task import JointIntentSlots, SequenceTask, TaskSpec, TokenClassification, WordTask

_PREFIXED = re.compile(r"[BILUES]-.+")

# What stands in a table for nothing; a class of such a name needs another.
_NOTHING = ("", "nan", "nat", "<na>", "null")

# What numpy prints of an array of strings: Python reads strings side by side as one.
_SIDE_BY_SIDE = re.compile(r"""['"]\s+['"]""")

# What may lie between the labels of one cell, tried in this order; the first that the column has is its delimiter.
DELIMITERS = "|;,"


def convert(
    table: Table, name: str, task: TaskSpec, columns: Columns, split: WordSplit = PLAIN
) -> tuple[Split, list[str]]:
    """Read a table as one split of a task.

    Args:
        table: The rows; row i of the split is row i of the table.
        name: The split; the labels of "unlabeled" are left out.
        columns: Which columns to read.
        split: How plain text is split into words, where a task asks for words.

    Returns:
        The split, and notes on what was done. It has no labels (or tags) if no row has one.

    Raises:
        DataError: A column is missing, or a row is wrong.
    """
    if isinstance(task, TokenClassification):
        return _tokens(table, name, columns, split)
    if isinstance(task, JointIntentSlots):
        return _tokens_with_label(table, name, columns, split)
    return _texts_with_gold(table, name, task, columns)


def gold_column(table: Table, task: TaskSpec, columns: Columns) -> str | None:
    """The column of what is right in a task: labels, tags or values; None where there is none."""
    if isinstance(task, WordTask):
        return columns.find("tags", table.names)
    found = columns.find("label", table.names)
    if found is None and task.output == "value":
        return columns.find("value", table.names)
    return found


def find_column(table: Table, role: str, columns: Columns) -> str:
    """The column of a role.

    Raises:
        DataError: There is none; the message lists the columns found.
    """
    found = columns.find(role, table.names)
    if found is None:
        named = getattr(columns, role)
        wanted = f"no column '{named}'" if named else f"no column for the {role.replace('_', ' ')}"
        mend = f"name it with --{role.removeprefix('text_')}-column, or give the table a header"
        if len(table.names) == 1 and any(mark in table.names[0] for mark in ";\t|,"):
            mend = "one column holds them all: save the table with commas as .csv, or with tabs as .tsv"
        raise DataError(f"{table.origin}: {wanted} (found {', '.join(table.names)}); {mend}")
    return found


def _texts_with_gold(table: Table, name: str, task: SequenceTask, columns: Columns) -> tuple[Split, list[str]]:
    texts = read_column(table, "text", columns)
    pairs = read_column(table, "text_pair", columns) if task.pair else None
    found = gold_column(table, task, columns)
    if found is None:
        if columns.label is not None and name == "train":
            find_column(table, "label", columns)
        return Split(name, texts, pairs), []
    if name == "unlabeled":
        return Split(name, texts, pairs), _dropped(table, found, columns)
    if task.output == "flags":
        sets = _all_or_none(table, _label_sets(table, found), f"no labels in column '{found}'")
        return Split(name, texts, pairs, label_sets=sets if sets and any(sets) else None), []
    if task.output == "value":
        numbers = [_value(table, i, found) for i in range(len(texts))]
        return Split(name, texts, pairs, values=_all_or_none(table, numbers, f"no value in column '{found}'")), []
    values = [_label(table, i, found) for i in range(len(texts))]
    labels = _all_or_none(table, values, f"no label in column '{found}'")
    return Split(name, texts, pairs, labels=labels), []


def _tokens_with_label(table: Table, name: str, columns: Columns, split: WordSplit) -> tuple[Split, list[str]]:
    made, notes = _tokens(table, name, columns, split)
    found = columns.find("label", table.names)
    if name == "unlabeled":
        return made, notes
    labels = None
    if found is not None:
        values = [_label(table, i, found) for i in range(len(made))]
        labels = _all_or_none(table, values, f"no label in column '{found}'")
    if (labels is None) != (made.tags is None):
        have, lack = ("tags", "label") if labels is None else ("labels", "tags")
        raise DataError(f"{table.origin}: {have} but no {lack}: a joint task needs both; name it with --{lack}-column")
    return replace(made, labels=labels), notes


def _tokens(table: Table, name: str, columns: Columns, split: WordSplit) -> tuple[Split, list[str]]:
    if name == "unlabeled" and columns.find("tokens", table.names) is None:
        return _plain_words(table, columns, split)
    words = _words(table, find_column(table, "tokens", columns))
    texts = [" ".join(text) for text in words]
    found = columns.find("tags", table.names)
    if found is None:
        if columns.tags is not None and name == "train":
            find_column(table, "tags", columns)
        return Split(name, texts, words=words), []
    if name == "unlabeled":
        return Split(name, texts, words=words), _dropped(table, found, columns)
    values = [_tags(table, i, found, len(words[i])) for i in range(len(words))]
    tags = _all_or_none(table, values, f"no tags in column '{found}'")
    if tags is None:
        return Split(name, texts, words=words), []
    _require_one_scheme(table, tags)
    if scheme_of({tag for text in tags for tag in text}) != "BIO" or begins_with_i(tags):
        return Split(name, texts, words=words, tags=tags), []
    repaired = [repair_bio(text) for text in tags]
    illegal = [i for i, (before, after) in enumerate(zip(tags, repaired, strict=True)) if _changes(before, after)]
    if columns.strict and illegal:
        why = f"an I- tag begins a span, here and in {len(illegal) - 1} more rows; mend them, or leave out --strict"
        raise table.error(illegal[0], why)
    changed = sum(_changes(before, after) for before, after in zip(tags, repaired, strict=True))
    notes = [f"{name}: {changed} I- tags that begin a span read as B-, as conlleval does"] if changed else []
    return Split(name, texts, words=words, tags=repaired), notes


def _require_one_scheme(table: Table, tags: list[list[str]]) -> None:
    """Refuse a tag without a prefix among tags that have one, and the ends of two schemes in one column."""
    known = {tag for text in tags for tag in text}
    if why := unknown_scheme(known):
        raise DataError(f"{table.origin}: {why}")
    if not any(tag.startswith(("B-", "I-")) for tag in known):
        return
    both = all(any(tag.startswith(marks) for tag in known) for marks in (("L-", "U-"), ("E-", "S-")))
    for i, text in enumerate(tags):
        for tag in text:
            if tag != OUTSIDE and not _PREFIXED.fullmatch(tag):
                raise table.error(i, f"tag {tag!r} is neither O nor B-... nor I-... as the others are")
            if both and tag.startswith(("L-", "U-")):
                raise table.error(i, f"tag {tag!r} is of BILOU, others are of IOBES: write all in one scheme")


def _dropped(table: Table, column: str, columns: Columns) -> list[str]:
    """A note on gold labels of unlabelled text, once it is known that they are meant to be left out.

    Data sets of the hub hide a label as -1.
    """
    cells = [row.get(column) for row in table.rows]
    given = [i for i, cell in enumerate(cells) if not is_missing(cell) and cell not in (-1, [])]
    if given and not columns.drop_labels:
        raise table.error(
            given[0], f"unlabelled text with a label (column '{column}'): take the column out, name the file train, "
            "or say --drop-labels"
        )  # fmt: skip
    return [f"unlabeled: its column {column} is not used"] if given else []


def _plain_words(table: Table, columns: Columns, split: WordSplit) -> tuple[Split, list[str]]:
    plain = read_column(table, "text", columns)
    words = [split.words(text) for text in plain]
    made = Split("unlabeled", [" ".join(text) for text in words], words=words)
    return made, ["unlabeled: its texts are split into words at white space and punctuation"]


def _changes(before: list[str], after: list[str]) -> int:
    return sum(old != new for old, new in zip(before, after, strict=True))


def read_column(table: Table, role: str, columns: Columns) -> list[str]:
    """The texts of a role, "text" or "text_pair".

    Raises:
        DataError: There is no such column, or a row of it holds no text.
    """
    # A .txt file has no header whose name could be given.
    column = "text" if role == "text" and table.names == ["text"] else find_column(table, role, columns)
    return [_text(table, i, row.get(column), column) for i, row in enumerate(table.rows)]


def _text(table: Table, i: int, value: Any, column: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise table.error(i, f"no text in column '{column}'")
    if not isinstance(value, str):
        raise table.error(i, f"column '{column}' holds {_kind(value)}, not a string")
    if not value.strip():
        raise table.error(i, f"empty text in column '{column}'")
    return _encodable(table, i, value)


def _encodable(table: Table, i: int, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise table.error(i, "half of a surrogate pair is no character; mend the escape") from error
    return text


def _words(table: Table, column: str) -> list[list[str]]:
    texts = []
    for i, row in enumerate(table.rows):
        words = _sequence(table, i, row.get(column), column)
        for word in words:
            if not isinstance(word, str):
                raise table.error(i, f"column '{column}' holds {_kind(word)} among the tokens, not a string")
        if not any(word.strip() for word in words):
            raise table.error(i, f"empty text in column '{column}'")
        _encodable(table, i, " ".join(words))
        texts.append(words)
    return texts


def _sequence(table: Table, i: int, value: Any, column: str) -> list[Any]:
    """A list; a string (as in a CSV) is split at white space, unless it is a list written as text."""
    if isinstance(value, str):
        return _written_list(table, i, value.strip(), column) if value.strip().startswith("[") else value.split()
    if not isinstance(value, list):
        raise table.error(i, f"column '{column}' holds {_kind(value)}, not a list")
    return value


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, or nothing but white space, or what pandas writes for these."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip().casefold() in _NOTHING)


def _written_list(table: Table, i: int, text: str, column: str) -> list[Any]:
    """A list as pandas and JSON write one into a cell; words that merely begin with a bracket are split."""
    if not text.endswith("]"):
        return text.split()
    if _SIDE_BY_SIDE.search(text) and _has_strings_side_by_side(text):
        raise table.error(i, f'column \'{column}\' holds a list without commas, as numpy prints it; write ["a", "b"]')
    value = _list_in(text)
    if value is not None:
        return value
    if any(mark in text for mark in "'\""):
        raise table.error(i, f'column \'{column}\' holds a list that is no Python or JSON list; write ["a", "b"]')
    return text.split()


def _has_strings_side_by_side(text: str) -> bool:
    try:
        kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)]
    except (tokenize.TokenError, SyntaxError):
        return False
    kinds = [kind for kind in kinds if kind not in (tokenize.NL, tokenize.NEWLINE)]
    return any(a == b == tokenize.STRING for a, b in pairwise(kinds))


def is_list(value: Any) -> bool:
    """Whether a cell holds a list, or one written as text, as pandas does."""
    return isinstance(value, list) or (isinstance(value, str) and _list_in(value.strip()) is not None)


def _list_in(text: str) -> list[Any] | None:
    """The list that a text is, as Python or JSON writes one; None where it is none."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _label(table: Table, i: int, column: str) -> str | None:
    """A label's name, or None where it is missing or hidden (-1 among named classes)."""
    value = table.rows[i].get(column)
    if is_missing(value):
        return None
    if isinstance(value, bool):
        value = str(value)  # as tables are written with pandas
    if isinstance(value, float) and value.is_integer():  # integers with gaps arrive as floats
        value = int(value)
    if not isinstance(value, (int, float, str)):
        raise table.error(i, f"column '{column}' holds {_kind(value)}, not a label")
    names = table.classes.get(column)
    if names is None or isinstance(value, str):
        return _encodable(table, i, str(value).strip())
    if isinstance(value, float):
        raise table.error(i, f"label {value} in column '{column}' is none of its {len(names)} classes")
    if value == -1:
        return None
    if not 0 <= value < len(names):
        raise table.error(i, f"label {value} in column '{column}' is none of its {len(names)} classes")
    return names[value]


def _label_sets(table: Table, column: str) -> list[list[str] | None]:
    """The labels of each row, each once: a list, or a string with a delimiter; None where there is nothing.

    An empty list, like an empty cell, is a text with no label.
    """
    cells = [row.get(column) for row in table.rows]
    cells = [
        _written_list(table, i, cell.strip(), column) if isinstance(cell, str) and is_list(cell) else cell
        for i, cell in enumerate(cells)
    ]
    _refuse_vectors(table, column, cells)
    delimiter = next((d for d in DELIMITERS if any(isinstance(cell, str) and d in cell for cell in cells)), None)
    names, sets = table.classes.get(column), []
    for i, cell in enumerate(cells):
        parts: list[Any] | None
        if not isinstance(cell, list) and is_missing(cell) and cell != "":
            parts = None
        elif isinstance(cell, str):
            parts = [part.strip() for part in cell.split(delimiter)] if delimiter else [cell.strip()]
            parts = [part for part in parts or [] if not is_missing(part)]
        elif cell is None or isinstance(cell, list):
            parts = cell
        else:
            raise table.error(i, f"column '{column}' holds {_kind(cell)}, not a list of labels")
        given = None if parts is None else [_one_of_set(table, i, part, column, names) for part in parts]
        sets.append(None if given is None else list(dict.fromkeys(given)))
    return sets


def _refuse_vectors(table: Table, column: str, cells: list[Any]) -> None:
    """Refuse rows of 0 and 1, one for each label: which labels these are is not known."""
    lists = [(i, cell) for i, cell in enumerate(cells) if isinstance(cell, list) and cell]
    sizes = {len(cell) for _, cell in lists}
    flags = all(part in (0, 1) and not isinstance(part, str) for _, cell in lists for part in cell)
    if flags and sizes - {1} and len(sizes) == 1 and any(len(set(cell)) < len(cell) for _, cell in lists):
        raise table.error(
            lists[0][0], f"column '{column}' holds vectors of 0 and 1; write the names of those that are 1"
        )


def _one_of_set(table: Table, i: int, value: Any, column: str, names: list[str] | None) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        if names is None:
            return str(value)
        if 0 <= value < len(names):
            return names[value]
        raise table.error(i, f"label {value} in column '{column}' is none of its {len(names)} classes")
    if not isinstance(value, str) or is_missing(value):
        raise table.error(
            i,
            f"column '{column}' holds {'nothing' if is_missing(value) else _kind(value)} among the labels, not a label",
        )
    return _encodable(table, i, value.strip())


def _value(table: Table, i: int, column: str) -> float | None:
    """A number, or None where it is missing."""
    value = table.rows[i].get(column)
    if is_missing(value):
        return None
    number = as_number(value)
    if number is None:
        shown = f'"{value}"' if isinstance(value, str) else _kind(value)
        raise table.error(i, f"column '{column}' holds {shown}, not a finite number")
    return number


def as_number(value: Any) -> float | None:
    """A cell as a finite number, None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _tags(table: Table, i: int, column: str, words: int) -> list[str] | None:
    value = table.rows[i].get(column)
    if not isinstance(value, list) and is_missing(value):
        return None
    names = table.classes.get(column)
    tags = _sequence(table, i, value, column)
    if len(tags) != words:
        raise table.error(i, f"{words} tokens but {len(tags)} tags")
    return [_tag(table, i, tag, names) for tag in tags]


def _tag(table: Table, i: int, value: Any, names: list[str] | None) -> str:
    if isinstance(value, int) and names is not None and 0 <= value < len(names):
        value = names[value]
    if not isinstance(value, str) or is_missing(value):
        raise table.error(i, f"tag {value!r} is no name of a tag")
    return _encodable(table, i, value)


def _all_or_none(table: Table, values: list[Any], message: str) -> list[Any] | None:
    missing = [i for i, value in enumerate(values) if value is None]
    if len(missing) == len(values):
        return None
    if missing:
        raise table.error(missing[0], message)
    return values


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "nothing" if value is None else f"a {type(value).__name__}")
