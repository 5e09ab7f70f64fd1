"""Calibration and label noise, against values worked out by hand."""

import numpy as np
import pytest

from edgekd.data.split import Split
from edgekd.distill.calibration import calibrate, calibration_error, fit_temperature, label_noise, softmax
from edgekd.distill.scoring import Judged
from edgekd.runtime.encodings import Encodings
from edgekd.settings.task import TextClassification, TextRegression
from edgekd.tasks.build import build_task


def two(*confidences):
    """Rows of two classes that say class 0 so surely."""
    return np.array([[c, 1 - c] for c in confidences])


def test_error_is_the_weighted_gap_of_each_bin():
    # Bins of width 0.2: 0.7 and 0.75 lie in (0.6, 0.8], 0.9 in (0.8, 1].
    rows = two(0.7, 0.75, 0.9)
    assert calibration_error(rows, np.array([0, 1, 0]), bins=5) == pytest.approx(
        2 / 3 * abs(1 / 2 - 0.725) + 1 / 3 * abs(1 - 0.9)
    )
    # With 15 bins each row is alone in one.
    assert calibration_error(rows, np.array([0, 1, 0])) == pytest.approx((0.3 + 0.75 + 0.1) / 3)


def test_an_edge_belongs_to_the_bin_below():
    # 0.8 lies in (0.6, 0.8] with 0.7: their gaps, +0.2 and -0.7, cancel; in two bins they would not.
    assert calibration_error(two(0.8, 0.7), np.array([0, 1]), bins=5) == pytest.approx(0.25)


def test_right_and_sure_has_no_error():
    assert calibration_error(two(1.0, 1.0), np.array([0, 0])) == 0.0


@pytest.mark.parametrize(("gap", "right", "rows"), [(4.0, 3, 4), (0.5, 9, 10), (2.0, 19, 20)])
def test_temperature_makes_the_confidence_the_accuracy(gap, right, rows):
    # Rows with one gap between two logits: the best temperature has sigmoid(gap / T) = the share that is right.
    logits = np.tile([gap, 0.0], (rows, 1))
    targets = np.array([0] * right + [1] * (rows - right))
    expected = gap / np.log(right / (rows - right))
    assert fit_temperature(logits, targets) == pytest.approx(expected, rel=1e-3)
    assert calibration_error(softmax(logits / expected), targets) == pytest.approx(0.0, abs=1e-9)


def test_rows_that_are_all_right_have_the_coldest_temperature():
    assert fit_temperature(np.array([[3.0, 0.0], [0.0, 3.0]]), np.array([0, 1])) == pytest.approx(0.05, rel=1e-3)


def test_noise_is_the_wrong_share_of_what_is_said_worst_first():
    said, right = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 1, 2, 2])
    found = label_noise(said, right, ("a", "b", "c", "never"))
    assert [(n.label, n.said, n.wrong) for n in found] == [("b", 2, 0.5), ("a", 4, 0.25), ("c", 1, 0.0)]


def judged(agreement=False):
    split = Split("validation", ["t", "u"], labels=["x", "y"])
    tokens = Encodings(np.zeros(2, dtype=np.int32), np.array([0, 1, 2]))
    return Judged(split, tokens, ["x", "y"], agreement)


def test_a_teacher_on_gold_labels_and_nothing_without_them():
    task = build_task(TextClassification(), ("y", "x"))
    rows = np.array([[0.0, 2.0], [0.0, 1.0]], dtype=np.float32)
    found = calibrate(task, judged(), rows)
    assert found.rows == 2
    assert [(n.label, n.wrong) for n in found.noise] == [("x", 0.5)]
    sure = 1 / (1 + np.exp([-2.0, -1.0]))
    assert found.error == pytest.approx((1 - sure[0] + sure[1]) / 2)
    assert calibrate(task, judged(agreement=True), rows) is None
    assert calibrate(build_task(TextRegression(), ("value",)), judged(), rows[:, :1]) is None
