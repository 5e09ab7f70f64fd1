import pytest

from edgekd.data.spec import Transfer
from edgekd.data.split import Split, TaskData
from edgekd.data.transfer import build_transfer_set
from edgekd.errors import DataError
from edgekd.tasks.spec import TextClassification


def data(**splits):
    made = {
        "train": Split("train", ["a", "b"], labels=["x", "y"]),
        "validation": Split("validation", ["v"], labels=["x"]),
        "test": Split("test", ["t"], labels=["y"]),
        "unlabeled": Split("unlabeled", ["u", "b", "t", "v", "u", "w"]),
    }
    return TaskData(TextClassification(), ("x", "y"), **(made | splits))


def test_labelled_first_no_repeats_and_nothing_from_validation_or_test():
    made = build_transfer_set(data(), Transfer(), 0)
    assert made.split.texts == ["a", "b", "u", "w"]
    assert made.split.labels is None
    assert made.labelled.labels == ["x", "y"]
    assert made.notes == (
        "2 unlabelled texts left out: they are in validation or test",
        "2 unlabelled texts left out: repeated",
    )


def test_limit_is_seeded_and_keeps_labelled_texts_first():
    many = data(unlabeled=Split("unlabeled", [f"u{i}" for i in range(50)]))
    made = build_transfer_set(many, Transfer(max_texts=12), 0)
    assert made.split.texts[:2] == ["a", "b"]
    assert len(made.split) == 12
    assert made.split.texts == build_transfer_set(many, Transfer(max_texts=12), 0).split.texts
    assert made.split.texts != build_transfer_set(many, Transfer(max_texts=12), 1).split.texts
    assert "40 of 52 texts left out" in made.notes[-1]


def test_limit_below_the_labelled_texts_cuts_their_labels_with_them():
    made = build_transfer_set(data(), Transfer(max_texts=1), 0)
    assert len(made.split) == len(made.labelled) == 1


@pytest.mark.parametrize(
    ("spec", "texts"), [({"use_unlabeled": False}, ["a", "b"]), ({"use_labelled": False}, ["u", "b", "w"])]
)
def test_parts_can_be_left_out(spec, texts):
    assert build_transfer_set(data(), Transfer(**spec), 0).split.texts == texts


def test_nothing_to_learn_from():
    with pytest.raises(DataError, match="no text to learn from"):
        build_transfer_set(data(train=None, unlabeled=None), Transfer(), 0)
