"""Texts to answer, of a file or a stream, as they come: nothing is ever whole in memory.

Imports neither pyarrow nor torch, so that it runs where bundles are served.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from edgekd.data.files import csv_rows, json_object, suffix_of
from edgekd.data.table import Row
from edgekd.errors import DataError
from edgekd.runtime.config import BundleConfig
from edgekd.settings.columns import Columns

FORMATS = ("text", "jsonl", "csv", "tsv")
"""Texts one a line, or tables whose columns are named."""

_FORMAT_OF = {".txt": "text", ".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv"}
_PART = 4096
_BYTES = 1 << 16
_BOM = b"\xef\xbb\xbf"

Asked = dict[str, Any]
"""What is asked of a model: "text", with "text_pair" beside it in pair tasks; or "words"."""


def open_texts(
    source: Path | BinaryIO, form: str | None, task: BundleConfig, columns: Columns
) -> Iterator[list[Asked]]:
    """Read what is to be answered, in parts of 4,096 rows; of a stream as many as have come.

    Args:
        source: A file, which may be compressed by gzip, or a stream.
        form: One of `FORMATS`; None goes by the file's name, and of a stream by its first line: a JSON object begins
            JSON Lines, anything else is text.
        task: What the model takes.
        columns: Which columns of a table to read.

    Raises:
        DataError: The file is missing or of an unknown kind, or a row is wrong. Parts before it have been given.
    """
    if not isinstance(source, Path):
        yield from _parts(_Lines(source, "-"), form, task, columns, live=True)
        return
    if not source.is_file():
        raise DataError(f"{source}: {'a folder: name a file in it' if source.is_dir() else 'no such file'}")
    form = form or _FORMAT_OF.get(suffix_of(source))
    if form is None:
        raise DataError(f"{source}: a file of another kind than {', '.join(_FORMAT_OF)}; name it with --format")
    with gzip.open(source) if source.suffix.casefold() == ".gz" else source.open("rb") as stream:
        yield from _parts(_Lines(stream, str(source)), form, task, columns, live=False)


def _parts(lines: _Lines, form: str | None, task: BundleConfig, columns: Columns, live: bool) -> Iterator[list[Asked]]:
    if form is None:
        form = "jsonl" if lines.peek().lstrip().startswith("{") and _is_object(lines.peek()) else "text"
    part: list[Asked] = []
    try:
        for number, row in _rows(lines, form):
            part.append(_asked(row, f"{lines.name}, row {number}", task, columns, is_table=form != "text"))
            # Who writes a text and waits for its answer is not kept waiting for more texts.
            if len(part) == _PART or (live and not lines.waiting):
                yield part
                part = []
    except DataError:
        if part:
            yield part
        raise
    if part:
        yield part


def _rows(lines: _Lines, form: str) -> Iterable[tuple[int, Row]]:
    if form == "text":
        return ((lines.number, {"text": line.rstrip("\r\n")}) for line in lines)
    if form == "jsonl":
        return (
            (lines.number, json_object(line, f"{lines.name}, row {lines.number}")) for line in lines if line.strip()
        )
    tabs = form == "tsv"
    return csv_rows(Path(lines.name), lines, "\t" if tabs else ",", csv.QUOTE_MINIMAL)


def _asked(row: Row, where: str, task: BundleConfig, columns: Columns, is_table: bool) -> Asked:
    if task.pair and not is_table:
        raise DataError(f"{where}: this model takes pairs: give a table with the columns text and text_pair")
    if task.per_word and (words := columns.find("tokens", row)) is not None:
        found = row[words]
        if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
            raise DataError(f"{where}: column '{words}' holds no list of words")
        return {"words": found}
    return {role: _text(row, role, where, columns) for role in ("text", "text_pair")[: 1 + task.pair]}


def _text(row: Row, role: str, where: str, columns: Columns) -> str:
    column = columns.find(role, row)
    if column is None:
        flag = f"--{role.removeprefix('text_')}-column"
        wanted = getattr(columns, role) or f"for the {role.replace('_', ' ')}"
        raise DataError(f"{where}: no column {wanted} (found {', '.join(row)}); name it with {flag}")
    if not isinstance(row[column], str):
        raise DataError(f"{where}: column '{column}' holds {json.dumps(row[column])[:40]}, no text")
    return str(row[column])


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


class _Lines:
    """The lines of a stream, read as they come.

    Attributes:
        number: The line that was given last, counted from 1.
    """

    def __init__(self, stream: BinaryIO | gzip.GzipFile, name: str) -> None:
        self.name, self.number = name, 0
        self._read: Callable[[int], bytes] = stream.read1  # type: ignore[union-attr]
        self._whole: deque[bytes] = deque()
        self._open: list[bytes] = []

    @property
    def waiting(self) -> bool:
        """Whether another line has come."""
        return bool(self._whole)

    def peek(self) -> str:
        """The first line, or "" where there is none."""
        return self._decoded(self._whole[0]) if self._fill() else ""

    def __iter__(self) -> Iterator[str]:
        while self._fill():
            self.number += 1
            yield self._decoded(self._whole.popleft())

    def _fill(self) -> bool:
        """Read until there is a whole line; False at the end."""
        while not self._whole:
            try:
                data = self._read(_BYTES)
            except (OSError, EOFError) as error:
                raise DataError(f"{self.name}: cannot be read: {error}") from error
            if not data:
                self._whole.extend([b"".join(self._open)] if self._open else [])
                self._open = []
                return bool(self._whole)
            *whole, rest = data.split(b"\n")
            for line in whole:
                self._whole.append(b"".join((*self._open, line, b"\n")))
                self._open = []
            if rest:
                self._open.append(rest)
        return True

    def _decoded(self, line: bytes) -> str:
        first = self.number <= 1 and line.startswith(_BOM)
        try:
            return line[len(_BOM) if first else 0 :].decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.name}, row {max(self.number, 1)}: not UTF-8; save it as UTF-8") from error
