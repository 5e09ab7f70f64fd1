import json

import pytest

from edgekd.data.read import read_data
from edgekd.errors import DataError
from edgekd.settings.columns import Columns
from edgekd.settings.task import (
    JointIntentSlots,
    MultiLabelClassification,
    TextClassification,
    TextRegression,
    TokenClassification,
)

from .conftest import jsonl, labelled


def whole(**more):
    return {"train": labelled(20), "validation": labelled(4, start=20), "test": labelled(4, start=24)} | more


def tagged(count, start=0):
    return [{"tokens": ["to", f"w{i}"], "tags": ["O", "B-x"]} for i in range(start, start + count)]


def test_a_whole_folder_is_taken_as_it_is(folder):
    data = read_data(folder(**whole(), **{"unlabeled.txt": "one\ntwo\n", "domains.json": "{}"}))
    assert data.task == TextClassification()
    assert data.labels == ("a", "b")
    assert {split.name: len(split) for split in data.splits} == {
        "train": 20,
        "validation": 4,
        "test": 4,
        "unlabeled": 2,
    }
    assert data.notes == ("not read, as not named after a split: domains.json",)
    assert data.has_gold
    assert data.test.labels == ["a", "b", "a", "b"]


def test_formats_can_be_mixed(folder):
    csv = "text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(10))
    data = read_data(str(folder(**whole(), **{"unlabeled.tsv": "text\nx\n"}) / "train.jsonl"))
    assert len(data.splits) == 3  # a single file is train
    path = folder(**{"train.jsonl": jsonl(labelled(20)), "test.csv": csv, "dev.csv": csv})
    (path / "validation.jsonl").unlink()
    (path / "test.jsonl").unlink()
    assert read_data(path).test.texts[0] == "row 0"


def test_the_task_is_read_off_the_columns(folder):
    tags = ["O", "B-x"] * 50
    rows = [{"tokens": [f"w{i}"], "tags": [tag], "text": f"w{i}", "label": i % 2} for i, tag in enumerate(tags)]
    path = folder(train=rows)
    assert read_data(path).task == TokenClassification()
    assert read_data(path).labels == ("O", "B-x")
    assert read_data(path, columns=Columns(label="label")).task == TextClassification()
    assert read_data(path, task=TextClassification()).train.words is None


def test_a_second_text_makes_pairs_unless_the_task_takes_one(folder):
    rows = [{"premise": f"p{i}", "hypothesis": f"h{i}", "label": i % 2} for i in range(100)]
    path = folder(train=rows)
    assert read_data(path).task == TextClassification(pair=True)
    single = read_data(path, task=TextClassification())
    assert single.train.pairs is None
    assert "column hypothesis is not used: the task takes one text a row" in single.notes
    named = read_data(path, task=TextClassification(), columns=Columns(text_pair="hypothesis"))
    assert named.task.pair


def test_named_columns(folder):
    rows = [{"body": f"b{i}", "kind": "ab"[i % 2]} for i in range(100)]
    data = read_data(folder(train=rows), columns=Columns(text="body", label="kind"))
    assert data.labels == ("a", "b")


def test_missing_splits_are_made_and_said(folder):
    data = read_data(folder(train=labelled(1000)))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [800, 100, 100]
    assert [note.split(":")[0] for note in data.notes] == ["no test given", "no validation given"]
    only = read_data(folder(test=labelled(10, start=5000)))
    assert len(only.test) == 10
    assert len(only.notes) == 1
    assert read_data(folder()).fingerprint == only.fingerprint


def test_without_labels_text_is_held_out_for_agreement(folder):
    data = read_data(folder(**{"unlabeled.txt": "".join(f"text {i}\n" for i in range(100))}))
    assert (data.train, data.labels, data.has_gold) == (None, (), False)
    assert len(data.unlabeled) + len(data.validation) + len(data.test) == 100
    agreement = "no gold labels: quality is agreement with the teacher on held-out text"
    assert data.notes[-1] == agreement
    given = read_data(folder(validation=[{"text": "v"}], test=[{"text": "t"}]))
    assert given.notes == (agreement,)
    assert (len(given.unlabeled), given.test.texts) == (100, ["t"])


def test_a_train_file_without_labels_is_unlabelled_text(folder):
    path = folder(train=[{"text": f"x{i}"} for i in range(50)], unlabeled=[{"text": f"y{i}"} for i in range(50)])
    data = read_data(path)
    assert data.train is None
    assert "train has no labels: its 50 texts count as unlabeled" in data.notes
    gold = read_data(folder(test=labelled(30)))
    assert gold.has_gold
    assert gold.labels == ("a", "b")
    assert len(gold.unlabeled) == 100
    assert len(gold.test) + len(gold.validation) == 30


def test_values_without_a_label_column_tell_a_regression(folder):
    data = read_data(folder(train=[{"text": f"t{i}", "score": i % 9 / 4} for i in range(200)]))
    assert data.task == TextRegression()
    assert data.notes[0] == "column score holds numbers with fractions: read as regression"


def test_unlabelled_text_for_token_tasks(folder):
    path = folder(train=tagged(50), **{"unlabeled.txt": "to Paris!\n"})
    data = read_data(path)
    assert data.unlabeled.words == [["to", "Paris", "!"]]


def test_texts_in_two_splits_are_counted_and_kept(folder):
    data = read_data(folder(**whole(test=labelled(4), unlabeled=[{"text": "text 0"}, {"text": "text 20"}])))
    assert data.notes == (
        "4 of 4 test texts are also in train; test keeps them",
        "1 of 4 validation texts are also in unlabeled; validation keeps them",
        "1 of 4 test texts are also in unlabeled; test keeps them",
    )
    assert len(data.test) == 4


def test_hidden_test_labels_are_left_out(folder):
    data = read_data(folder(**whole(test=[{"text": f"t{i}", "label": ""} for i in range(3)])))
    assert "test left out: all its labels are empty or hidden" in data.notes
    assert data.test.has_gold


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            whole(test=[*labelled(2), {"text": "x", "label": "c"}]),
            r'test\.jsonl, row 3: label "c" does not occur in train',
        ),
        (whole(validation=labelled(1, "z")), r'validation\.jsonl, row 1: label "z" does not occur in train'),
        (whole(train=labelled(20, "a")), r'train\.jsonl: the only label is "a"'),
        (whole(test=[{"text": "x", "id": 1}]), r"test\.jsonl: no column for the label \(found text, id\)"),
        ({"test": labelled(4)}, r"test alone: nothing to learn from"),
        ({"train": labelled(2)}, r"train: 2 texts are too few to make test from"),
        ({"train": []}, r"train\.jsonl: empty file"),
        (whole(**{"train.jsonl": '{"text": "x", "label": "a"}\n{'}), r"train\.jsonl, row 2: broken JSON"),
        (whole(unlabeled=[{"text": ""}]), r"unlabeled\.jsonl, row 1: empty text"),
    ],
)
def test_wrong_data_is_one_clear_line(folder, files, message):
    with pytest.raises(DataError, match=message) as error:
        read_data(folder(**files))
    assert "\n" not in str(error.value)


def test_tags_that_train_lacks_and_tags_that_say_nothing(folder):
    path = folder(train=tagged(20), test=[{"tokens": ["x"], "tags": ["B-y"]}])
    with pytest.raises(DataError, match=r'test\.jsonl, row 1: tag "B-y" does not occur in train'):
        read_data(path)
    with pytest.raises(DataError, match="every tag is O"):
        read_data(folder(train=[{"tokens": ["x"], "tags": ["O"]}] * 9, test=[{"tokens": ["x"], "tags": ["O"]}]))


@pytest.mark.parametrize("source", ["", "  "])
def test_an_empty_source(source):
    with pytest.raises(DataError, match="--data is empty"):
        read_data(source)


def test_a_missing_source(tmp_path):
    for source in (tmp_path / "a" / "b", str(tmp_path / "x.csv"), "data-that-is-not-there", "data/missing.csv"):
        with pytest.raises(DataError, match="no such file or folder"):
            read_data(source)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="found nothing"):
        read_data(tmp_path)


def test_one_list_among_labels_is_an_odd_row(folder):
    odd = {"text": "odd one", "label": ["a", "b"]}
    with pytest.raises(DataError, match=r"train\.jsonl, row 21: column 'label' holds a list where most rows"):
        read_data(folder(**(whole() | {"train": [*labelled(20), odd]})))


def test_lists_of_labels_and_fractions_tell_the_task(folder):
    sets = [{"text": f"t{i}", "labels": [["a"], [], ["b", "a"]][i % 3]} for i in range(60)]
    data = read_data(folder(train=sets))
    assert (data.task, data.labels) == (MultiLabelClassification(), ("a", "b"))
    assert data.notes[0] == "column labels holds lists: read as multi-label classification"
    assert data.test.label_sets is not None


@pytest.mark.parametrize("cast", [float, str])
def test_fractions_are_values(folder, cast):
    path = folder(train=[{"text": f"t{i}", "label": cast(i % 9 / 4)} for i in range(200)])
    data = read_data(path)
    assert (data.task, data.labels) == (TextRegression(), ("value",))
    assert "read as regression" in data.notes[0]
    assert data.train.values is not None
    if cast is str:
        assert read_data(path, task=TextClassification()).task == TextClassification()
    pairs = folder(train=[{"text": f"t{i}", "text_pair": "x", "label": i / 4} for i in range(60)])
    assert read_data(pairs).task == TextRegression(pair=True)


def test_whole_numbers_stay_labels(folder):
    path = folder(train=[{"text": f"t{i}", "label": float(i % 3)} for i in range(60)])
    assert read_data(path).task == TextClassification()
    assert read_data(path, task=TextRegression()).train.values is not None


def test_a_value_that_never_changes(folder):
    with pytest.raises(DataError, match="every value is the same"):
        read_data(folder(train=[{"text": f"t{i}", "label": 1} for i in range(60)]), task=TextRegression())


def both(count, **more):
    return [row | {"label": "ab"[i % 2]} | more for i, row in enumerate(tagged(count))]


def test_joint_labels_are_intents_then_tags(folder):
    path = folder(train=both(120))
    assert read_data(path).task == TokenClassification()  # a label beside tags may be anything
    data = read_data(path, task=JointIntentSlots())
    assert (data.task, data.labels) == (JointIntentSlots(), ("a", "b", "O", "B-x"))
    assert data.test.labels is not None
    assert data.test.tags is not None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (tagged(120), "tags but no label: a joint task needs both; name it with --label-column"),
        ([{k: v for k, v in row.items() if k != "tags"} for row in both(120)], "labels but no tags"),
        ([row | {"label": ("a", "O")[i % 2]} for i, row in enumerate(tagged(120))], '"O" is a label and a tag'),
        (both(120, label="a"), 'the only label is "a"'),
        (both(120, tags=["O", "O"]), "every tag is O"),
    ],
)
def test_wrong_joint_data(folder, rows, message):
    with pytest.raises(DataError, match=message):
        read_data(folder(train=rows), task=JointIntentSlots())


def test_a_joint_split_may_not_have_a_new_intent(folder):
    new = [row | {"label": "c"} for row in both(4)]
    with pytest.raises(DataError, match='row 1: label "c" does not occur in train'):
        read_data(folder(train=both(40), validation=both(4), test=new), task=JointIntentSlots())


def test_nothing_is_silently_unused(tmp_path):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2], "id": i, "source": "x"} for i in range(40)]
    for name, part in (("train", rows[:20]), ("eval", rows[20:30]), ("test", rows[30:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (tmp_path / "notes.md").write_text("x")
    data = read_data(tmp_path)
    assert "not read, as not named after a split: notes.md" in data.notes
    assert "columns not used: id, source" in data.notes
    assert len(data.validation) == 10


def test_whole_numbers_are_the_same_label_in_every_split(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"t{i},{i % 2}.0\n" for i in range(20)))
    (tmp_path / "validation.csv").write_text("text,label\n" + "".join(f"v{i},{i % 2}\n" for i in range(20)))
    (tmp_path / "test.csv").write_text("text,label\n" + "".join(f"w{i},{i % 2}.0\n" for i in range(20)))
    assert read_data(tmp_path).labels == ("0", "1")


def test_a_shard_alone_is_not_a_split(tmp_path):
    file = tmp_path / "train-00000-of-00002.jsonl"
    file.write_text('{"text": "x", "label": "a"}\n')
    with pytest.raises(DataError, match="one of 2 shards; name the folder"):
        read_data(file)
