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
        # The plan was right and the interval is wide: its end decides.
        ("inconclusive", 9.5, (9.0, 10.4), 9.5, 1.04),
        # The plan was wrong: how wrong decides.
        ("inconclusive", 9.6, (9.2, 10.1), 8.0, 1.2),
        ("inconclusive", 9.6, (0.0, math.inf), 8.0, 1.2),
    ],
)
def test_how_much_smaller_the_next_choice_must_be(outcome, value, interval, planned, expected):
    assert miss_factor(judged(outcome, value, interval), planned) == pytest.approx(expected)


def test_other_load_is_no_reason_for_a_smaller_model():
    disturbed = judged("inconclusive", 12.0, (9.0, 13.0), quiet=np.arange(10) < 6)
    assert miss_factor(disturbed, 8.0) == 1.0
