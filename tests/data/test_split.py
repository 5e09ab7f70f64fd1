from dataclasses import replace

from edgekd.data.split import Split, TaskData, ordered_labels
from edgekd.settings.task import TextClassification

SPLIT = Split("train", ["x y", "z"], ["p", "q"], [["x", "y"], ["z"]], ["b", "a"], [["O", "B-x"], ["O"]])


def test_take_and_without_labels():
    taken = SPLIT.take([1], "test")
    assert taken == Split("test", ["z"], ["q"], [["z"]], ["a"], [["O"]])
    bare = SPLIT.without_labels("unlabeled")
    assert (bare.name, bare.labels, bare.tags, bare.words) == ("unlabeled", None, None, SPLIT.words)
    assert SPLIT.has_gold
    assert not bare.has_gold
    assert len(SPLIT) == 2
    assert SPLIT.keys() == [("x y", "p"), ("z", "q")]


def test_concat_keeps_only_columns_that_both_have():
    both = SPLIT.concat(replace(SPLIT, name="test", labels=None))
    assert (both.name, both.texts, both.labels) == ("train", ["x y", "z", "x y", "z"], None)
    assert both.pairs == ["p", "q", "p", "q"]


def test_classes():
    assert SPLIT.classes() == {"O", "B-x", "a", "b"}
    assert replace(SPLIT, labels=None).classes() == {"O", "B-x"}
    assert replace(SPLIT, tags=None).classes() == {"a", "b"}
    assert SPLIT.without_labels().classes() == set()


def test_labels_have_a_stable_order():
    assert ordered_labels({"b", "a", "10"}) == ("10", "a", "b")
    assert ordered_labels({"10", "9", "1"}) == ("1", "9", "10")
    assert ordered_labels({"I-b", "B-b", "B-a"}, bio=True) == ("O", "B-a", "B-b", "I-b")


def test_the_fingerprint_follows_content_and_not_notes():
    data = TaskData(TextClassification(), ("a", "b"), train=SPLIT)
    assert data.fingerprint == replace(data, notes=("read twice",)).fingerprint
    others = [
        replace(data, labels=("b", "a")),
        replace(data, train=SPLIT.take([1, 0])),
        replace(data, train=replace(SPLIT, labels=["a", "b"])),
        replace(data, task=TextClassification(pair=True)),
        replace(data, train=None, test=SPLIT),
        replace(data, unlabeled=SPLIT.without_labels()),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 7


def test_gold_is_what_test_has():
    bare = SPLIT.without_labels("test")
    data = TaskData(TextClassification(), (), unlabeled=SPLIT.without_labels("unlabeled"), test=bare)
    assert not data.has_gold
    assert replace(data, test=SPLIT).has_gold
    assert [split.name for split in data.splits] == ["test", "unlabeled"]
