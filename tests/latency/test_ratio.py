import pytest

from edgekd.latency.measure import Measurement
from edgekd.latency.ratio import round_ratio
from edgekd.latency.timer import RoundSample


def measurement(medians, quiet):
    rounds = tuple(RoundSample(0, (ms, ms, ms)) for ms in medians)
    return Measurement("x", rounds, tuple(quiet), ())


def test_each_round_against_its_own():
    paces = [1.0, 2.0, 4.0, 8.0] * 5
    base = measurement([*paces, 1.0], [True] * 20 + [False])
    other = measurement([*(0.5 * pace for pace in paces), 90.0], [True] * 21)
    assert round_ratio(base, other) == (0.5, 0.5, 0.5)


def test_too_few_quiet_rounds():
    base = measurement([1.0, 1.0, 1.0], [True, True, False])
    assert round_ratio(base, base) is None


def test_the_interval_holds_the_middle():
    base = measurement([1.0] * 40, [True] * 40)
    other = measurement([0.8 + 0.01 * (i % 5) for i in range(40)], [True] * 40)
    middle, lower, upper = round_ratio(base, other)
    assert 0.8 <= lower <= middle <= upper <= 0.84
    assert middle == pytest.approx(0.82)
