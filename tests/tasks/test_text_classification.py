import numpy as np
import pytest

from edgekd.data.split import Split
from edgekd.errors import DataError
from edgekd.settings.task import TextClassification
from edgekd.tasks.text_classification import TextClassificationTask

TASK = TextClassificationTask(TextClassification(), ["a", "b", "c"])


def test_targets_and_answers_follow_the_order_of_the_labels(tokenizer):
    split = Split("train", ["jazz", "playing jazz"], labels=["c", "a"])
    encodings = TASK.encode(tokenizer, split, 8)
    assert encodings.lengths.tolist() == [3, 5]
    targets = TASK.target_rows(split, encodings)
    assert targets.tolist() == [2, 0]
    assert targets.dtype == np.int64
    assert TASK.answers(targets, encodings) == TASK.gold(split) == ["c", "a"]


def test_pairs_are_encoded_together(tokenizer):
    split = Split("train", ["jazz"], pairs=["in paris"], labels=["a"])
    assert TASK.encode(tokenizer, split, None).token_type_ids.tolist() == [0, 0, 0, 1, 1, 1]


def test_accuracy_from_counts():
    counts = TASK.counts(["a", "b", "c", "a"], ["a", "c", "c", "a"])
    assert counts.tolist() == [[1, 1], [0, 1], [1, 1], [1, 1]]
    assert TASK.score(counts) == 0.75
    assert TASK.score(counts, np.array([0, 2, 1, 1])) == 0.5
    assert TASK.metric(["a", "b"], ["b", "a"]) == 0.0
    assert TASK.metric([], []) == 0.0


def test_what_is_not_known_is_an_error(tokenizer):
    unlabelled = Split("test", ["jazz"])
    encodings = TASK.encode(tokenizer, unlabelled, 8)
    with pytest.raises(DataError, match="test: it has no labels"):
        TASK.target_rows(unlabelled, encodings)
    with pytest.raises(DataError, match='test: label "d" is none of the task\'s 3 labels'):
        TASK.target_rows(Split("test", ["jazz"], labels=["d"]), encodings)
