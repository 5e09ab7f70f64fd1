"""Local files to tables. A broken row is named by its number."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from edgekd.data.table import Row, Table, joined
from edgekd.errors import DataError, require

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
    "unlabeled": ("unlabeled", "unlabelled"),
}
# One of several files of a split, as the hub writes them, or wrote them once, with a fingerprint.
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?")
# Longer than any field: the csv module's own limit is 131,072 characters.
_FIELD = 2**31 - 1


def find_files(folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The files of each split in a folder, and the names of all that is not read.

    Raises:
        DataError: No file is named after a split, two are named after one, a shard is missing, or an extension is
            unknown.
    """
    found: dict[str, list[Path]] = {}
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for file in files:
        shard = _SHARD.fullmatch(_stem(file))
        split = canonical_split(shard.group(1) if shard else _stem(file))
        if split is None or (not file.is_file() and suffix_of(file) not in READERS):
            continue
        if not file.is_file():
            raise DataError(f"{file}: a folder or other thing where a file is expected; move it away")
        if split in found and not (shard and _SHARD.fullmatch(_stem(found[split][0]))):
            raise DataError(f"{folder}: {found[split][0].name} and {file.name} are both {split}; keep one")
        found.setdefault(split, []).append(file)
    if not found:
        names = ", ".join(file.name for file in files[:5]) or "nothing"
        raise DataError(
            f"{folder}: no file named train, validation, test or unlabeled with {EXTENSIONS} (found {names})"
        )
    for shards in found.values():
        _require_whole(folder, shards)
        for file in shards:
            _reader(file)
    read = {file for shards in found.values() for file in shards}
    return found, [file.name for file in files if file not in read]


def _require_whole(folder: Path, shards: list[Path]) -> None:
    """Refuse a split of which a shard is missing, or that is there in two sizes."""
    names = [_SHARD.fullmatch(_stem(file)) for file in shards]
    numbers = [(int(name.group(2)), int(name.group(3))) for name in names if name is not None]
    if not numbers:
        return
    whole = numbers[0][1]
    if [number for number, _ in numbers] != list(range(whole)) or {of for _, of in numbers} != {whole}:
        raise DataError(f"{folder}: of {whole} shards of {shards[0].name} there are {len(shards)}: copy all of them")


def require_no_others(file: Path) -> None:
    """Refuse a shard that is named alone: it is a part of its split."""
    shard = _SHARD.fullmatch(_stem(file))
    if shard and int(shard.group(3)) > 1:
        raise DataError(f"{file}: one of {int(shard.group(3))} shards; name the folder to read them all")


def _stem(file: Path) -> str:
    return (file.with_suffix("") if file.suffix.casefold() == ".gz" else file).stem


def suffix_of(file: Path) -> str:
    """The extension that tells the format: of "a.jsonl.gz" that is .jsonl."""
    return (file.with_suffix("") if file.suffix.casefold() == ".gz" else file).suffix.casefold()


def canonical_split(name: str) -> str | None:
    """The split that a file or a hub split is named after, or None."""
    matches = (split for split, names in SPLIT_NAMES.items() if name.casefold() in names)
    return next(matches, None)


def read_tables(files: list[Path]) -> Table:
    """Read a split: one file, or shards, the rows of one after those of the other.

    Raises:
        DataError: One is missing, empty, broken, not UTF-8 or of an unknown kind.
        UnavailableError: It is a parquet file and pyarrow is not installed.
    """
    return joined([read_table(file) for file in files])


def read_table(file: Path) -> Table:
    """Read one file, which may be compressed by gzip; raises as `read_tables`."""
    reader = _reader(file)
    if not file.is_file():
        raise DataError(f"{file}: {'no file that can be read again' if file.exists() else 'no such file'}")
    if file.stat().st_size == 0:
        raise DataError(f"{file}: empty file")
    return reader(file)


def _reader(file: Path) -> Callable[[Path], Table]:
    reader = READERS.get(suffix_of(file))
    if reader is None:
        raise DataError(f"{file}: unknown extension '{file.suffix}'; known are {EXTENSIONS}")
    return reader


def _read_bytes(file: Path) -> bytes:
    data = file.read_bytes()
    if file.suffix.casefold() != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: not a whole gzip file: {error}") from error


def _read_text(file: Path) -> str:
    data = _read_bytes(file)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}, row {row}: not UTF-8; save the file as UTF-8") from error


def _read_json(file: Path) -> Table:
    text = _read_text(file)
    if text.lstrip().startswith("["):
        return _read_json_array(file, text)
    rows, numbers = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            rows.append(json_object(line, f"{file}, row {number}"))
            numbers.append(number)
    return Table(str(file), rows, numbers)


def _read_json_array(file: Path, text: str) -> Table:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: broken JSON array: {error}") from error
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise DataError(f"{file}, row {number}: not a JSON object")
    return Table(str(file), values, list(range(1, len(values) + 1)))


def json_object(line: str, where: str) -> Row:
    """One line of a JSON Lines file.

    Args:
        line: The line.
        where: File and row, named in errors.

    Raises:
        DataError: It is broken, or no object.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"{where}: broken JSON: {reason}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: not a JSON object with named columns, one a line")
    return value


def _read_csv(file: Path) -> Table:
    return _parse_csv(file, _read_text(file), delimiter=",", quoting=csv.QUOTE_MINIMAL)


def _read_tsv(file: Path) -> Table:
    """Tables with tabs are written with quotes (pandas) or without (GLUE).

    A stray quote tells the second: it breaks the table, or takes lines together that are whole rows by themselves.
    """
    text = _read_text(file)
    if '"' not in text:
        return _parse_csv(file, text, delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        quoted = _parse_csv(file, text, delimiter="\t", quoting=csv.QUOTE_MINIMAL)
    except DataError:
        return _parse_csv(file, text, delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        plain = _parse_csv(file, text, delimiter="\t", quoting=csv.QUOTE_NONE)
    except DataError:
        return quoted
    return quoted if len(plain.rows) == len(quoted.rows) else plain


def _parse_csv(file: Path, text: str, delimiter: str, quoting: Any) -> Table:
    found = list(csv_rows(file, io.StringIO(text, newline=""), delimiter, quoting))
    return Table(str(file), [row for _, row in found], [number for number, _ in found])


def csv_rows(file: Path, lines: Iterable[str], delimiter: str, quoting: Any) -> Iterator[tuple[int, Row]]:
    """The rows of a table with a header, each with the line that it begins on.

    Args:
        lines: Its text, read as it is asked for.
        delimiter: Between fields.
        quoting: One of the csv module's.

    Raises:
        DataError: A row is broken, or has more or fewer fields than the header.
    """
    csv.field_size_limit(_FIELD)
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    header: list[str] | None = None
    for start in _starts(reader):
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{file}, row {start}: broken table: {error}") from error
        if not values:
            continue
        if header is None:
            header = _header(file, values)
            continue
        if len(values) != len(header):
            raise DataError(f"{file}, row {start}: {len(values)} fields where the header has {len(header)}")
        yield start, dict(zip(header, values, strict=True))


def _starts(reader: Any) -> Any:
    """The line on which each record begins (a quoted field may hold line breaks)."""
    return (reader.line_num + 1 for _ in count())


def _header(file: Path, values: list[str]) -> list[str]:
    names = [value.strip() for value in values]
    if len(set(names)) < len(names):
        raise DataError(f"{file}, row 1: two columns of one name in the header: {', '.join(names)}")
    return names


def _read_txt(file: Path) -> Table:
    lines = [line.rstrip("\r") for line in _read_text(file).split("\n")]
    numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
    last = len(lines) if lines[-1] else len(lines) - 1
    blank = last - len(numbers)
    notes = (f"{file.name}: {blank} blank lines left out",) if blank else ()
    return Table(str(file), [{"text": lines[number - 1]} for number in numbers], numbers, notes=notes)


def _read_parquet(file: Path) -> Table:
    parquet = require("pyarrow.parquet", "cpu", f"read {file.name}")
    try:
        table = parquet.read_table(io.BytesIO(_read_bytes(file)))
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        reason = str(error).splitlines()[0]
        raise DataError(f"{file}: not a readable parquet file: {reason}") from error
    rows: list[Row] = table.to_pylist()
    metadata = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    return Table(str(file), rows, list(range(1, len(rows) + 1)), _parquet_classes(metadata))


def _parquet_classes(metadata: bytes) -> dict[str, list[str]]:
    """Class names that the datasets library writes beside a parquet file's columns."""
    features = json.loads(metadata).get("info", {}).get("features", {})
    classes = {}
    for name, feature in features.items():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
            classes[name] = inner["names"]
    return classes


READERS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": _read_json,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".txt": _read_txt,
}
EXTENSIONS = " ".join(READERS) + ", also .gz"
