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

from edgekd.latency.interval import Estimate, estimate, round_ratio, steady_medians
from edgekd.latency.measure import Measurement, compare, measure_for
from edgekd.latency.table import VOCABULARY, write_graph
from edgekd.latency.targets.base import Target
from edgekd.latency.timer import BundleJob, GraphJob
from edgekd.progress import Progress
from edgekd.records.plan import Candidate
from edgekd.settings.export import GraphOptions
from edgekd.settings.target import SessionSpec

# A round of one job takes about this long: its calls meet the same state of the machine.
_ROUND_MS, _FEWEST, _MOST = 40.0, 3, 40

_PILOT_ROUNDS, _FINALIST_ROUNDS, _PROOF_SECONDS = 8, 6, 9.0

# Where so few samples were taken that nothing bounds the percentile, it is taken to be this much more.
_UNBOUNDED = 1.25

# Other options than the usual ones are taken if they save this much for sure.
_WORTH = 0.98

BundleOf = Callable[[Candidate, SessionSpec, Path], BundleJob]
"""Writes a candidate with random weights as a whole bundle into a folder."""


@dataclass(frozen=True)
class Bench:
    """Where and how candidates are measured.

    Attributes:
        batch_size: Texts a call.
        length: Tokens a text.
        percentile: The budget's.
        options: Of the graph writer.
        instruction_set: Preset of the INT8 quantiser.
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

    def compare(self, jobs: Sequence[GraphJob], expected_ms: float, rounds: int, title: str) -> dict[str, Measurement]:
        """Measure jobs in turns."""
        calls = int(np.clip(round(_ROUND_MS / max(expected_ms, 1e-3)), _FEWEST, _MOST))
        with self.progress.bar(title, 1) as bar:
            return compare(
                jobs, self.target, processes=1, rounds=rounds, calls=calls,
                progress=lambda done, total: bar.update(done / total),
            )  # fmt: skip

    def medians(self, found: dict[str, Measurement]) -> dict[str, float]:
        """Medians in ms by the job's name, at the machine's usual speed."""
        return steady_medians(found, self.target.clock, self.target.usual_speed())


def pilot(bench: Bench, candidate: Candidate, expected_ms: float) -> tuple[SessionSpec, float]:
    """Measure one candidate under every set of session options that the target offers, and choose.

    Args:
        expected_ms: About how long a call takes.

    Returns:
        The fastest options, and the median in ms of the model alone under them.
    """
    variants = bench.target.session_variants()
    with tempfile.TemporaryDirectory(prefix="edgekd-pilot-") as name:
        base = bench.graph(Path(name), "pilot", candidate, variants[0])
        jobs = [replace(base, name=str(i), session=v.model_dump(mode="json")) for i, v in enumerate(variants)]
        found = bench.compare(jobs, expected_ms, _PILOT_ROUNDS, "plan: tune the session")
    ranked = [(_upper_ratio(bench, found["0"], found[str(i)]), i) for i in range(1, len(variants))]
    # The upper end of the ratio decides: what is only perhaps faster is not worth leaving the usual options.
    best = min((r for r in ranked if r[0] < _WORTH), default=(1.0, 0))[1]
    return variants[best], bench.medians(found)[str(best)]


def _upper_ratio(bench: Bench, base: Measurement, other: Measurement) -> float:
    """Upper end of the ratio other / base; infinite where the rounds cannot tell."""
    return round_ratio(base.rounds, other.rounds, bench.target.clock)[2]


def measure_medians(
    bench: Bench, candidates: Sequence[Candidate], session: SessionSpec, expected_ms: float
) -> list[float]:
    """Measure finalists in turns; their medians in ms, the model alone, at the machine's usual speed."""
    with tempfile.TemporaryDirectory(prefix="edgekd-finalists-") as name:
        jobs = [bench.graph(Path(name), str(i), candidate, session) for i, candidate in enumerate(candidates)]
        found = bench.compare(jobs, expected_ms, _FINALIST_ROUNDS, f"plan: measure {len(jobs)} finalists")
    medians = bench.medians(found)
    return [medians[job.name] for job in jobs]


def prove(bench: Bench, candidate: Candidate, session: SessionSpec) -> Estimate:
    """Measure a whole bundle of this candidate: tokenised, run, answered, in fresh processes."""
    with (
        tempfile.TemporaryDirectory(prefix="edgekd-proof-") as name,
        bench.progress.bar("plan: measure the choice end to end", 1) as bar,
    ):
        job = bench.bundle_of(candidate, session, Path(name))
        found = measure_for(job, bench.target, _PROOF_SECONDS, progress=bar.update)
    return estimate(found.rounds, bench.percentile, bench.target.clock, bench.target.usual_speed())


def cautious_ms(proof: Estimate, headroom: float) -> float:
    """What is held against the budget less headroom, so that the upper end stays within the whole budget.

    The wider the interval, the unsteadier the machine, and the more is left free.
    """
    upper = proof.interval[1] if math.isfinite(proof.interval[1]) else proof.value_ms * _UNBOUNDED
    return max(proof.value_ms, upper * (1.0 - headroom))
