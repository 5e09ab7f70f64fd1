import numpy as np
import pytest

from edgekd.data.augment.consistency import consistent, consistent_tags
from edgekd.errors import UsageError


def test_a_text_stays_where_the_teacher_says_the_same_of_its_parent():
    original = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    augmented = np.array([[0.0, 0.1, 9.0], [5.0, 4.0, 0.0], [0.0, 9.0, 1.0]])
    assert consistent(original, augmented, np.array([1, 0, 0])).tolist() == [True, True, False]
    assert consistent(original, augmented, np.array([0, 0, 0])).tolist() == [False, True, False]


def test_a_regression_has_nothing_to_compare():
    with pytest.raises(UsageError, match="regression"):
        consistent(np.ones((2, 1)), np.ones((2, 1)), np.array([0, 1]))


def test_tags_are_compared_at_their_new_places():
    original = [["O", "B-city", "O"], ["O", "O"]]
    augmented = [["O", "B-city", "I-city", "O"], ["B-city", "O"], ["O", "B-city", "B-city", "O"]]
    alignment = [[0, 1, 1, 2], [0, 1], [0, 1, 1, 2]]
    assert consistent_tags(original, augmented, np.array([0, 1, 0]), alignment, "BIO").tolist() == [True, False, False]
