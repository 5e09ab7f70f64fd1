"""The last steps of a plan, on the device itself: session options, the finalists side by side, the chosen one whole.

Latency does not depend on weights, so all of it is known before anything is trained.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekd.graph.spec import GraphOptions
from edgekd.latency.measure import Measurement, compare, lacking_share
from edgekd.latency.ratio import round_ratio
from edgekd.latency.table import VOCABULARY, write_graph
from edgekd.latency.timer import BundleJob, GraphJob
from edgekd.plan.result import Candidate
from edgekd.progress import Progress
from edgekd.targets.base import SessionSpec, Target

# A round of one job takes about this long: its calls meet the same state of the machine.
_ROUND_MS, _FEWEST, _MOST = 40.0, 3, 40

_PILOT_ROUNDS, _FINALIST_ROUNDS = 8, 6
_PROOF_PROCESSES, _PROOF_ROUNDS, _PROOF_CONFIDENCE = 3, 12, 0.9

# Where so few samples are quiet that nothing bounds the percentile, it is taken to be this much more.
_UNBOUNDED = 1.25

# Other options than the usual ones are taken if they save this much for sure.
_WORTH = 0.98

BundleOf = Callable[[Candidate, SessionSpec, Path], BundleJob]
"""Writes a candidate with random weights as a whole bundle into a folder."""


@dataclass(frozen=True)
class Bench:
    """Where and how candidates are measured.

    Attributes:
        target: The device.
        batch_size: Texts a call.
        length: Tokens a text.
        percentile: The budget's.
        options: Of the graph writer.
        instruction_set: Preset of the INT8 quantiser.
        progress: Where progress is shown.
        bundle_of: Makes the whole bundle of the one that is proven.
    """

    target: Target
    batch_size: int
    length: int
    percentile: float
    options: GraphOptions
    instruction_set: str
    progress: Progress
    bundle_of: BundleOf

    def graph(self, folder: Path, name: str, candidate: Candidate, session: SessionSpec) -> GraphJob:
        """Write a candidate's graph with random weights; a job for it under these session options."""
        assert candidate.shape is not None
        path = folder / f"{name}.onnx"
        write_graph(path, candidate.shape, candidate.precision, self.options, self.instruction_set).replace(path)
        ids = min(candidate.shape.vocabulary, VOCABULARY)
        return GraphJob(name, path, self.batch_size, self.length, ids, session=session.model_dump(mode="json"))

    def compare(
        self, jobs: Sequence[GraphJob | BundleJob], expected_ms: float, rounds: int, processes: int, title: str
    ) -> dict[str, Measurement]:
        """Measure jobs in turns."""
        calls = int(np.clip(round(_ROUND_MS / max(expected_ms, 1e-3)), _FEWEST, _MOST))
        with self.progress.bar(title, 1) as bar:
            return compare(
                jobs, self.target, processes=processes, rounds=rounds, calls=calls,
                progress=lambda done, total: bar.update(done / total),
            )  # fmt: skip


@dataclass(frozen=True)
class Proof:
    """The budget's percentile of a whole bundle.

    Attributes:
        value_ms: As measured.
        upper_ms: The upper end of its interval; infinite where the samples cannot bound it.
        disturbed: Share of the rounds asked for that no quiet one was had for.
    """

    value_ms: float
    upper_ms: float
    disturbed: float = 0.0

    def cautious_ms(self, headroom: float) -> float:
        """What is held against the budget less headroom, so that the upper end stays within the whole budget.

        The wider the interval, the unsteadier the machine, and the more is left free.
        """
        upper = self.upper_ms if math.isfinite(self.upper_ms) else self.value_ms * _UNBOUNDED
        return max(self.value_ms, upper * (1.0 - headroom))


@dataclass(frozen=True)
class Pilot:
    """What one candidate near the budget told of all.

    Attributes:
        session: The fastest session options.
        median_ms: Median of the model alone under them.
        tail: The budget's percentile over the median, near the budget.
    """

    session: SessionSpec
    median_ms: float
    tail: float


def pilot(bench: Bench, candidate: Candidate, expected_ms: float) -> Pilot:
    """Measure one candidate under every set of session options that the target offers, and choose.

    Args:
        bench: Where.
        candidate: Near the budget.
        expected_ms: About how long a call takes.
    """
    variants = bench.target.session_variants()
    with tempfile.TemporaryDirectory(prefix="edgekd-pilot-") as name:
        base = bench.graph(Path(name), "pilot", candidate, variants[0])
        jobs = [replace(base, name=str(i), session=v.model_dump(mode="json")) for i, v in enumerate(variants)]
        found = bench.compare(jobs, expected_ms, _PILOT_ROUNDS, 1, "plan: tune the session")
    ranked = [(_saving(found["0"], found[str(i)]), i) for i in range(1, len(variants))]
    # The upper end of the ratio decides: what is only perhaps faster is not worth leaving the usual options.
    best = min((r for r in ranked if r[0][1] < _WORTH), default=((1.0, 1.0), 0))[1]
    chosen = found[str(best)]
    return Pilot(variants[best], chosen.percentile(50), tail_of(list(found.values()), bench.percentile))


def tail_of(found: Sequence[Measurement], percentile: float) -> float:
    """The percentile over the median, pooled over jobs: each sample is divided by its own job's median."""
    relative = np.concatenate([m.samples() / m.percentile(50) for m in found])
    return max(1.0, float(np.percentile(relative, percentile)))


def _saving(base: Measurement, other: Measurement) -> tuple[float, float]:
    """Median over rounds of other / base, and the upper end of its 95% interval; 1 where the rounds cannot tell."""
    ratio = round_ratio(base, other)
    return (1.0, 1.0) if ratio is None else (ratio[0], ratio[2])


def measure_medians(
    bench: Bench, candidates: Sequence[Candidate], session: SessionSpec, expected_ms: float
) -> tuple[list[float], float, float]:
    """Measure the finalists in turns.

    Returns:
        Their medians in ms, the model alone; the tail pooled over them; the share of the
        rounds asked for that no quiet one was had for.
    """
    with tempfile.TemporaryDirectory(prefix="edgekd-finalists-") as name:
        jobs = [bench.graph(Path(name), str(i), candidate, session) for i, candidate in enumerate(candidates)]
        title = f"plan: measure {len(jobs)} finalists"
        found = bench.compare(jobs, expected_ms, _FINALIST_ROUNDS, 1, title)
    taken = [found[job.name] for job in jobs]
    return [m.percentile(50) for m in taken], tail_of(taken, bench.percentile), lacking_share(taken)


def prove(bench: Bench, candidate: Candidate, session: SessionSpec, expected_ms: float) -> Proof:
    """Measure a whole bundle of this candidate: tokenised, run, answered, in fresh processes."""
    with tempfile.TemporaryDirectory(prefix="edgekd-proof-") as name:
        job = bench.bundle_of(candidate, session, Path(name))
        title = "plan: measure the choice end to end"
        found = bench.compare([job], expected_ms, _PROOF_ROUNDS, _PROOF_PROCESSES, title)[job.name]
    upper = found.interval(bench.percentile, _PROOF_CONFIDENCE)[1]
    return Proof(found.percentile(bench.percentile), upper, lacking_share([found]))
