"""How much faster one job is than another that was measured in turns with it."""

from __future__ import annotations

import numpy as np

from edgekd.latency.measure import Measurement
from edgekd.latency.statistics import round_bootstrap_interval

_FEWEST_ROUNDS = 3


def round_ratio(base: Measurement, other: Measurement) -> tuple[float, float, float] | None:
    """Median over rounds of other / base, and its 95% interval; None with too few rounds in which both were quiet.

    Rounds of the two jobs that followed each other met the same state of the machine: their ratio is steadier than
    either latency.
    """
    ratios = [
        float(np.median(b.total_ms)) / float(np.median(a.total_ms))
        for a, b, calm, calm_too in zip(base.rounds, other.rounds, base.quiet, other.quiet, strict=True)
        if calm and calm_too
    ]
    if len(ratios) < _FEWEST_ROUNDS:
        return None
    lower, upper = round_bootstrap_interval([np.array([r]) for r in ratios], 50, 0.95)
    return float(np.median(ratios)), lower, upper
