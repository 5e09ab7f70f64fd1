"""What a bundle keeps for later: evidence for `edgekd validate`, and the kit that proves it elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.latency.timer import Text
from edgekd.pipeline.attempt import Attempt
from edgekd.pipeline.quality import shipped_answers
from edgekd.plan.planner import Planner
from edgekd.proof.evidence import write_evidence
from edgekd.proof.speedup import measure_speedup
from edgekd.proof.texts import replay_texts
from edgekd.records.result import Speedup
from edgekd.remote.verify import keep_reference, make_verify_kit


def keep_evidence(planner: Planner, final: Attempt, work: Path, *, own_texts: bool) -> None:
    """Keep in the bundle what `edgekd validate` compares with later."""
    inputs = planner.inputs
    write_evidence(
        work,
        planner.device.target,
        final.precision,
        planner.texts,
        inputs.profile.workload.batch_size,
        final.measured_ms or final.candidate.best_known_ms,
        planner.progress,
        replay_texts(inputs.transfer.split) if own_texts else (),
    )


def speedup_of(planner: Planner, served: Planner, final: Attempt, work: Path) -> Speedup | None:
    """How many times faster than the unchanged teacher the bundle is; None where it is that, or runs elsewhere."""
    if planner.device.probe is not None or (final.student is None and final.precision == "fp32"):
        return None
    medians = planner.latency.median_ms
    return measure_speedup(
        work, served.texts, planner.core("fp32"), planner.texts, planner.device.target,
        planner.inputs.profile.workload.batch_size, medians.get("fp32", max(medians.values())), planner.progress,
    )  # fmt: skip


def keep_answers(planner: Planner, final: Attempt, work: Path) -> None:
    """Keep in the bundle what a device's answers will be compared with."""
    inputs = planner.inputs
    keep_reference(
        work,
        inputs.task,
        inputs.metric_name,
        inputs.test.gold,
        inputs.test.counts(inputs.task, inputs.test_rows),
        inputs.task.decide(shipped_answers(planner, final)),
        inputs.test.encodings,
    )


def write_kit(planner: Planner, work: Path) -> None:
    """Write the kit that proves the bundle on its device; it holds the user's texts, and they are told so."""
    inputs, test = planner.inputs, planner.inputs.test.split
    texts: Sequence[Text] | Sequence[Sequence[str]] = test.words or test.texts
    if test.pairs is not None:
        texts = list(zip(test.texts, test.pairs, strict=True))
    replay = replay_texts(inputs.transfer.split)
    kit = make_verify_kit(work, inputs.profile, planner.budget_ms, planner.texts, replay, texts)
    planner.progress.say(
        f"{kit.name}: run it on {inputs.profile.target.device}; it holds your test texts, so leave it out where you "
        "deploy the bundle"
    )
