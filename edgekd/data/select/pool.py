"""A pool of generic text, read file by file as a stream: memory does not grow with it."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from edgekd.data.convert import read_column
from edgekd.data.files import EXTENSIONS, READERS, csv_rows, json_object, read_table, suffix_of
from edgekd.data.table import Row, Table
from edgekd.errors import DataError, require
from edgekd.settings.columns import Columns

CHUNK = 8192
Numbered = Iterator[tuple[int, Row]]


class Chunk(NamedTuple):
    """Texts that follow each other in one source."""

    source: str
    texts: list[str]


class Pool:
    """A file, or all files of a folder and its folders in the order of their names. Each iteration reads anew.

    Args:
        path: A file, or a folder; files of other kinds in it are left out.
        columns: Names the text column, if it is not a usual one.
        chunk: Texts a chunk, at most.

    Raises:
        DataError: There is nothing to read, or while reading a row is wrong: the message names the file and the row.
    """

    def __init__(self, path: str | Path, columns: Columns | None = None, chunk: int = CHUNK) -> None:
        self.root = Path(path).expanduser()
        self.files = _files(self.root)
        self._columns = columns or Columns()
        self._chunk = chunk

    def __iter__(self) -> Iterator[Chunk]:
        for file in self.files:
            source = file.name if file == self.root else file.relative_to(self.root).as_posix()
            yield from (Chunk(source, texts) for texts in _file_texts(file, self._columns, self._chunk))


def _files(root: Path) -> list[Path]:
    if root.is_file():
        if suffix_of(root) not in READERS:
            raise DataError(f"{root}: unknown extension '{root.suffix}'; known are {EXTENSIONS}")
        return [root]
    if not root.is_dir():
        raise DataError(f"{root}: no such file or folder")
    found = sorted(file for file in root.rglob("*") if file.is_file() and not _hidden(file.relative_to(root)))
    files = [file for file in found if suffix_of(file) in READERS]
    if not files:
        names = ", ".join(file.name for file in found[:5]) or "nothing"
        raise DataError(f"{root}: no file with {EXTENSIONS} (found {names})")
    return files


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _file_texts(file: Path, columns: Columns, chunk: int) -> Iterator[list[str]]:
    if file.stat().st_size == 0:
        raise DataError(f"{file}: empty file")
    rows = ((number, row) for number, row in _STREAMS[suffix_of(file)](file, columns) if not _blank(row, columns))
    part = list(islice(rows, chunk))
    if not part:
        raise DataError(f"{file}: no rows")
    while part:
        yield read_column(Table(str(file), [row for _, row in part], [number for number, _ in part]), "text", columns)
        part = list(islice(rows, chunk))


def _blank(row: Row, columns: Columns) -> bool:
    """Whether a row has a text that is empty: in a pool of millions nobody mends these by hand."""
    found = columns.find("text", row)
    return found is not None and (row[found] is None or (isinstance(row[found], str) and not row[found].strip()))


def _lines(file: Path) -> Iterator[str]:
    with gzip.open(file) if file.suffix.casefold() == ".gz" else file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{file}, row {number}: not UTF-8; save the file as UTF-8") from error


def _txt(file: Path, columns: Columns) -> Numbered:
    return ((number, {"text": line.rstrip("\r\n")}) for number, line in enumerate(_lines(file), 1) if line.strip())


def _jsonl(file: Path, columns: Columns) -> Numbered:
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            yield number, json_object(line, f"{file}, row {number}")


def _json(file: Path, columns: Columns) -> Numbered:
    """Lines of objects; an array, which has no lines, is read whole."""
    first = next((line for line in _lines(file) if line.strip()), "")
    if not first.lstrip().startswith("["):
        return _jsonl(file, columns)
    table = read_table(file)
    return zip(table.numbers, table.rows, strict=True)


def _csv(file: Path, columns: Columns) -> Numbered:
    return _separated(file, ",", csv.QUOTE_MINIMAL)


def _tsv(file: Path, columns: Columns) -> Numbered:
    """With quotes or without, as `read_table` tells them apart: a stray quote tells the second."""
    try:
        for _ in _separated(file, "\t", csv.QUOTE_MINIMAL):
            pass
    except DataError:
        return _separated(file, "\t", csv.QUOTE_NONE)
    return _separated(file, "\t", csv.QUOTE_MINIMAL)


def _separated(file: Path, delimiter: str, quoting: Any) -> Numbered:
    return csv_rows(file, _lines(file), delimiter, quoting)


def _parquet(file: Path, columns: Columns) -> Numbered:
    """Only the text column is read, where there is one."""
    parquet = require("pyarrow.parquet", "cpu", f"read {file.name}")
    try:
        with parquet.ParquetFile(file) as opened:
            column = columns.find("text", opened.schema_arrow.names)
            batches: Iterable[Any] = opened.iter_batches(CHUNK, columns=None if column is None else [column])
            yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        reason = str(error).splitlines()[0]
        raise DataError(f"{file}: not a readable parquet file: {reason}") from error


_STREAMS: dict[str, Callable[[Path, Columns], Numbered]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".txt": _txt,
}
