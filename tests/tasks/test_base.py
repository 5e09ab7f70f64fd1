import pytest

from edgekd.errors import DataError
from edgekd.tasks.base import align_labels


def test_labels_are_found_by_name_and_the_teacher_may_know_more():
    assert align_labels(["c", "a", "b"], ["a", "b"]) == (1, 2)


def test_a_label_the_teacher_lacks_is_named():
    with pytest.raises(DataError, match=r"teacher lacks: x, y, z and 1 more \(the teacher has.*: b, c\)"):
        align_labels(["a", "b", "c"], ["a", "x", "y", "z", "w"])


def test_names_without_meaning_match_numbers_only():
    nameless = [f"LABEL_{i}" for i in (1, 0, *range(2, 11))]
    numbers = [str(i) for i in range(11)]
    assert align_labels(nameless, numbers) == (1, 0, *range(2, 11))
    assert align_labels(["LABEL_0", "LABEL_1"], ["LABEL_1", "LABEL_0"]) == (1, 0)
    for labels in (["bad", "good"], ["0", "1", "2"]):
        with pytest.raises(DataError, match=r"have no names .* id2label"):
            align_labels(["LABEL_0", "LABEL_1"], labels)


def test_a_teacher_with_one_name_twice_is_an_error():
    with pytest.raises(DataError, match="two labels of one name"):
        align_labels(["a", "a"], ["a"])
