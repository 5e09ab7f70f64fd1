import numpy as np
import pytest
from sklearn.metrics import f1_score

from edgekd.data.split import Split
from edgekd.errors import DataError
from edgekd.settings.task import MultiLabelClassification
from edgekd.tasks.multi_label_classification import MultiLabelClassificationTask

TASK = MultiLabelClassificationTask(MultiLabelClassification(), ["a", "b", "c"])


def test_targets_and_answers(tokenizer):
    split = Split("train", ["jazz", "paris"], label_sets=[["c", "a"], []])
    encodings = TASK.encode(tokenizer, split, 8)
    assert TASK.target_rows(split, encodings).tolist() == [[1, 0, 1], [0, 0, 0]]
    decided = TASK.decide(np.array([[0.1, -0.1, 2.0], [-1.0, -1.0, 0.0]]))
    assert TASK.answers(decided, encodings) == [["a", "c"], []]
    assert np.isnan(TASK.no_targets(2)).all()


def test_the_threshold_decides():
    sure = MultiLabelClassificationTask(MultiLabelClassification(threshold=0.9), ["a"])
    assert sure.decide(np.array([[2.19], [2.2]])).tolist() == [[0], [1]]  # log(9) = 2.197


def test_macro_f1_equals_sklearn_on_any_draw_of_texts():
    rng = np.random.default_rng(0)
    true, given = rng.random((40, 3)) < 0.4, rng.random((40, 3)) < 0.5
    names = [[[TASK.labels[i] for i in np.flatnonzero(row)] for row in rows] for rows in (true, given)]
    counts = TASK.counts(*names)
    assert counts.shape == (40, 9)
    assert TASK.score(counts) == pytest.approx(f1_score(true, given, average="macro"))
    times = np.bincount(rng.integers(0, 40, 40), minlength=40)
    drawn = (np.repeat(rows, times, axis=0) for rows in (true, given))
    assert TASK.score(counts, times) == pytest.approx(f1_score(*drawn, average="macro"))


def test_labels_that_nobody_has_do_not_count():
    assert TASK.metric([["a"], []], [["a"], []]) == 1.0
    assert TASK.metric([["a"], []], [["a"], ["b"]]) == 0.5
    assert TASK.metric([[], []], [[], []]) == 0.0


def test_what_is_not_known_is_an_error(tokenizer):
    with pytest.raises(DataError, match="test: it has no labels"):
        TASK.gold(Split("test", ["jazz"]))
    split = Split("test", ["jazz"], label_sets=[["d"]])
    with pytest.raises(DataError, match='test: label "d" is none of the task\'s 3 labels'):
        TASK.target_rows(split, TASK.encode(tokenizer, split, 8))
