from __future__ import annotations

import math

import numpy as np
import pytest

from edgekd.latency.measure import Judgement, Measurement
from edgekd.latency.timer import RoundSample
from edgekd.pipeline.attempt import miss_factor


def judged(outcome, value_ms, interval, quiet=(True,) * 10):
    rounds = tuple(RoundSample(0, (value_ms,) * 20, (), 1.0, 1.0, 0.0) for _ in quiet)
    measurement = Measurement("job", rounds, tuple(quiet), ())
    return Judgement(outcome, 10.0, 95.0, interval, 0.95, 5, "", measurement)


@pytest.mark.parametrize(
    ("outcome", "value", "interval", "planned", "expected"),
    [
        ("met", 9.0, (8.9, 9.4), 8.0, 1.0),
        ("missed", 12.0, (11.5, 12.5), 8.0, 1.5),
        # The plan was right and the interval is wide: its end, less headroom, decides.
        ("inconclusive", 9.0, (8.8, 10.4), 9.0, 0.9 * 10.4 / 9.0),
        # The plan was wrong: how wrong decides.
        ("inconclusive", 9.9, (9.2, 10.1), 8.0, 9.9 / 8.0),
        # A choice far below the limit that measured near it must not come back either.
        ("inconclusive", 9.5, (9.0, 10.1), 7.5, 9.5 / 7.5),
        # One noisy tail costs no more than this.
        ("inconclusive", 8.4, (8.0, 13.0), 8.4, 1.25),
        ("inconclusive", 8.4, (8.0, math.inf), 8.4, 1.25),
        # Time ran out before there was anything to judge: the budget is not inside the interval.
        ("inconclusive", 7.0, (6.0, 8.0), 6.9, 1.0),
    ],
)
def test_how_much_smaller_the_next_choice_must_be(outcome, value, interval, planned, expected):
    assert miss_factor(judged(outcome, value, interval), planned, 0.1) == pytest.approx(expected)


def test_the_same_choice_cannot_come_back():
    """What was expected, times the factor, is above the limit."""
    for value, upper, planned in ((8.0, 10.01, 7.0), (9.2, 10.5, 9.0), (9.9, 10.2, 8.9)):
        factor = miss_factor(judged("inconclusive", value, (0.9 * value, upper)), planned, 0.1)
        assert planned * factor > 0.9 * 10.0 or factor == 1.25


def test_other_load_is_no_reason_for_a_smaller_model():
    disturbed = judged("inconclusive", 12.0, (9.0, 13.0), quiet=np.arange(10) < 6)
    assert miss_factor(disturbed, 8.0, 0.1) == 1.0


def test_too_few_samples_are_no_reason_either():
    assert miss_factor(judged("inconclusive", 9.5, (9.0, 13.0), quiet=(True,) * 9), 8.0, 0.1) == 1.0
