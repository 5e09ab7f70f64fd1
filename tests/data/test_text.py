import pytest

from edgekd.data.text import read_texts
from edgekd.errors import DataError
from edgekd.settings.columns import Columns


def test_all_files_of_a_folder_each_text_once(tmp_path):
    (tmp_path / "b.txt").write_text("two\n\nthree\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one", "label": "x"}\n{"text": "two"}\n')
    (tmp_path / "notes.md").write_text("not text")
    texts, notes = read_texts(tmp_path)
    assert texts == ["one", "two", "three"]
    assert "1 of 4 texts left out: repeated" in notes
    assert any("blank" in note for note in notes)


def test_one_file_and_a_column_by_name(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"said": "hello"}\n')
    assert read_texts(tmp_path / "x.jsonl", Columns(text="said"))[0] == ["hello"]
    with pytest.raises(DataError, match="--text-column"):
        read_texts(tmp_path / "x.jsonl")


@pytest.mark.parametrize(("name", "line"), [("none.txt", "no such file"), ("x.pdf", "unknown extension")])
def test_file_that_cannot_be_read(tmp_path, name, line):
    with pytest.raises(DataError, match=line):
        read_texts(tmp_path / name)


def test_folder_without_text(tmp_path):
    (tmp_path / "x.pdf").write_text("x")
    with pytest.raises(DataError, match="no file with"):
        read_texts(tmp_path)
