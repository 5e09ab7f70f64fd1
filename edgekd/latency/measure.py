"""Measure jobs on a target, alone or side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.errors import UsageError
from edgekd.latency.interval import Floats, calls_of, percentile
from edgekd.latency.timer import Job, LoadReport, RoundSample, Timer

if TYPE_CHECKING:
    from edgekd.latency.targets.base import Target
    from edgekd.settings.target import Clock

PARTS = ("tokenise", "model", "postprocess")


REPORTED_SECONDS = 8.0
"""What is only reported, and decides nothing, is measured for so long."""

# A round's calls take about this long: then the kernel beside them still tells of the same moment.
_ROUND_MS, _FEWEST_CALLS, _MOST_CALLS = 70.0, 3, 40


@dataclass(frozen=True)
class Measurement:
    """All samples of one job, raw: every call counts, whoever disturbed it.

    Attributes:
        job: Name of the job.
        rounds: In the order of time.
        loads: One report a process.
    """

    job: str
    rounds: tuple[RoundSample, ...]
    loads: tuple[LoadReport, ...]

    @property
    def provider(self) -> str:
        """The execution provider that ran."""
        return self.loads[0].provider

    @property
    def load_ms(self) -> float:
        """Median load time over the processes."""
        return float(np.median([load.load_ms for load in self.loads]))

    @property
    def first_call_ms(self) -> float:
        """Median duration of the first call over the processes."""
        return float(np.median([load.first_call_ms for load in self.loads]))

    @property
    def peak_memory_mb(self) -> float:
        """Greatest peak resident memory of a process, all jobs it held together."""
        return max(load.peak_memory_mb for load in self.loads)

    @property
    def calls(self) -> int:
        """Number of calls."""
        return sum(len(round_.wall_ms) for round_ in self.rounds)

    @property
    def waited_share(self) -> float | None:
        """Share of the response time that the thread only waited; None where no clock tells."""
        if not self._has("service"):
            return None
        return max(0.0, 1.0 - float(self.samples("service").sum() / self.samples("response").sum()))

    def samples(self, clock: Clock) -> Floats:
        """(n,) milliseconds of every call; the wall's where the system has no clock of a thread's CPU time."""
        return np.concatenate([calls_of(round_, clock) for round_ in self.rounds])

    def percentile(self, q: float, clock: Clock) -> float:
        """Percentile q of the calls as they were, in ms."""
        return percentile(self.samples(clock), q)

    def part_percentiles(self, q: float) -> dict[str, float]:
        """Percentile q of each part, in ms on the wall, empty where the job has none. They need not add up."""
        parts = [part for round_ in self.rounds for part in round_.parts_ms]
        if not parts:
            return {}
        columns = np.asarray(parts, dtype=np.float64).T
        return {name: percentile(column, q) for name, column in zip(PARTS, columns, strict=True)}

    @property
    def overhead_ms(self) -> float:
        """Median of tokenising and post-processing together, on the wall; 0 for a bare graph."""
        parts = self.part_percentiles(50)
        return parts["tokenise"] + parts["postprocess"] if parts else 0.0

    @property
    def overhead_share(self) -> float:
        """Share of a call that is tokenising and post-processing: read on the wall, it holds on either clock."""
        return self.overhead_ms / self.percentile(50, "response")

    def to_json(self) -> dict[str, Any]:
        """Plain types only; `from_json` is the inverse."""
        return {
            "job": self.job,
            "rounds": [asdict(round_) for round_ in self.rounds],
            "loads": [asdict(load) for load in self.loads],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measurement:
        """The inverse of `to_json`.

        Raises:
            UsageError: A field is missing or unknown.
        """
        try:
            rounds = tuple(_round_from_json(round_) for round_ in data["rounds"])
            return cls(data["job"], rounds, tuple(LoadReport(**load) for load in data["loads"]))
        except (KeyError, TypeError) as error:
            raise UsageError(f"the measurement is not one this version writes: {error}") from error

    def _has(self, clock: Clock) -> bool:
        return clock == "response" or all(round_.cpu_ms for round_ in self.rounds)


def compare(
    jobs: Sequence[Job],
    target: Target,
    *,
    processes: int = 3,
    rounds: int = 10,
    calls: int = 20,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Measurement]:
    """Measure several jobs side by side, in a new order each turn: a load that comes and goes meets them all alike.

    Args:
        processes: Fresh processes; each loads every job.
        rounds: Rounds of each job in each process.
        calls: Calls a round.
        progress: Called with the rounds done and their total.

    Returns:
        A measurement for each job's name.
    """
    total = rounds * processes * len(jobs)
    taken: dict[str, list[RoundSample]] = {job.name: [] for job in jobs}
    shuffle = np.random.default_rng(0)
    with target.timer(jobs, processes) as timer:
        for turn in range(rounds * processes):
            for done, index in enumerate(shuffle.permutation(len(jobs)), start=1 + turn * len(jobs)):
                name = jobs[index].name
                taken[name].append(timer.round(name, calls))
                if progress:
                    progress(done, total)
        return {name: _measurement(name, found, timer) for name, found in taken.items()}


def measure_for(
    job: Job,
    target: Target,
    seconds: float,
    *,
    processes: int = 3,
    progress: Callable[[float], None] | None = None,
) -> Measurement:
    """Measure one job for so many seconds, loading left out."""
    with target.timer([job], processes) as timer:
        series = Series(timer, job.name, processes)
        series.extend(seconds, progress)
        return series.measurement()


class Series:
    """The rounds of one job, as they grow from look to look."""

    def __init__(self, timer: Timer, name: str, processes: int) -> None:
        self.timer, self.name = timer, name
        # The first round of a process loads the job; its calls count like all others.
        self.rounds = [timer.round(name, _FEWEST_CALLS) for _ in range(processes)]
        median = float(np.median(np.concatenate([round_.wall_ms for round_ in self.rounds])))
        self.calls = int(np.clip(round(_ROUND_MS / median), _FEWEST_CALLS, _MOST_CALLS))
        self.began = self.rounds[-1].at

    def extend(self, seconds: float, progress: Callable[[float], None] | None) -> None:
        """Add rounds until so many seconds of measuring have passed since the start; progress is the share of them."""
        while (spent := self.rounds[-1].at - self.began) < seconds:
            if progress:
                progress(spent / seconds)
            self.rounds.append(self.timer.round(self.name, self.calls))

    def measurement(self) -> Measurement:
        """All rounds so far."""
        return _measurement(self.name, self.rounds, self.timer)


def _measurement(name: str, rounds: Iterable[RoundSample], timer: Timer) -> Measurement:
    return Measurement(name, tuple(rounds), timer.load_reports(name))


def _round_from_json(data: dict[str, Any]) -> RoundSample:
    parts = tuple((float(a), float(b), float(c)) for a, b, c in data["parts_ms"])
    return RoundSample(
        **(data | {"wall_ms": tuple(data["wall_ms"]), "cpu_ms": tuple(data["cpu_ms"]), "parts_ms": parts})
    )
