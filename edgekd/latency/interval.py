"""Percentiles of calls on a machine whose speed changes: at its usual speed, with an interval. Imports only numpy.

A shared host is in one of several speeds for seconds or minutes, so calls that follow each other say less than so many
independent ones, and a minute of them may show a fast or a slow minute. The model, in logarithms:

    call = state + noise,    state = b . (product, walk)

(product, walk) are the times of the speed kernel around each round, b its slopes by least squares over the window's
rounds. The machine's usual states come from the speed log. What is known of the states, beyond the window, corrects
what was seen in it, as a control variate does (Hesterberg and Nelson, "Control variates for probability and quantile
estimation", Management Science 44, 1998):

    q(usual calls) = q(window's calls) + mean shift + r (tail shift - mean shift)

where the shifts are those of the state from the window to the log, in its mean and in its own percentile q, and r is
the state's share of the calls' spread: to first order a percentile of a Gaussian sum moves with the spread of one of
its parts by that part's share of the whole. The standard error is of a block bootstrap (Kunsch, "The jackknife and the
bootstrap for general stationary observations", Annals of Statistics 17, 1989) of all of it, log and slopes included,
and of a share of how much the log's own percentile changes between windows: what the kernel does not feel moves with
what it does; processes of one file differ, too. The interval is one standard error to each side; above, a correction
upwards counts as too small by `_DOUBT` of itself, since slow minutes slow a model more than the kernel. The constants
are of recorded traces; see `benchmarks/latency_verdict.py` and docs/latency.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgekd.latency.measure import Measurement
    from edgekd.latency.timer import RoundSample
    from edgekd.settings.target import Clock

Outcome = Literal["met", "missed", "inconclusive"]
Floats = NDArray[np.float64]

_BLOCK_SECONDS = 6.0
"""As long as the states of a shared host stay correlated."""

_RESAMPLES = 200

# Windows of the log whose percentiles are compared, and the share of their spread that the kernel leaves unexplained.
_LOG_WINDOW_SECONDS, _UNEXPLAINED = 20.0, 0.3

# What processes of one file differ by, which three of them cannot tell: no standard error is smaller.
_PROCESSES_DIFFER = 0.01

_DOUBT = 0.7

# In a log of less than two minutes the slowest looks are chance: it tells the usual speed, and no tail of it.
FEWEST_LOOKS = 60

# A kernel explains a model's time up to a power of this; beyond it the slope is noise.
_STEEPEST = 2.0

_RIDGE = 1e-3


@dataclass(frozen=True)
class Estimate:
    """A percentile of the calls.

    Attributes:
        value_ms: On the service clock at the machine's usual speed; on the response clock as it was.
        interval: Of it; 0 and infinity where the rounds cannot bound it.
        observed_ms: As it was.
        slowdown: How many times slower than usual the machine was in these calls.
    """

    value_ms: float
    interval: tuple[float, float]
    observed_ms: float
    slowdown: float = 1.0

    def against(self, budget_ms: float) -> Outcome:
        """`met` if the whole interval is within the budget; `missed` if all of it, and what was seen, is above."""
        lower, upper = self.interval
        if upper <= budget_ms:
            return "met"
        return "missed" if min(lower, self.observed_ms) > budget_ms else "inconclusive"


def percentile(samples: NDArray[Any], q: float) -> float:
    """Smallest sample with at least q percent of all samples at or below it: never an interpolation.

    Args:
        samples: (n,) durations, n >= 1.
        q: Percent, 0 < q < 100.

    Raises:
        ValueError: There are no samples, or q is out of range.
    """
    if len(samples) < 1:
        raise ValueError("a percentile needs at least one sample")
    if not 0.0 < q < 100.0:
        raise ValueError(f"a percentile is between 0 and 100, got {q}")
    return float(np.percentile(samples, q, method="inverted_cdf"))


def calls_of(sample: RoundSample, clock: Clock) -> Floats:
    """(n,) milliseconds of a round's calls; the wall's where there is no clock of the thread's CPU time."""
    return np.asarray(sample.cpu_ms if clock == "service" and sample.cpu_ms else sample.wall_ms, dtype=np.float64)


def estimate(
    rounds: Sequence[RoundSample], q: float, clock: Clock, usual: Floats | None = None, seed: int = 0
) -> Estimate:
    """Percentile q of the calls that these rounds are a window of: see the module's text.

    Args:
        q: Percent, 0 < q < 100.
        clock: Response time is not corrected to the usual speed: it is judged as it is.
        usual: The speed log, (n, 3): time in s, product and walk in ms; None takes the window itself for usual.
    """
    window = _Window(rounds, clock)
    log = window.log if usual is None or len(usual) == 0 else _Log(usual)
    corrected = clock == "service"
    observed, value, slow = window.percentile(q, log, corrected)
    error = window.error(q, log, corrected, seed)
    shift = value - observed
    lower, upper = value - error, value + error + _DOUBT * max(0.0, shift)
    bounds = (math.exp(lower), math.exp(upper)) if math.isfinite(error) else (0.0, math.inf)
    return Estimate(math.exp(value), bounds, math.exp(observed), math.exp(slow))


class _Log:
    """States of the machine in time: (n,) seconds, (n, 2) logarithms of the kernel's times."""

    def __init__(self, looks: Floats) -> None:
        order = np.argsort(looks[:, 0], kind="stable")  # a wall clock may have been set back
        self.at, self.kernel = looks[order, 0], np.log(looks[order, 1:])
        self.block, self.blocks = _blocks(self.at, _BLOCK_SECONDS)

    def spread(self, slopes: Floats, q: float, seconds: float) -> float:
        """How much percentile q of the state changes between windows of `seconds`; 0 where there are too few."""
        window, count = _blocks(self.at, _LOG_WINDOW_SECONDS)
        state = self.kernel @ slopes
        parts = [state[window == i] for i in range(count)]
        found = [float(np.quantile(part, q / 100)) for part in parts if len(part) >= 5]
        if len(found) < 3:
            return 0.0
        return float(np.std(found, ddof=1)) * math.sqrt(_LOG_WINDOW_SECONDS / max(seconds, _LOG_WINDOW_SECONDS))


class _Window:
    """The calls of some rounds with the kernel's times beside them, in logarithms."""

    def __init__(self, rounds: Sequence[RoundSample], clock: Clock) -> None:
        calls = [np.log(calls_of(sample, clock)) for sample in rounds]
        self.owner = np.repeat(np.arange(len(calls)), [len(c) for c in calls])
        self.calls = np.concatenate(calls)
        self.order = np.argsort(self.calls, kind="stable")
        self.medians = np.array([np.median(c) for c in calls])
        at = np.array([sample.at for sample in rounds], dtype=np.float64)
        self.seconds = float(at[-1] - at[0])
        looks = np.column_stack([at, [s.product_ms for s in rounds], [s.walk_ms for s in rounds]])
        self.log = _Log(looks)

    def slopes(self, weights: Floats) -> Floats:
        """(2,) slopes of the rounds' medians on the kernel, weighted, between 0 and `_STEEPEST`."""
        kernel = self.log.kernel - np.average(self.log.kernel, axis=0, weights=weights)
        medians = self.medians - np.average(self.medians, weights=weights)
        return _slopes(kernel, medians, weights, _STEEPEST)

    def percentile(
        self,
        q: float,
        log: _Log,
        corrected: bool,
        weights: Floats | None = None,
        log_weights: Floats | None = None,
    ) -> tuple[float, float, float]:
        """Percentile q as it was and at the usual speed, and how much slower than usual the machine was."""
        own = np.ones(len(self.medians)) if weights is None else weights
        theirs = np.ones(len(log.at)) if log_weights is None else log_weights
        observed = _weighted_quantile(self.calls, own[self.owner], q, self.order)
        slopes = self.slopes(own)
        here, there = self.log.kernel @ slopes, log.kernel @ slopes
        mean = float(np.average(there, weights=theirs) - np.average(here, weights=own))
        if not corrected:
            return observed, observed, -mean
        young = len(log.at) < FEWEST_LOOKS
        tail = mean if young else _weighted_quantile(there, theirs, q) - _weighted_quantile(here, own, q)
        share = min(1.0, float(np.std(here)) / max(float(np.std(self.calls)), 1e-12))
        return observed, observed + mean + share * (tail - mean), -mean

    def error(self, q: float, log: _Log, corrected: bool, seed: int) -> float:
        """Standard error of the percentile's logarithm; infinite for a window of a block or less."""
        if self.log.blocks < 2:
            return math.inf
        generator, values = np.random.default_rng(seed), []
        for _ in range(_RESAMPLES):
            own = _redrawn(self.log, generator)
            theirs = own if log is self.log else _redrawn(log, generator)
            if own.sum() and theirs.sum():
                values.append(self.percentile(q, log, corrected, own, theirs)[1])
        slopes = self.slopes(np.ones(len(self.medians)))
        unexplained = _UNEXPLAINED * log.spread(slopes, q, self.seconds)
        return math.hypot(float(np.std(values, ddof=1)), unexplained, _PROCESSES_DIFFER)


def _slopes(kernel: Floats, times: Floats, weights: Floats, steepest: float) -> Floats:
    """(2,) slopes of centred times (n,) on the centred kernel (n, 2), by weighted least squares, at most `steepest`."""
    weighted = (kernel * weights[:, None]).T
    products = weighted @ kernel
    ridge = max(_RIDGE * float(np.trace(products)), 1e-12) * np.eye(2)
    solved: Floats = np.clip(np.linalg.solve(products + ridge, weighted @ times), 0.0, steepest)
    return solved


def _blocks(at: Floats, seconds: float) -> tuple[NDArray[np.intp], int]:
    """The block of each moment, and how many there are; moments after a long pause begin a new one."""
    number = np.floor((at - at[0]) / seconds).astype(np.intp)
    known, block = np.unique(number, return_inverse=True)
    return block, len(known)


def _redrawn(log: _Log, generator: np.random.Generator) -> Floats:
    """Weights of the moments where blocks are drawn with replacement."""
    drawn = generator.multinomial(log.blocks, np.full(log.blocks, 1.0 / log.blocks))
    return drawn[log.block].astype(np.float64)


def _weighted_quantile(values: Floats, weights: Floats, q: float, order: NDArray[np.intp] | None = None) -> float:
    order = np.argsort(values, kind="stable") if order is None else order
    cumulative = np.cumsum(weights[order])
    place = int(np.searchsorted(cumulative, q / 100.0 * cumulative[-1]))
    return float(values[order[min(place, len(order) - 1)]])


def steady_medians(found: Mapping[str, Measurement], clock: Clock, usual: Floats | None = None) -> dict[str, float]:
    """Medians in ms of jobs that were measured side by side, at one speed of the machine, by the job's name.

    Each round's median is set off by what the kernel beside it says, with slopes common to all jobs; so what was
    measured in another hour may stand beside it.

    Args:
        found: By the job's name.
        clock: Which time.
        usual: The speed log; its median is the speed. None takes the median speed of these rounds.
    """
    kernel = {name: np.log([[r.product_ms, r.walk_ms] for r in m.rounds]) for name, m in found.items()}
    times = {
        name: np.array([float(np.median(np.log(calls_of(r, clock)))) for r in m.rounds]) for name, m in found.items()
    }
    # Within jobs: their levels differ, the machine is the same.
    x = np.concatenate([k - k.mean(axis=0) for k in kernel.values()])
    y = np.concatenate([t - t.mean() for t in times.values()])
    slopes = _slopes(x, y, np.ones(len(y)), 1.0)
    everything = np.concatenate(list(kernel.values()))
    speed = np.median(everything if usual is None or not len(usual) else np.log(usual[:, 1:]), axis=0)
    return {name: math.exp(float(np.median(times[name] - (kernel[name] - speed) @ slopes))) for name in found}


def round_ratio(
    base: Iterable[RoundSample], other: Iterable[RoundSample], clock: Clock, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Median over rounds of other / base, and its interval by the sign test; 0 and infinity with too few rounds.

    Rounds of the two jobs that followed each other met the same state of the machine: their ratio is steadier than
    either latency, and one ratio tells little of the next.
    """
    pairs = zip(base, other, strict=True)
    ratios = np.sort([float(np.median(calls_of(b, clock)) / np.median(calls_of(a, clock))) for a, b in pairs])
    # Outside ranks k and n + 1 - k the median lies with twice the probability of fewer than k heads of n.
    n, tail, rank = len(ratios), 0.0, 0
    while tail + math.comb(n, rank) / 2**n <= (1.0 - confidence) / 2.0:
        tail += math.comb(n, rank) / 2**n
        rank += 1
    low, high = (float(ratios[rank - 1]), float(ratios[n - rank])) if rank else (0.0, math.inf)
    return float(np.median(ratios)), low, high
