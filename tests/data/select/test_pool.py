import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgekd.data.files import READERS, read_table
from edgekd.data.select.pool import _STREAMS, Pool
from edgekd.errors import DataError
from edgekd.settings.columns import Columns


def write(tmp_path, name, content):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def texts(pool):
    return [text for chunk in pool for text in chunk.texts]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "x"}\n\n{"text": "y\\u2028z", "n": 1}\r\n'),
        ("a.json", '[{"text": "x"},\n {"text": "y"}]'),
        ("a.json", '\ufeff{"text": "x"}\n{"text": "y"}'),
        ("a.csv", '\ufefftext,label\r\n"x, ""y""\nz",a\r\nw,b\r\n'),
        ("a.tsv", 'text\tlabel\n"x\ty"\ta\n'),
        ("a.tsv", 'text\tlabel\n"x" y\ta\n"z\tb\n'),
        ("a.txt", "x\n\n y \nz\r\n"),
        ("a.txt", "\ufeffx"),
    ],
)
def test_a_stream_reads_what_read_table_reads(tmp_path, name, content):
    file = write(tmp_path, name, content)
    for chunk in (1, 100):
        assert texts(Pool(file, chunk=chunk)) == [row["text"] for row in read_table(file).rows]
    assert next(iter(Pool(file))).source == name


def test_every_kind_of_file_can_be_streamed():
    assert _STREAMS.keys() == READERS.keys()


def test_parquet(tmp_path):
    pq.write_table(pa.table({"n": range(9), "Sentence": [f"s{i}" for i in range(9)]}), tmp_path / "a.parquet")
    assert [chunk.texts for chunk in Pool(tmp_path / "a.parquet", chunk=5)] == [
        ["s0", "s1", "s2", "s3", "s4"],
        ["s5", "s6", "s7", "s8"],
    ]


def test_a_folder_is_read_in_the_order_of_names_as_often_as_asked(tmp_path):
    for name, content in {
        "b.txt": "b1\nb2",
        "a/z.csv": "text\na1\n",
        ".cache/x.txt": "hidden",
        "README.md": "# no text of the pool",
    }.items():
        write(tmp_path, name, content)
    pool = Pool(str(tmp_path))
    for _ in range(2):
        assert list(pool) == [("a/z.csv", ["a1"]), ("b.txt", ["b1", "b2"])]


def test_blank_texts_are_passed_over(tmp_path):
    file = write(tmp_path, "a.jsonl", '{"text": "x"}\n{"text": " "}\n{"text": null}\n{"text": "y"}\n')
    assert texts(Pool(file)) == ["x", "y"]


def test_a_named_column(tmp_path):
    file = write(tmp_path, "a.csv", "text,body\nno,yes\n")
    assert texts(Pool(file, Columns(text="body"))) == ["yes"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "empty file"),
        ("a.jsonl", "\n \n", "no rows"),
        ("a.csv", "text,label\n", "no rows"),
        ("a.json", "[]", "no rows"),
        ("a.jsonl", '{"text": "x"}\n{"text": "y"\n', "row 2: broken JSON: .* at column"),
        ("a.jsonl", '{"text": "x"}\n["y"]\n', "row 2: not a JSON object"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "caf\xe9"}\n', "row 2: not UTF-8"),
        ("a.jsonl", '{"text": "x"}\n{"text": 3}\n', "row 2: column 'text' holds a number, not a string"),
        ("a.jsonl", '{"text": "x"}\n{"other": "y"}\n', "row 2: no text in column 'text'"),
        ("a.jsonl", '{"words": "x"}\n', r"no column for the text \(found words\); name it with --text-column"),
        ("a.jsonl", '{"text": "\\ud800"}\n', "row 1: half of a surrogate pair"),
        ("a.csv", "text\nx\ncaf\xe9\n".encode("latin-1"), "row 3: not UTF-8"),
        ("a.csv", "text,label\nx,a\ny\n", "row 3: 1 fields where the header has 2"),
        ("a.csv", 'text,label\nx,a\n"y,b\n', "row 3: broken table"),
        ("a.csv", "text,text\nx,a\n", "row 1: two columns of one name"),
        ("a.tsv", "text\tlabel\nx\n", "row 2: 1 fields where the header has 2"),
        ("a.parquet", "PAR1 not really", "not a readable parquet file"),
        ("a.xlsx", "x", "unknown extension '.xlsx'; known are .jsonl"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path, name, content, message):
    file = write(tmp_path, name, content)
    with pytest.raises(DataError, match=message) as error:
        list(Pool(file))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_place_with_nothing_to_read(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        Pool(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no file with \.jsonl .* \(found nothing\)"):
        Pool(tmp_path)
    write(tmp_path, "notes.md", "x")
    with pytest.raises(DataError, match=r"\(found notes\.md\)"):
        Pool(tmp_path)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "txt"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    line = {"jsonl": json.dumps({"text": "a" * 200}), "csv": "a" * 200, "tsv": "a" * 200, "txt": "a" * 200}[kind]
    head = "text\n" if kind in ("csv", "tsv") else ""
    file = write(tmp_path, f"a.{kind}", head + f"{line}\n" * 6_000)
    tracemalloc.start()
    assert sum(len(chunk.texts) for chunk in Pool(file, chunk=50)) == 6_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < file.stat().st_size / 4
