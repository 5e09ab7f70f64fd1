import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgekd.data.files import find_files, read_table, read_tables
from edgekd.errors import DataError


def write(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize(
    ("name", "content", "rows", "numbers"),
    [
        ("a.jsonl", '{"text": "x"}\n\n{"text": "y\\u2028z"}\r\n', ["x", "y\u2028z"], [1, 3]),
        ("a.json", '[{"text": "x"},\n {"text": "y"}]', ["x", "y"], [1, 2]),
        ("a.json", '\ufeff{"text": "x"}\n{"text": "y"}', ["x", "y"], [1, 2]),
        ("a.csv", '\ufefftext,label\r\n"x, ""y""\nz",a\r\nw,b\r\n', ['x, "y"\nz', "w"], [2, 4]),
        ("a.tsv", 'text\tlabel\n"x\ty"\ta\n', ["x\ty"], [2]),
        ("a.tsv", 'text\tlabel\n"x" y\ta\n"z\tb\n', ['"x" y', '"z'], [2, 3]),
        ("a.txt", "x\n\n y \nz", ["x", " y ", "z"], [1, 3, 4]),
    ],
)
def test_files_are_read_with_their_row_numbers(tmp_path, name, content, rows, numbers):
    table = read_table(write(tmp_path, name, content))
    assert [row["text"] for row in table.rows] == rows
    assert table.numbers == numbers


def test_a_folder_named_as_a_split_is_not_overlooked(tmp_path):
    write(tmp_path, "test.jsonl", '{"text": "x"}')
    (tmp_path / "train").mkdir()  # no file's name: somebody's own folder
    assert list(find_files(tmp_path)[0]) == ["test"]
    (tmp_path / "train.jsonl").mkdir()
    with pytest.raises(DataError, match=r"train\.jsonl: a folder or other thing"):
        find_files(tmp_path)


def test_blank_lines_of_a_text_file_are_noted(tmp_path):
    assert read_table(write(tmp_path, "a.txt", "x\n\n \ny\n")).notes == ("a.txt: 2 blank lines left out",)
    assert read_table(write(tmp_path, "a.txt", "x\ny\n")).notes == ()


def test_parquet_keeps_class_names(tmp_path):
    features = {
        "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
        "ner_tags": {"feature": {"names": ["O", "B-x"], "_type": "ClassLabel"}, "_type": "List"},
        "text": {"dtype": "string", "_type": "Value"},
    }
    table = pa.table({"text": ["x", "y"], "label": [1, 0], "ner_tags": [[0], [1]]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "a.parquet")
    read = read_table(tmp_path / "a.parquet")
    assert read.rows == [{"text": "x", "label": 1, "ner_tags": [0]}, {"text": "y", "label": 0, "ner_tags": [1]}]
    assert read.classes == {"label": ["no", "yes"], "ner_tags": ["O", "B-x"]}
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "b.parquet")
    assert read_table(tmp_path / "b.parquet").classes == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "empty file"),
        ("a.jsonl", "\n \n", "no rows"),
        ("a.csv", "text,label\n", "no rows"),
        ("a.json", "[]", "no rows"),
        ("a.jsonl", '{"text": "x"}\n{"text": "y"\n', "row 2: broken JSON: .* at column"),
        ("a.jsonl", '{"text": "x"}\n["y"]\n', "row 2: not a JSON object"),
        ("a.json", '[{"text": "x"}, 3]', "row 2: not a JSON object"),
        ("a.json", '[{"text": "x"}', "broken JSON array"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "caf\xe9"}\n', "row 2: not UTF-8"),
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
    with pytest.raises(DataError, match=message) as error:
        read_table(write(tmp_path, name, content))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv: no such file"):
        read_table(tmp_path / "a.csv")


def test_files_are_found_by_the_names_of_splits(tmp_path):
    for name in ("train.csv", "Dev.jsonl", "test.tsv", "unlabelled.txt", "domains.json", ".train.swp"):
        write(tmp_path, name, "x")
    files, others = find_files(tmp_path)
    assert others == ["domains.json"]
    assert {split: file.name for split, (file,) in files.items()} == {
        "train": "train.csv",
        "validation": "Dev.jsonl",
        "test": "test.tsv",
        "unlabeled": "unlabelled.txt",
    }


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"no file named train, .* \(found nothing\)"):
        find_files(tmp_path)
    write(tmp_path, "mine.csv", "x")
    with pytest.raises(DataError, match=r"\(found mine\.csv\)"):
        find_files(tmp_path)
    write(tmp_path, "valid.csv", "x")
    write(tmp_path, "dev.csv", "x")
    with pytest.raises(DataError, match=r"dev\.csv and valid\.csv are both validation"):
        find_files(tmp_path)
    (tmp_path / "dev.csv").unlink()
    write(tmp_path, "train.xlsx", "x")
    with pytest.raises(DataError, match=r"train\.xlsx: unknown extension"):
        find_files(tmp_path)


@pytest.mark.parametrize("name", ["eval.csv", "evaluation.jsonl", "valid.tsv", "val.txt", "development.json"])
def test_other_names_of_validation(tmp_path, name):
    write(tmp_path, name, "x")
    assert list(find_files(tmp_path)[0]) == ["validation"]


def test_a_compressed_file_is_read_as_what_it_holds(tmp_path):
    plain = write(tmp_path, "train.csv", "text,label\nhello,a\n")
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert read_table(tmp_path / "train.csv.gz").rows == read_table(plain).rows
    plain.unlink()
    assert find_files(tmp_path)[0]["train"] == [tmp_path / "train.csv.gz"]
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(b"x" * 999)[:-9])
    with pytest.raises(DataError, match=r"train\.csv\.gz: not a whole gzip file"):
        read_table(tmp_path / "train.csv.gz")


def test_shards_are_one_split_and_a_wrong_row_names_its_own(tmp_path):
    for i in range(2):
        write(tmp_path, f"train-0000{i}-of-00002.jsonl", f'{{"text": "a{i}"}}\n{{"text": "b{i}"}}\n')
    (files, others) = find_files(tmp_path)
    table = read_tables(files["train"])
    assert ([row["text"] for row in table.rows], others) == (["a0", "b0", "a1", "b1"], [])
    assert str(table.error(3, "wrong")).endswith("train-00001-of-00002.jsonl, row 2: wrong")
    assert str(table.error(1, "wrong")).endswith("train-00000-of-00002.jsonl, row 2: wrong")
    (tmp_path / "train-00000-of-00002.jsonl").unlink()
    with pytest.raises(DataError, match="of 2 shards of train-00001-of-00002"):
        find_files(tmp_path)


def test_a_field_of_any_length_is_read(tmp_path):
    long = "word " * 60_000
    assert read_table(write(tmp_path, "a.csv", f"text,label\n{long},x\n")).rows[0]["text"] == long
