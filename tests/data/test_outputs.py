"""Outputs of another teacher: what a row may say, what is refused, and what a local teacher makes of them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgekd.data.outputs import data_of, join, lesson, read_outputs
from edgekd.data.read import read_ids
from edgekd.data.split import Split, TaskData
from edgekd.errors import DataError, UsageError
from edgekd.settings.columns import Columns
from edgekd.settings.task import TextClassification, TextRegression

LABELS = ("a", "b", "c", "d")


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_label_probs_and_logits(tmp_path):
    file = write(
        tmp_path / "o.jsonl",
        {"text": "one", "label": "b"},
        {"text": "two", "probs": {"a": 0.6, "c": 0.2}},
        {"text": "three", "logits": {"a": 0.0, "b": np.log(2.0), "c": np.log(3.0), "d": np.log(4.0)}},
        {"text": "four", "probs": {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}, "label": "a"},
    )
    found = read_outputs(file, LABELS)
    assert found.texts == ["one", "two", "three", "four"]
    expected = [[0, 1, 0, 0], [0.6, 0.1, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]]
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert found.answers([0, 1, 2]) == ["b", "a", "d"]
    assert found.places(["three", "five"]).tolist() == [2, -1]


def test_labels_are_read_off_the_file_and_repeated_texts_are_averaged(tmp_path):
    file = write(
        tmp_path / "o.jsonl",
        {"text": "t", "label": "y"},
        {"text": "u", "label": "x"},
        {"text": "t", "probs": {"x": 0.5}},
    )
    found = read_outputs(file)
    assert found.labels == ("x", "y")
    np.testing.assert_allclose(found.probabilities, [[0.25, 0.75], [1, 0]])
    assert "1 of 3" in found.notes[0]


@pytest.mark.parametrize("kind", ["map", "struct"])
def test_parquet_holds_objects_as_maps_or_structs(tmp_path, kind):
    rows = [{"a": 0.9}, {"b": 0.4, "a": 0.2}]
    column = (
        pa.array([list(row.items()) for row in rows], pa.map_(pa.string(), pa.float64()))
        if kind == "map"
        else pa.array(rows)
    )
    pq.write_table(pa.table({"text": ["t", "u"], "probs": column}), tmp_path / "o.parquet")
    found = read_outputs(tmp_path / "o.parquet", LABELS[:3])
    np.testing.assert_allclose(found.probabilities, [[0.9, 0.05, 0.05], [0.2, 0.4, 0.4]], atol=1e-6)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"label": "z"}, 'row 2: label "z" is none of the data\'s 4 (a, b, c, ...)'),
        ({"probs": {"a": 0.5, "z": 0.5}}, 'row 2: label "z" is none'),
        (
            {"probs": {"a": 0.5, "b": 0.1, "c": 0.1, "d": 0.1}},
            "row 2: the probabilities of all 4 labels sum to 0.8, not",
        ),
        ({"probs": {"a": 0.9, "b": 0.3}}, "row 2: the probabilities sum to 1.2, more than one"),
        ({"probs": {"a": 1.1, "b": -0.1}}, 'row 2: the probability of "b" is negative (-0.1)'),
        ({"probs": {"a": "much"}}, "row 2: probs of \"a\" is 'much', not a finite number"),
        ({"probs": {}}, "row 2: probs names no label"),
        ({"probs": [0.5, 0.5]}, "row 2: probs must be an object from label to number"),
        ({"logits": {"a": 1.0}}, 'row 2: logits lack "b"'),
        ({"label": ["a"]}, "row 2: label must be the name of one label"),
        ({}, "row 2: no output: give label, probs or logits"),
    ],
)
def test_wrong_row_is_one_line_with_file_and_row(tmp_path, row, line):
    file = write(tmp_path / "o.jsonl", {"text": "t", "label": "a"}, {"text": "u"} | row)
    with pytest.raises(DataError) as caught:
        read_outputs(file, LABELS)
    assert str(caught.value).startswith(f"{file}, ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ids_are_those_of_the_data(tmp_path):
    write(tmp_path / "train.jsonl", *({"id": i, "text": f"t {i}", "label": "ab"[i % 2]} for i in range(40)))
    ids = read_ids(tmp_path, Columns(), None)
    file = write(tmp_path / "o.jsonl", {"id": 3, "label": "a"}, {"id": "4", "label": "b"})
    assert read_outputs(file, ("a", "b"), lambda: ids).texts == ["t 3", "t 4"]
    write(file, {"id": 99, "label": "a"})
    with pytest.raises(DataError, match='row 1: id "99" is that of no text'):
        read_outputs(file, ("a", "b"), lambda: ids)
    with pytest.raises(DataError, match="rows of id, but no --data"):
        read_outputs(file, ("a", "b"))
    write(tmp_path / "test.jsonl", {"id": 3, "text": "another", "label": "a"})
    with pytest.raises(DataError, match=r'train.jsonl, row 4: id "3" is that of another text'):
        read_ids(tmp_path, Columns(), None)


def gold(name, *texts):
    return Split(name, list(texts), labels=["a" if "a" in text else "b" for text in texts])


def outputs_of(tmp_path, *texts):
    return read_outputs(write(tmp_path / "o.jsonl", *({"text": t, "probs": {"a": 0.3, "b": 0.7}} for t in texts)))


def test_lesson_takes_outputs_then_gold_and_never_a_held_out_text(tmp_path):
    data = TaskData(
        TextClassification(), ("a", "b"), gold("train", "a1", "a2", "shared"), gold("validation", "va", "shared"),
        gold("test", "ta", "tb"), Split("unlabeled", ["u1", "u2", "ta"]),
    )  # fmt: skip
    outputs = outputs_of(tmp_path, "a1", "u1", "ta", "va", "new")
    joined = join(data, outputs)
    assert joined.unlabeled.texts == ["u1", "u2", "ta", "new"]
    assert any("1 of 3 train" in note and "1 of 2 test" in note for note in joined.notes)
    taught, targets = lesson(joined, outputs)
    assert taught.train.texts == ["a1", "a2", "u1", "new"]
    np.testing.assert_allclose(targets, [[0.3, 0.7], [1, 0], [0.3, 0.7], [0.3, 0.7]], atol=1e-6)
    assert taught.train.labels == ["b", "a", "b", "b"]
    assert taught.unlabeled.texts == ["u2"]
    assert taught.validation == data.validation


def test_without_gold_the_covered_validation_texts_judge(tmp_path):
    data = TaskData(
        TextClassification(), (), None, Split("validation", ["v1", "v2"]), Split("test", ["t1"]),
        Split("unlabeled", ["u1", "u2"]),
    )  # fmt: skip
    taught, _ = lesson(data, outputs_of(tmp_path, "u1", "v2"))
    assert (taught.validation.texts, taught.validation.labels) == (["v2"], ["b"])
    with pytest.raises(DataError, match="no validation text has one"):
        lesson(data, outputs_of(tmp_path, "u1"))
    with pytest.raises(DataError, match="none of their texts may be learned from"):
        lesson(data, outputs_of(tmp_path, "v1", "t1"))


def test_outputs_alone_are_split_and_have_no_gold(tmp_path):
    file = write(tmp_path / "o.jsonl", *({"text": f"t {i}", "label": "ab"[i % 2]} for i in range(400)))
    data = data_of(read_outputs(file))
    assert (len(data.validation), len(data.test), len(data.unlabeled)) == (80, 80, 240)
    assert not data.has_gold
    assert data.labels == ()
    assert data.unlabeled.labels is None


def test_other_tasks_are_refused_by_name(tmp_path):
    outputs = outputs_of(tmp_path, "t")
    values = TaskData(TextRegression(), ("value",), test=Split("test", ["t"], values=[1.0]))
    with pytest.raises(UsageError, match="not for text-regression"):
        join(values, outputs)
    pairs = TaskData(TextClassification(pair=True), ("a", "b"), test=Split("test", ["t"], ["u"], labels=["a"]))
    with pytest.raises(UsageError, match="not for text-classification of pairs"):
        join(pairs, outputs)
