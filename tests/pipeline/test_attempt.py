from __future__ import annotations

import math

import pytest

from edgekd.latency.interval import Estimate
from edgekd.latency.judge import Judgement
from edgekd.latency.measure import Measurement
from edgekd.pipeline.attempt import miss_factor


def judged(outcome, value_ms, interval):
    found = Estimate(value_ms, interval, value_ms)
    return Judgement(outcome, 10.0, 95.0, "service", found, "", Measurement("job", (), ()))


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
        # The machine is slower than usual: the budget is not inside the interval, and a smaller model no mend.
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
