import numpy as np
import pytest
from scipy.stats import spearmanr

from edgekd.data.split import Split
from edgekd.errors import DataError
from edgekd.proof.retained import retained
from edgekd.settings.task import TextRegression
from edgekd.tasks.text_regression import TextRegressionTask

TASK = TextRegressionTask(TextRegression(), ["value"])


def test_targets_and_answers(tokenizer):
    split = Split("train", ["jazz", "paris"], values=[0.5, 2.0])
    encodings = TASK.encode(tokenizer, split, 8)
    targets = TASK.target_rows(split, encodings)
    assert targets.tolist() == [[0.5], [2.0]]
    assert TASK.answers(TASK.decide(targets), encodings) == TASK.gold(split) == [0.5, 2.0]


def test_spearman_equals_scipy_ties_and_draws_included():
    rng = np.random.default_rng(0)
    true = np.round(rng.normal(size=50), 1)
    given = np.round(true + rng.normal(size=50), 1)
    counts = TASK.counts(true.tolist(), given.tolist())
    assert TASK.score(counts) == pytest.approx(spearmanr(true, given).statistic)
    times = np.bincount(rng.integers(0, 50, 50), minlength=50)
    drawn = np.repeat(true, times), np.repeat(given, times)
    assert TASK.score(counts, times) == pytest.approx(spearmanr(*drawn).statistic)


def test_order_alone_counts():
    assert TASK.metric([1, 2, 3], [10, 20, 90]) == pytest.approx(1.0)
    assert TASK.metric([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert TASK.metric([1, 2, 3], [5, 5, 5]) == 0.0
    assert TASK.metric([], []) == 0.0


def test_what_is_kept_of_a_correlation_has_an_interval():
    rng = np.random.default_rng(0)
    true = rng.normal(size=400)
    teacher, student = (TASK.counts(true, true + noise * rng.normal(size=400)) for noise in (0.3, 0.8))
    kept = retained(TASK, student, teacher)
    assert kept.value == pytest.approx(kept.student / kept.teacher)
    assert kept.interval[0] < kept.value < kept.interval[1] < 1.0
    assert retained(TASK, teacher, teacher).interval == pytest.approx((1.0, 1.0))


def test_without_values(tokenizer):
    with pytest.raises(DataError, match="test: it has no values"):
        TASK.gold(Split("test", ["jazz"]))
