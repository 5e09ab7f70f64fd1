"""Tables as people have them, which were once read wrong in silence."""

import json

import pytest

from edgekd.data.read import read_data
from edgekd.errors import DataError
from edgekd.settings.task import MultiLabelClassification

ROWS = [(f"text {i}", ("lights", "music", "weather")[i % 3]) for i in range(60)]


def write(path, rows, sep=",", header="text,label"):
    path.write_text(header.replace(",", sep) + "\n" + "".join(sep.join(row) + "\n" for row in rows))
    return path


def test_stray_quotes_take_no_rows_together(tmp_path):
    rows = list(ROWS)
    rows[4] = ('"turn it on', rows[4][1])
    rows[10] = (rows[10][0], 'music"')
    rows[10] = ('and the lamp"', "music")
    read = read_data(write(tmp_path / "train.tsv", rows, "\t"))
    texts = [text for split in read.splits for text in split.texts]
    assert len(texts) == 60
    assert '"turn it on' in texts


def test_quoted_fields_of_a_table_with_tabs_may_hold_lines(tmp_path):
    rows = [(f'"text {i}\nof two ""lines"""', label) for i, (_, label) in enumerate(ROWS)]
    read = read_data(write(tmp_path / "train.tsv", rows, "\t"))
    assert 'text 1\nof two "lines"' in [text for split in read.splits for text in split.texts]


@pytest.mark.parametrize("task", [None, MultiLabelClassification()])
def test_lists_of_labels_as_pandas_writes_them(tmp_path, task):
    rows = [(f"text {i}", f"\"['{label}', 'x']\"") for i, (_, label) in enumerate(ROWS)]
    read = read_data(write(tmp_path / "train.csv", rows), task=task)
    assert read.task.name == "multi-label-classification"
    assert read.labels == ("lights", "music", "weather", "x")


def test_vectors_of_flags_are_refused(tmp_path):
    rows = [json.dumps({"text": f"text {i}", "label": [int(i % 3 == k) for k in range(4)]}) for i in range(30)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    with pytest.raises(DataError, match="row 1: column 'label' holds vectors of 0 and 1; write the names"):
        read_data(tmp_path)


def test_a_list_as_numpy_prints_it_is_refused(tmp_path):
    rows = [(f"\"['please' 'now' 'x{i}']\"", "\"['O' 'O' 'B-x']\"") for i in range(30)]
    with pytest.raises(DataError, match="row 2: column 'tokens' holds a list without commas, as numpy prints it"):
        read_data(write(tmp_path / "train.csv", rows, header="tokens,tags"))


@pytest.mark.parametrize("nothing", ["NAN", "nan", "NaT", "Null", "<NA>", ""])
def test_what_stands_for_nothing_is_a_missing_label(tmp_path, nothing):
    rows = [*ROWS, ("a text", nothing)]
    with pytest.raises(DataError, match="row 62: no label in column 'label'"):
        read_data(write(tmp_path / "train.csv", rows))
    sets = [(text, f"{label}|{nothing}") for text, label in ROWS]
    read = read_data(write(tmp_path / "train.csv", sets), task=MultiLabelClassification())
    assert read.labels == ("lights", "music", "weather")


@pytest.mark.parametrize("doubtful", ["NA", "N/A", "None"])
def test_what_may_be_a_class_is_said(tmp_path, doubtful):
    rows = ROWS + [(f"other {i}", doubtful) for i in range(20)]
    read = read_data(write(tmp_path / "train.csv", rows))
    assert doubtful in read.labels
    assert any(f'label "{doubtful}" is taken as a class' in note for note in read.notes)


def test_true_and_false_are_two_labels_however_written(tmp_path):
    rows = [json.dumps({"text": f"text {i}", "label": i % 2 == 0}) for i in range(60)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    write(tmp_path / "test.csv", [(f"test {i}", ("false", "TRUE")[i % 2]) for i in range(20)])
    assert read_data(tmp_path).labels == ("False", "True")


def test_shards_of_the_hubs_older_naming(tmp_path):
    write(tmp_path / "train-00000-of-00001-a09b74b3ef9c3b56.csv", ROWS)
    assert read_data(tmp_path).labels == ("lights", "music", "weather")


def test_what_was_not_read_is_named_where_nothing_is_left(tmp_path):
    write(tmp_path / "train_0.csv", ROWS)
    write(tmp_path / "test.csv", ROWS)
    write(tmp_path / "validation.csv", ROWS)
    with pytest.raises(
        DataError, match=r"nothing to learn from \(not read, as not named after a split: train_0\.csv\)"
    ):
        read_data(tmp_path)


def test_another_delimiter_is_told(tmp_path):
    with pytest.raises(DataError, match=r"found text;label\); one column holds them all: save the table with commas"):
        read_data(write(tmp_path / "train.csv", ROWS, ";"))
