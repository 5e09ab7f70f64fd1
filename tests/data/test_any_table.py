"""Any table in any format: its rows are read as they were written, or one line says which row is wrong."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd.data.convert import convert
from edgekd.data.files import read_table
from edgekd.errors import DataError
from edgekd.settings.columns import Columns
from edgekd.settings.task import TextClassification

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "latin-1")
NOTHING = ("", "NaN", "nan", "<NA>", "null", "NULL")

texts = st.one_of(
    st.text(max_size=20),
    st.text(alphabet=" ,;\"'\t\n\r\\|#[]{}\ufeff\u2028\x00\u0130é中", max_size=12),
    st.sampled_from(["", " ", "NULL", "nan", "1.0", "true", "=1+1", "\ufeffx", '"', "a\nb", "a\r\nb"]),
)
labels = st.one_of(texts, st.integers(-3, 9), st.booleans(), st.none(), st.floats(width=32), st.just([]), st.just({}))
rows = st.lists(st.fixed_dictionaries({"text": st.one_of(texts, st.none()), "label": labels}), min_size=1, max_size=6)


def separated(content, delimiter):
    """A table as the csv module writes it; lists and objects become text, as with pandas."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, ["text", "label"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(content)
    return stream.getvalue()


def written(folder, content, kind, encoding, compressed):
    """The file, or None where such rows cannot be written so."""
    file = folder / f"train.{kind}"
    if kind == "parquet":
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        try:
            parquet.write_table(pa.Table.from_pylist(content), file)
        except (pa.ArrowException, UnicodeEncodeError, TypeError, ValueError):
            return None
        data = file.read_bytes()
    else:
        lines = {
            "jsonl": lambda: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content),
            "json": lambda: json.dumps(content),
            "csv": lambda: separated(content, ","),
            "tsv": lambda: separated(content, "\t"),
        }
        try:
            data = lines[kind]().encode(encoding)
        except (UnicodeEncodeError, csv.Error):
            return None
    if compressed:
        file = file.with_name(file.name + ".gz")
        data = gzip.compress(data)
    file.write_bytes(data)
    return file


def name_of(value, kind):
    """The label that a cell stands for; None for nothing."""
    if kind in ("csv", "tsv"):
        value = "" if value is None else str(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return None if value.strip() in NOTHING else value.strip()
    if isinstance(value, float) and value.is_integer() and not isinstance(value, bool):
        value = int(value)
    return str(value)


def require_a_clear_line(line, file):
    """The row is named, or why there is none to name."""
    whole = ("no rows", "empty file", "no column", "not UTF-8", "broken JSON array", "not a readable parquet")
    assert file.name in line
    assert "\n" not in line
    assert ", row " in line or any(reason in line for reason in whole), line


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(content=rows, kind=st.sampled_from(FORMATS), encoding=st.sampled_from(ENCODINGS), compressed=st.booleans())
def test_rows_come_back_or_one_is_named(tmp_path_factory, content, kind, encoding, compressed):
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    file = written(folder, content, kind, encoding, compressed)
    if file is None:
        return
    try:
        split, _ = convert(read_table(file), "train", TextClassification(), Columns())
    except DataError as error:
        require_a_clear_line(str(error), file)
        return
    assert split.texts == [row["text"] for row in content]
    expected = [name_of(row["label"], kind) for row in content]
    assert split.labels == (None if set(expected) == {None} else expected)
