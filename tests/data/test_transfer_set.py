import pytest

from edgekd.data.split import Split, TaskData
from edgekd.data.transfer_set import choose_generic, target_texts
from edgekd.errors import DataError, UsageError
from edgekd.settings.select import GenericText
from edgekd.settings.task import TextClassification, TokenClassification
from edgekd.settings.transfer import Transfer


def data(**splits):
    made = {
        "train": Split("train", ["a", "b"], labels=["x", "y"]),
        "validation": Split("validation", ["v"], labels=["x"]),
        "test": Split("test", ["t"], labels=["y"]),
        "unlabeled": Split("unlabeled", ["u", "b", "t", "v", "u", "w"]),
    }
    return TaskData(TextClassification(), ("x", "y"), **(made | splits))


def test_labelled_first_no_repeats_and_nothing_from_validation_or_test():
    made = target_texts(data(), Transfer(), 0)
    assert made.split.texts == ["a", "b", "u", "w"]
    assert made.split.labels is None
    assert made.labelled.labels == ["x", "y"]
    assert made.notes == (
        "2 unlabelled texts left out: equal or near-equal to one in validation or test",
        "2 unlabelled texts left out: equal or near-equal to another",
    )
    assert made.counts == {"labelled": 2, "unlabelled": 2}


def test_training_texts_that_are_judged_on_teach_nobody():
    train = Split("train", ["a", "t", "b", "v"], labels=["x", "y", "y", "x"])
    made = target_texts(data(train=train), Transfer(), 0)
    assert made.split.texts == ["a", "b", "u", "w"]
    assert made.labelled.labels == ["x", "y"]
    assert made.notes[0] == "2 training texts left out: equal to one in validation or test"
    alone = target_texts(data(train=Split("train", ["t"], labels=["y"])), Transfer(), 0)
    assert alone.labelled is None


def test_limit_is_seeded_and_keeps_labelled_texts_first():
    many = data(unlabeled=Split("unlabeled", [f"u{i}" for i in range(50)]))
    made = target_texts(many, Transfer(max_texts=12), 0)
    assert made.split.texts[:2] == ["a", "b"]
    assert len(made.split) == 12
    assert made.split.texts == target_texts(many, Transfer(max_texts=12), 0).split.texts
    assert made.split.texts != target_texts(many, Transfer(max_texts=12), 1).split.texts
    assert "40 of 52 texts left out" in made.notes[-1]


def test_limit_below_the_labelled_texts_cuts_their_labels_with_them():
    made = target_texts(data(), Transfer(max_texts=1), 0)
    assert len(made.split) == len(made.labelled) == 1


@pytest.mark.parametrize(
    ("spec", "texts"), [({"use_unlabeled": False}, ["a", "b"]), ({"use_labelled": False}, ["u", "b", "w"])]
)
def test_parts_can_be_left_out(spec, texts):
    assert target_texts(data(), Transfer(**spec), 0).split.texts == texts


def test_nothing_to_learn_from():
    with pytest.raises(DataError, match="no text to learn from"):
        target_texts(data(train=None, unlabeled=None), Transfer(), 0)


LONG = "please turn on the big lamp in the living room"


@pytest.mark.parametrize(("near_equal", "kept"), [(0.8, 1), (None, 3)])
def test_near_equal_texts_are_left_out_unless_only_equal_ones_are_to_be(near_equal, kept):
    again = Split("unlabeled", [LONG, LONG + " x", "  " + LONG.upper(), LONG + "s", "something else entirely"])
    held = Split("test", ["something else entirely!"], labels=["y"])
    made = target_texts(data(unlabeled=again, test=held), Transfer(near_equal=near_equal), 0)
    assert made.counts["unlabelled"] == kept
    assert LONG in made.split.texts


def test_generic_words_are_split_for_token_tasks():
    words = TaskData(
        TokenClassification(), ("O", "B-x"), Split("train", ["a b"], words=[["a", "b"]], tags=[["O", "B-x"]])
    )
    made = target_texts(words, Transfer(), 0).with_generic(["Don't stop, please."], ["note"], words.word_split)
    assert made.split.words[-1] == ["Don't", "stop", ",", "please", "."]
    assert made.split.texts[-1] == "Don't stop , please ."
    assert made.notes == ("generic: note",)
    assert made.counts["generic"] == 1


def test_generic_texts_are_refused_for_pairs_and_without_a_teacher(tmp_path):
    (tmp_path / "pool.txt").write_text("one\ntwo\n")
    pairs = data(train=Split("train", ["a"], ["b"], labels=["x"]), unlabeled=None)
    generic = GenericText(path=str(tmp_path / "pool.txt"))
    with pytest.raises(UsageError, match="no pairs"):
        choose_generic(generic, target_texts(pairs, Transfer(), 0), pairs, 0.8, None)
    with pytest.raises(UsageError, match="give --teacher"):
        choose_generic(generic, target_texts(data(), Transfer(), 0), data(), 0.8, None)
