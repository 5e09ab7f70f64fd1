"""Percentiles of latency samples, their intervals, and the verdict on a budget. Imports only numpy.

Samples of one process follow each other and are autocorrelated: n of them say less than n independent ones.
`round_bootstrap_interval` therefore works on blocks of whole rounds, and returns the hull of two intervals,
neither of which supposes a distribution:

- Order statistics with an effective sample size. The design effect is the variance of the blocks' exceedance
  rates over that of independent samples; the effective size is also cut by (z / t)^2 for the few blocks it
  was estimated from (Korn and Graubard, "Confidence intervals for proportions with small expected number of
  positive counts estimated from survey data", Survey Methodology 24, 1998); the ranks follow from the
  binomial law (Woodruff, "Confidence intervals for medians and other position measures", JASA 47, 1952).
- The bootstrap that draws blocks with replacement. Alone it covers too seldom: it can never draw a percentile
  above the largest sample seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Outcome = Literal["met", "missed", "inconclusive"]
Floats = NDArray[np.float64]

BLOCKS = 10
"""Blocks of an interval: enough degrees of freedom for t, and long enough to outlast the autocorrelation."""

DISTURBED_RATIO = 1.15
"""A reference kernel this much slower than when the machine is quiet marks its round as disturbed."""

WAITED_SHARE = 0.10
"""A process kept off the CPU for this share of the reference kernel's time is disturbed, however steadily."""


def percentile(samples: NDArray[Any], q: float) -> float:
    """Smallest sample with at least q percent of all samples at or below it: never an interpolation.

    Args:
        samples: (n,) durations, n >= 1.
        q: Percent, 0 < q < 100.

    Raises:
        ValueError: There are no samples, or q is out of range.
    """
    _check(len(samples), q)
    return float(np.percentile(samples, q, method="inverted_cdf"))


def split_confidence(confidence: float, looks: int) -> float:
    """Confidence of one look so that all `looks` together keep `confidence` (Bonferroni)."""
    return 1.0 - (1.0 - confidence) / looks


def judge(interval: tuple[float, float], budget: float) -> Outcome:
    """`met` only if the upper end is within the budget, `missed` only if the lower end is above it."""
    lower, upper = interval
    if upper <= budget:
        return "met"
    return "missed" if lower > budget else "inconclusive"


def quiet_rounds(
    reference_ms: Sequence[float],
    waited: Sequence[float] | None = None,
) -> NDArray[np.bool_]:
    """Tell quiet rounds from disturbed ones by a fixed kernel timed around each.

    Disturbed: the kernel took over `DISTURBED_RATIO` times its 10th percentile over all rounds (a load that
    comes and goes), or its process waited for the CPU over `WAITED_SHARE` of the time (a load that stays).

    Args:
        reference_ms: (rounds,) the kernel's duration, in any unit.
        waited: (rounds,) share of that time the process was ready but not running.

    Returns:
        (rounds,) True where quiet.
    """
    times = np.asarray(reference_ms, dtype=np.float64)
    if times.size == 0:
        return np.zeros(0, dtype=np.bool_)
    quiet: NDArray[np.bool_] = times <= DISTURBED_RATIO * percentile(times, 10.0)
    if waited is not None:
        quiet &= np.asarray(waited, dtype=np.float64) <= WAITED_SHARE
    return quiet


def round_bootstrap_interval(
    rounds: Sequence[Floats], q: float, confidence: float, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Distribution-free interval for a percentile of autocorrelated samples: see the module's text.

    Args:
        rounds: Samples of each round, neighbours in the list being neighbours in time, or in one process.
        q: Percent, 0 < q < 100.
        confidence: Of this interval alone, such as 0.95; see `split_confidence`.
        resamples: Draws of the bootstrap; 0 leaves it out.
        seed: Of the bootstrap.

    Returns:
        Lower and upper end; 0 and infinity where the samples are too few to bound them.

    Raises:
        ValueError: There are no samples, or q is out of range.
    """
    blocks = _blocks(rounds)
    lower, upper = order_statistic_interval(blocks, q, confidence)
    if resamples and len(blocks) > 1:
        drawn = _bootstrap(blocks, q, resamples, seed)
        lower = min(lower, percentile(drawn, 50.0 * (1.0 - confidence)))
        upper = max(upper, percentile(drawn, 50.0 * (1.0 + confidence)))
    return lower, upper


def order_statistic_interval(blocks: Sequence[Floats], q: float, confidence: float) -> tuple[float, float]:
    """Interval between two order statistics, for the effective number of samples in `blocks`.

    Args:
        blocks: Samples of each block, taken as independent of each other.
        q: Percent, 0 < q < 100.
        confidence: Such as 0.95.

    Returns:
        Lower and upper end; 0 and infinity where the samples cannot bound.
    """
    samples = np.sort(np.concatenate(list(blocks))) if blocks else np.zeros(0)
    n = len(samples)
    _check(n, q)
    tail = (1.0 - confidence) / 2.0
    effective = effective_size(blocks, q, confidence)
    # P(Bin(effective, q) <= k) for k = 0 .. effective
    cumulative = _binomial_cumulative(effective, q / 100.0)
    low = int(np.searchsorted(cumulative, tail, side="right"))
    high = int(np.searchsorted(-(1.0 - cumulative), -tail, side="left")) + 1
    # An effective sample stands for n / effective samples: take the outer ones.
    lower = float(samples[math.floor((low - 1) * n / effective)]) if low >= 1 else 0.0
    upper = float(samples[math.ceil(high * n / effective) - 1]) if high <= effective else math.inf
    return lower, upper


def effective_size(blocks: Sequence[Floats], q: float, confidence: float) -> int:
    """Number of independent samples that would say as much about percentile q (Korn-Graubard).

    Args:
        blocks: Samples of each block.
        q: Percent.
        confidence: Of the interval wanted: few blocks cost more at a high confidence.

    Returns:
        Between 1 and the number of samples.
    """
    sizes = np.array([len(block) for block in blocks], dtype=np.float64)
    n, groups = float(sizes.sum()), len(blocks)
    if groups < 2:
        return 1
    point = percentile(np.concatenate(list(blocks)), q)
    above = np.array([np.count_nonzero(block > point) for block in blocks], dtype=np.float64)
    rate = above.sum() / n
    # Ratio estimator's variance over clusters of unequal size (Cochran, Sampling Techniques, 6.13).
    variance = groups / (groups - 1) * float(np.square(above - rate * sizes).sum()) / n**2
    independent = rate * (1.0 - rate) / n
    effect = max(1.0, variance / independent) if independent > 0 else 1.0
    side = (1.0 + confidence) / 2.0
    shrink = (NormalDist().inv_cdf(side) / _student_quantile(side, groups - 1)) ** 2
    return max(1, math.floor(n / effect * shrink))


def _blocks(rounds: Sequence[Floats]) -> list[Floats]:
    """Join neighbouring rounds to at most `BLOCKS` blocks of about as many rounds each."""
    kept = [np.asarray(samples, dtype=np.float64) for samples in rounds if len(samples)]
    count = min(BLOCKS, len(kept))
    edges = [round(i * len(kept) / count) for i in range(count + 1)] if count else []
    return [np.concatenate(kept[a:b]) for a, b in pairwise(edges)]


def _bootstrap(blocks: Sequence[Floats], q: float, resamples: int, seed: int) -> Floats:
    """(resamples,) percentile q of blocks drawn with replacement, by bisection over the sorted samples."""
    groups, samples = len(blocks), np.concatenate(list(blocks))
    order = np.argsort(samples, kind="stable")
    owner = np.repeat(np.arange(groups), [len(block) for block in blocks])[order]
    samples = samples[order]
    # counts[i, g]: samples of block g among the i + 1 smallest
    counts = np.cumsum(owner[:, None] == np.arange(groups), axis=0)
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(groups, np.full(groups, 1.0 / groups), size=resamples)
    need = q / 100.0 * (weights @ counts[-1])
    low, high = np.zeros(resamples, dtype=np.intp), np.full(resamples, len(samples) - 1, dtype=np.intp)
    while np.any(low < high):
        middle = (low + high) // 2
        enough = (weights * counts[middle]).sum(axis=1) >= need
        high, low = np.where(enough, middle, high), np.where(enough, low, middle + 1)
    drawn: Floats = samples[low]
    return drawn


def _binomial_cumulative(n: int, p: float) -> Floats:
    """(n + 1,) P(Bin(n, p) <= k)."""
    logs = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))
    k = np.arange(n + 1)
    mass = np.exp(logs[n] - logs[k] - logs[n - k] + k * math.log(p) + (n - k) * math.log1p(-p))
    cumulative: Floats = np.minimum(np.cumsum(mass), 1.0)
    return cumulative


@cache
def _student_quantile(p: float, freedom: int) -> float:
    """Quantile p > 0.5 of Student's t; with t = sqrt(f) tan(a) the density of a is cos(a)^(f - 1), scaled."""
    angles = np.linspace(0.0, math.pi / 2.0, 20001)
    density = np.cos(angles) ** (freedom - 1)
    area = np.concatenate(([0.0], np.cumsum(density[1:] + density[:-1])))
    angle = float(np.interp(2.0 * p - 1.0, area / area[-1], angles))
    return math.sqrt(freedom) * math.tan(angle)


def _check(n: int, q: float) -> None:
    if n < 1:
        raise ValueError("a percentile needs at least one sample")
    if not 0.0 < q < 100.0:
        raise ValueError(f"a percentile is between 0 and 100, got {q}")
