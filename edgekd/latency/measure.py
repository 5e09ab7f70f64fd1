"""Measure jobs on a target, and judge one against a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import UsageError
from edgekd.latency import statistics
from edgekd.latency.statistics import Floats, Outcome
from edgekd.latency.timer import Job, LoadReport, RoundSample, Timer

if TYPE_CHECKING:
    from edgekd.targets.base import Target

MAX_DISTURBED = 0.30
"""Above this share of disturbed rounds there is no verdict."""

# A look takes at most so many times the samples it wants, where many are disturbed.
_PATIENCE = 4

COMPARE_PATIENCE = 2
"""A comparison takes at most so many times the rounds it wants."""

PARTS = ("tokenise", "model", "postprocess")


@dataclass(frozen=True)
class Measurement:
    """All samples of one job, raw, and how the machine was while they were taken.

    Attributes:
        job: Name of the job.
        rounds: In the order of time.
        quiet: One flag a round, from the reference kernels.
        loads: One report a process.
        asked: Rounds that were asked for; None: as many as there are.
    """

    job: str
    rounds: tuple[RoundSample, ...]
    quiet: tuple[bool, ...]
    loads: tuple[LoadReport, ...]
    asked: int | None = None

    @property
    def disturbed_share(self) -> float:
        """Share of rounds that are not quiet."""
        return 1.0 - sum(self.quiet) / len(self.quiet)

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

    def samples(self, quiet_only: bool = True) -> Floats:
        """(n,) milliseconds of every call; of all rounds where none is quiet."""
        return np.concatenate([round_.total_ms for round_ in self._kept(quiet_only)])

    def percentile(self, q: float, quiet_only: bool = True) -> float:
        """Percentile q of the calls, in ms."""
        return statistics.percentile(self.samples(quiet_only), q)

    def part_percentiles(self, q: float, quiet_only: bool = True) -> dict[str, float]:
        """Percentile q of each part, in ms, empty where the job has none. They need not add up."""
        parts = [part for round_ in self._kept(quiet_only) for part in round_.parts_ms]
        if not parts:
            return {}
        columns = np.asarray(parts, dtype=np.float64).T
        return {name: statistics.percentile(column, q) for name, column in zip(PARTS, columns, strict=True)}

    def interval(
        self, q: float, confidence: float = 0.95, quiet_only: bool = True, resamples: int = 2000
    ) -> tuple[float, float]:
        """Distribution-free interval of percentile q, in ms; see `statistics.round_bootstrap_interval`.

        The hull of two: neighbours in time (load that drifts) and by process (processes that differ).
        """
        kept = self._kept(quiet_only)
        by_process = sorted(kept, key=lambda round_: round_.process)
        intervals = [
            statistics.round_bootstrap_interval(
                [np.asarray(round_.total_ms) for round_ in order], q, confidence, resamples=resamples
            )
            for order in (kept, by_process)
        ]
        return min(lower for lower, _ in intervals), max(upper for _, upper in intervals)

    def to_json(self) -> dict[str, Any]:
        """Plain types only; `from_json` is the inverse."""
        return {
            "job": self.job,
            "rounds": [asdict(round_) for round_ in self.rounds],
            "quiet": list(self.quiet),
            "loads": [asdict(load) for load in self.loads],
            "asked": self.asked,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measurement:
        """The inverse of `to_json`.

        Raises:
            UsageError: A field is missing or unknown.
        """
        try:
            rounds = tuple(_round_from_json(round_) for round_ in data["rounds"])
            loads = tuple(LoadReport(**load) for load in data["loads"])
            return cls(data["job"], rounds, tuple(map(bool, data["quiet"])), loads, data.get("asked"))
        except (KeyError, TypeError) as error:
            raise UsageError(f"the measurement is not one this version writes: {error}") from error

    def _kept(self, quiet_only: bool) -> list[RoundSample]:
        quiet = [round_ for round_, is_quiet in zip(self.rounds, self.quiet, strict=True) if is_quiet]
        return quiet if quiet_only and quiet else list(self.rounds)

    @cached_property
    def quiet_samples(self) -> int:
        """Number of calls in quiet rounds."""
        return sum(len(r.total_ms) for r, is_quiet in zip(self.rounds, self.quiet, strict=True) if is_quiet)


def lacking_share(measurements: Iterable[Measurement]) -> float:
    """Share of the rounds asked for that no quiet one was had for: a comparison goes on where some are disturbed."""
    return _lacking([(sum(m.quiet), m.asked or len(m.quiet)) for m in measurements])


def _lacking(rounds: Sequence[tuple[int, int]]) -> float:
    """`lacking_share` of the quiet rounds of each job and those asked for."""
    return sum(max(0, asked - quiet) for quiet, asked in rounds) / sum(asked for _, asked in rounds)


def expected_lack(target: Target, rounds: int = 100) -> float:
    """Look at the target's machine for some seconds: what `lacking_share` would be of a comparison made now.

    Args:
        target: Where.
        rounds: Rounds without calls, about twenty milliseconds each.
    """
    with target.timer(()) as timer:
        quiet = _quiet(timer.look(rounds))
    return _lacking([(COMPARE_PATIENCE * int(quiet.sum()), rounds)])


@dataclass(frozen=True)
class Judgement:
    """The verdict on a latency budget.

    Attributes:
        outcome: "met", "missed" or "inconclusive".
        budget_ms: The limit.
        percentile: Of the calls' durations, in percent.
        interval: Of that percentile over quiet rounds in ms, at the confidence of one look; 0 and infinity
            where the samples cannot bound it.
        confidence: Of the whole procedure, all looks together.
        looks: How often the samples were looked at.
        reason: One sentence.
        measurement: Everything measured.
    """

    outcome: Outcome
    budget_ms: float
    percentile: float
    interval: tuple[float, float]
    confidence: float
    looks: int
    reason: str
    measurement: Measurement

    def to_json(self) -> dict[str, Any]:
        """Plain types only; an infinite end is None."""
        ends = [end if math.isfinite(end) else None for end in self.interval]
        return {
            "outcome": self.outcome,
            "budget_ms": self.budget_ms,
            "percentile": self.percentile,
            "value_ms": self.measurement.percentile(self.percentile),
            "value_all_rounds_ms": self.measurement.percentile(self.percentile, quiet_only=False),
            "interval_ms": ends,
            "confidence": self.confidence,
            "looks": self.looks,
            "disturbed_share": self.measurement.disturbed_share,
            "reason": self.reason,
            "measurement": self.measurement.to_json(),
        }


def compare(
    jobs: Sequence[Job],
    target: Target,
    *,
    processes: int = 3,
    rounds: int = 10,
    calls: int = 20,
    patience: int = COMPARE_PATIENCE,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Measurement]:
    """Measure several jobs side by side: a load that comes and goes meets them all alike.

    Until the quiet rounds are as many as asked, less `MAX_DISTURBED`, all jobs are measured again: a bad minute is sat
    out, a bad hour is not. That depends on the reference kernels alone, never on the samples.

    Args:
        jobs: What to measure.
        target: Where.
        processes: Fresh processes; each loads every job.
        rounds: Rounds of each job in each process, on a quiet machine.
        calls: Calls a round.
        patience: At most so many times the rounds asked are taken on a disturbed one.
        progress: Called with the rounds done and their total.

    Returns:
        A measurement for each job's name.
    """
    wanted = rounds * processes
    total = wanted * len(jobs)
    taken: dict[str, list[RoundSample]] = {job.name: [] for job in jobs}
    shuffle = np.random.default_rng(0)
    done = 0
    with target.timer(jobs, processes) as timer:
        for turn in range(patience * wanted):
            if turn >= wanted:
                quiet = _all_quiet(taken).reshape(len(jobs), turn).sum(axis=1)
                if _lacking([(count, wanted) for count in quiet.tolist()]) <= MAX_DISTURBED:
                    break
            for index in shuffle.permutation(len(jobs)):
                name = jobs[index].name
                taken[name].append(timer.round(name, calls))
                done += 1
                if progress:
                    progress(min(done, total), total)
        return _measurements(taken, timer, wanted)


def judge_budget(
    job: Job,
    target: Target,
    budget_ms: float,
    percentile: float = 95.0,
    *,
    confidence: float = 0.95,
    processes: int = 3,
    looks: int = 5,
    calls: int = 20,
    min_samples: int | None = None,
    max_seconds: float = 120.0,
    resamples: int = 2000,
    progress: Callable[[int, int], None] | None = None,
) -> Judgement:
    """Judge a percentile of a job's latency against a budget, looking at most `looks` times.

    Each look doubles the samples. The error is split over the looks: all together they are wrong in at most
    1 - confidence of the cases, even with the truth exactly on the budget. The verdict rests on quiet rounds;
    while over 30% of the rounds are disturbed there is none.

    Args:
        job: What to measure.
        target: Where.
        budget_ms: The limit, above 0.
        percentile: Such as 95 or 99.
        confidence: Of the whole procedure.
        processes: Fresh processes.
        looks: At least 1.
        calls: Calls a round.
        min_samples: Quiet samples before the first look; 200, or 1000 from the 99th percentile.
        max_seconds: No round starts later than this.
        resamples: Draws of the bootstrap.
        progress: Called with the samples taken and the most there can be.

    Raises:
        UsageError: The budget is not a positive number.
    """
    _check_budget(budget_ms)
    first = min_samples or samples_needed(percentile)
    most = first * 2 ** (looks - 1)
    with target.timer([job], processes) as timer:
        series = _Series(timer, job.name, calls, time.monotonic() + max_seconds)
        for look in range(1, looks + 1):
            series.extend(first * 2 ** (look - 1), (lambda n: progress(min(n, most), most)) if progress else None)
            judgement = judge_samples(
                series.measurement(), budget_ms, percentile,
                confidence=confidence, looks=looks, look=look, min_samples=first, resamples=resamples,
            )  # fmt: skip
            if judgement.outcome != "inconclusive" or series.late():
                break
    return judgement


def judge_samples(
    measurement: Measurement,
    budget_ms: float,
    percentile: float = 95.0,
    *,
    confidence: float = 0.95,
    looks: int = 5,
    look: int | None = None,
    min_samples: int | None = None,
    resamples: int = 2000,
) -> Judgement:
    """One look at samples that were taken, here or elsewhere: the verdict of `judge_budget` on them.

    Args:
        measurement: The samples.
        budget_ms: The limit, above 0.
        percentile: Such as 95 or 99.
        confidence: Of the whole procedure.
        looks: That the procedure may take: the error is split over them.
        look: Which one this is; None where the samples were taken elsewhere, and perhaps for another budget.
        min_samples: Quiet samples that a verdict needs; 200, or 1000 from the 99th percentile.
        resamples: Draws of the bootstrap.

    Raises:
        UsageError: The budget is not a positive number.
    """
    _check_budget(budget_ms)
    first = min_samples or samples_needed(percentile)
    interval = measurement.interval(percentile, statistics.split_confidence(confidence, looks), resamples=resamples)
    enough = measurement.quiet_samples >= first and measurement.disturbed_share <= MAX_DISTURBED
    outcome = statistics.judge(interval, budget_ms) if enough else "inconclusive"
    judgement = Judgement(outcome, budget_ms, percentile, interval, confidence, look or looks, "", measurement)
    ended = None if look is None else "time" if look < looks else "the looks"
    return replace(judgement, reason=_reason(judgement, first, ended))


def _check_budget(budget_ms: float) -> None:
    if not (math.isfinite(budget_ms) and budget_ms > 0):
        raise UsageError(f"--latency-ms {budget_ms:g}: a budget is a number above 0")


def samples_needed(percentile: float) -> int:
    """Quiet samples without which there is no verdict on a percentile."""
    return 1000 if percentile >= 99 else 200


@dataclass
class _Series:
    """The rounds of one job, as they grow from look to look."""

    timer: Timer
    name: str
    calls: int
    deadline: float
    rounds: list[RoundSample] = field(default_factory=list)

    def late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.deadline

    def extend(self, wanted: int, progress: Callable[[int], None] | None) -> None:
        """Add rounds until `wanted` quiet samples and few disturbed ones, `_PATIENCE` times as many, or the deadline.

        Whether to go on depends on the reference kernels alone, never on the samples: waiting for a quieter hour
        costs no confidence.
        """
        while True:
            self.rounds.append(self.timer.round(self.name, self.calls))
            sizes = np.array([len(round_.total_ms) for round_ in self.rounds])
            if progress:
                progress(int(sizes.sum()))
            quiet = _quiet(self.rounds)
            enough = int(sizes[quiet].sum()) >= wanted and 1.0 - quiet.mean() <= MAX_DISTURBED
            if enough or sizes.sum() >= _PATIENCE * wanted or self.late():
                return

    def measurement(self) -> Measurement:
        """All rounds so far."""
        return _measurements({self.name: self.rounds}, self.timer)[self.name]


def _quiet(rounds: Sequence[RoundSample]) -> NDArray[np.bool_]:
    core = statistics.quiet_rounds([r.reference_ms for r in rounds], [r.waited for r in rounds])
    caches = statistics.quiet_rounds([r.memory_ms for r in rounds])
    return core & caches


def _all_quiet(taken: dict[str, list[RoundSample]]) -> NDArray[np.bool_]:
    """Classify the rounds of all jobs together, job by job: the reference kernels are the same for all."""
    return _quiet([r for rounds in taken.values() for r in rounds])


def _measurements(
    taken: dict[str, list[RoundSample]], timer: Timer, asked: int | None = None
) -> dict[str, Measurement]:
    flags = iter(_all_quiet(taken).tolist())
    return {
        name: Measurement(name, tuple(rounds), tuple(next(flags) for _ in rounds), timer.load_reports(name), asked)
        for name, rounds in taken.items()
    }


def _reason(judgement: Judgement, first: int, ended: str | None) -> str:
    """Why the verdict is what it is; `ended` is what ran out, None where that is not known."""
    measurement, (lower, upper) = judgement.measurement, judgement.interval
    if judgement.outcome == "met":
        return f"p{judgement.percentile:g} is at most {upper:.4g} ms, within {judgement.budget_ms:g} ms"
    if judgement.outcome == "missed":
        return f"p{judgement.percentile:g} is at least {lower:.4g} ms, above {judgement.budget_ms:g} ms"
    if measurement.disturbed_share > MAX_DISTURBED:
        share = f"{100 * measurement.disturbed_share:.0f}%"
        return f"{share} of the rounds were disturbed by other load: run again on a quieter machine"
    if measurement.quiet_samples < first and ended is None:
        taken = f"only {measurement.quiet_samples} quiet samples were taken"
        return f"{taken}, and p{judgement.percentile:g} needs at least {first}"
    if measurement.quiet_samples < first:
        return f"time ran out at {measurement.quiet_samples} of at least {first} quiet samples"
    between = f"{lower:.4g} and {upper:.4g} ms" if math.isfinite(upper) else f"{lower:.4g} ms and an unknown end"
    budget = f"{judgement.budget_ms:g} ms is" if ended is None else f"{ended} ran out with {judgement.budget_ms:g} ms"
    return f"{budget} between {between}: too close to tell"


def _round_from_json(data: dict[str, Any]) -> RoundSample:
    parts = tuple((float(a), float(b), float(c)) for a, b, c in data["parts_ms"])
    return RoundSample(**(data | {"total_ms": tuple(data["total_ms"]), "parts_ms": parts}))
