from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from edgekd.latency import statistics


def test_percentile_is_a_sample_and_never_interpolated():
    assert statistics.percentile(np.arange(1.0, 101.0), 95) == 95.0
    assert statistics.percentile(np.array([3.0, 1.0, 2.0]), 50) == 2.0


@pytest.mark.parametrize(("samples", "q"), [([], 95), ([1.0], 0), ([1.0], 100)])
def test_percentile_refuses_nonsense(samples, q):
    with pytest.raises(ValueError, match="percentile"):
        statistics.percentile(np.array(samples), q)


@pytest.mark.parametrize("freedom", [1, 2, 9, 40])
def test_student_quantile(freedom):
    for p in (0.975, 0.995):
        assert statistics._student_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-3)


def test_binomial_cumulative():
    np.testing.assert_allclose(
        statistics._binomial_cumulative(300, 0.95), stats.binom.cdf(np.arange(301), 300, 0.95), atol=1e-12
    )


def test_order_statistic_ranks_are_the_exact_ones_of_independent_samples(monkeypatch):
    """For n independent samples the ranks are those of every textbook: the binomial's quantiles."""
    monkeypatch.setattr(statistics, "effective_size", lambda *_: 200)
    values = np.random.default_rng(0).permutation(np.arange(1.0, 201.0))
    lower, upper = statistics.order_statistic_interval(np.split(values, 10), 95, 0.95)
    assert stats.binom.cdf(lower - 1, 200, 0.95) <= 0.025 < stats.binom.cdf(lower, 200, 0.95)
    assert stats.binom.sf(upper - 1, 200, 0.95) <= 0.025 < stats.binom.sf(upper - 2, 200, 0.95)


def test_too_few_samples_bound_nothing_from_above():
    rounds = [np.random.default_rng(i).random(10) for i in range(5)]
    lower, upper = statistics.round_bootstrap_interval(rounds, 95, 0.95)
    assert math.isinf(upper)
    assert 0.0 < lower < 1.0
    assert statistics.round_bootstrap_interval([np.array([2.0, 1.0, 3.0])], 99, 0.95) == (1.0, math.inf)
    assert statistics.round_bootstrap_interval([np.array([2.0, 1.0, 3.0])], 50, 0.95) == (0.0, math.inf)


def test_rounds_that_differ_leave_fewer_effective_samples():
    rng = np.random.default_rng(0)
    alike = [rng.standard_normal(100) for _ in range(10)]
    apart = [samples + 3 * i for i, samples in enumerate(alike)]
    assert statistics.effective_size(alike, 95, 0.95) > 500
    assert statistics.effective_size(apart, 95, 0.95) < 100


def test_bootstrap_agrees_with_the_plain_one():
    rng = np.random.default_rng(1)
    blocks = [rng.random(n) for n in (5, 7, 11, 3)]
    drawn = statistics._bootstrap(blocks, 80, 4000, seed=2)
    plain = [
        np.percentile(np.concatenate([blocks[i] for i in rng.integers(4, size=4)]), 80, method="inverted_cdf")
        for _ in range(4000)
    ]
    np.testing.assert_allclose(np.percentile(drawn, [10, 50, 90]), np.percentile(plain, [10, 50, 90]), atol=0.02)


def test_interval_is_repeatable_and_holds_the_percentile():
    rounds = [np.random.default_rng(i).lognormal(size=50) for i in range(40)]
    first = statistics.round_bootstrap_interval(rounds, 95, 0.95)
    assert first == statistics.round_bootstrap_interval(rounds, 95, 0.95)
    assert first[0] < statistics.percentile(np.concatenate(rounds), 95) < first[1]
    wider = statistics.round_bootstrap_interval(rounds, 95, 0.99)
    assert wider[0] <= first[0] < first[1] <= wider[1]


def test_split_confidence():
    assert statistics.split_confidence(0.95, 5) == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [((8, 10), "met"), ((8, 10.1), "inconclusive"), ((10, 12), "inconclusive"), ((10.1, 12), "missed"),
     ((9, math.inf), "inconclusive")],
)  # fmt: skip
def test_judge(interval, outcome):
    assert statistics.judge(interval, 10.0) == outcome


def test_quiet_rounds_by_a_load_that_comes_and_goes():
    assert statistics.quiet_rounds([1.0, 1.02, 1.3, 1.0, 1.14]).tolist() == [True, True, False, True, True]
    assert statistics.quiet_rounds([]).tolist() == []


def test_quiet_rounds_by_a_load_that_stays():
    assert not statistics.quiet_rounds([2.0] * 4, waited=[0.5] * 4).any()
