"""A finished bundle, checked again on any host: whole, same answers, no slower? Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from edgekd import __version__
from edgekd.bundle import checksums
from edgekd.data.generic import generic_split
from edgekd.errors import UsageError
from edgekd.latency.clocks import no_thread_clock
from edgekd.latency.machine import Machine, fingerprint, read_machine, usable_cpus
from edgekd.latency.speed_log import SpeedLog
from edgekd.latency.targets.base import Target
from edgekd.latency.targets.build import build_target
from edgekd.latency.timer import Text
from edgekd.profiles import load_request
from edgekd.progress import Progress
from edgekd.proof.criteria import latency_criterion, memory_criterion
from edgekd.proof.evidence import Evidence, measure_ratio, read_evidence, regression, replay
from edgekd.proof.latency import judge_latency
from edgekd.proof.texts import fixed_texts
from edgekd.reading import inside
from edgekd.records.base import Record
from edgekd.records.result import EXIT_CODES, Criterion, Outcome, overall, speed_words
from edgekd.records.verdict import Verdict, read_verdict
from edgekd.runtime.config import BundleConfig, read_config
from edgekd.runtime.tokenise import load_tokenizer
from edgekd.settings.budget import Budget
from edgekd.settings.profile import Profile
from edgekd.settings.target import Clock

Part = Literal["answers", "latency"]

MAX_REGRESSION = 1.15
"""On another machine: how many times slower beside its anchor a bundle may be, unless asked otherwise."""

# What may be asked in the place of a bundle's budget, and what to say where `Budget` refuses it.
_BUDGET = {
    "latency_ms": "a budget is a number above 0",
    "percentile": "give one in percent, from 1 to below 100: 95, not 0.95",
}

# What decides answers or speed, of all that a verdict says of its machine.
_MACHINE = (
    "cpu_model", "architecture", "instruction_sets", "cpu_quota", "affinity", "governor", "gpu", "gpu_driver",
)  # fmt: skip
_ELSEWHERE = "run the bundle's verify-kit.zip there, then `edgekd validate BUNDLE --measured result.json`"
_LIBRARIES = ("edgekd", "python", "numpy", "onnxruntime", "onnxruntime-gpu", "tokenizers")


class Change(Record):
    """Something that was otherwise when the bundle was made; `None` where there was, or is, none."""

    what: str
    then: str | None
    now: str | None


class Validation(Record):
    """What `edgekd validate` found; what `--json` prints.

    Attributes:
        schema_version: 1.
        outcome: The worst of the criteria's.
        exit_code: What the command returns.
        judged: How latency was judged: "absolute" against the budget, "ratio" against the anchor, or not at all.
        criteria: What was checked, and what was found.
        changes: What was otherwise when the bundle was made.
        notes: What was left out, and why.
    """

    schema_version: Literal[1] = 1
    outcome: Outcome
    exit_code: int
    judged: Literal["absolute", "ratio"] | None = None
    criteria: tuple[Criterion, ...]
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckOptions:
    """What `edgekd validate` was asked for.

    Attributes:
        only: Check the answers alone, or the latency alone.
        max_regression: On another machine: how many times slower beside its anchor the bundle may be; None takes
            `MAX_REGRESSION`.
        judge_here: Judge the budget itself, whatever machine this is.
        latency_ms: Another budget than the bundle's; implies `judge_here`.
        percentile: Another percentile than the bundle's; implies `judge_here`.
        clock: Another clock than the bundle's; implies `judge_here`.
        log: The speed log of this machine.
    """

    only: Part | None = None
    max_regression: float | None = None
    judge_here: bool = False
    latency_ms: float | None = None
    percentile: float | None = None
    clock: Clock | None = None
    log: SpeedLog | None = None

    @property
    def absolute(self) -> bool:
        """Whether the budget itself is to be judged."""
        return self.judge_here or any(given is not None for given in (self.latency_ms, self.percentile, self.clock))


def validate(bundle: Path, asked: CheckOptions, progress: Progress) -> Validation:
    """Check a bundle's files, replay its answers, and judge its latency as far as this machine allows.

    Raises:
        UsageError: A file is missing, broken, of a newer schema, or does not match its checksum.
        UnavailableError: The target cannot run here.
    """
    verdict, profile, files = open_bundle(bundle, asked)
    criteria = [files]
    notes: list[str] = []
    evidence, config = read_evidence(bundle), read_config(bundle / "config.json")
    if asked.only != "latency":
        if evidence is not None:
            criteria += answer_criteria(bundle, evidence)
        elif asked.only == "answers":
            raise UsageError(f"{bundle}: made before bundles kept their answers: make it again to compare them")
        else:
            notes.append("answers: not compared, the bundle was made before bundles kept them")
    judged = None
    if asked.only != "answers":
        subject = _Subject(bundle, verdict, evidence, config, profile)
        judged, found = subject.latency(asked, progress)
        criteria += found
        if (why := no_thread_clock()) and profile.target.kind == "onnxruntime-cpu":
            notes.append(f"{why}: response time is judged")
        if asked.log is not None and asked.log.note:
            notes.append(asked.log.note)
        if asked.log is not None and (speeds := asked.log.summary()) is not None:
            notes.append(speed_words(speeds))
    if config.threads > usable_cpus():
        notes.append(f"the bundle runs {config.threads} threads, this process may use {usable_cpus()}")
    outcome = overall(criteria)
    return Validation(
        outcome=outcome,
        exit_code=int(EXIT_CODES[outcome]),
        judged=judged,
        criteria=tuple(criteria),
        changes=changes(verdict, read_machine()),
        notes=tuple(notes),
    )


def open_bundle(bundle: Path, asked: CheckOptions) -> tuple[Verdict, Profile, Criterion]:
    """What any judgement of a bundle begins with, wherever its latency was measured.

    Returns:
        Its verdict, the profile that it was made with, and the criterion of its files.

    Raises:
        UsageError: What is asked is impossible; a file is missing, broken, or does not match its checksum; or the
            verdict's budget is not the one that was promised.
    """
    _check(asked)
    verdict = read_verdict(inside(bundle, "verdict.json"))
    files = check_files(bundle, verdict)
    profile = load_request(inside(bundle, "edgekd.yaml")).profile
    _check_budget(bundle, verdict, profile)
    return verdict, profile, files


def _check_budget(bundle: Path, verdict: Verdict, profile: Profile) -> None:
    """verdict.json has no checksum; the request beside it, which has one, knows what was promised."""
    found = verdict.budget
    promised = (profile.budget.latency_ms, profile.budget.percentile, profile.workload.judge)
    if promised != (found.latency_ms, found.percentile, found.judge):
        raise UsageError(
            f"{bundle}/verdict.json: its budget, {found.latency_ms:g} ms at p{found.percentile:g} on {found.judge} "
            "texts, is not that of edgekd.yaml: copy the bundle again"
        )


def _check(asked: CheckOptions) -> None:
    factor = asked.max_regression
    if factor is not None and not (math.isfinite(factor) and factor > 0):
        raise UsageError(f"--max-regression {factor:g}: give a factor above 0, such as {MAX_REGRESSION:g}")
    for name, mend in _BUDGET.items():
        if (value := getattr(asked, name)) is None:
            continue
        try:
            Budget(**{name: value})
        except ValidationError as error:
            raise UsageError(f"--{name.replace('_', '-')} {value:g}: {mend}") from error
    if asked.only == "answers" and (asked.absolute or factor is not None):
        raise UsageError(
            "--only answers measures no latency: leave out --judge-here, --latency-ms, --percentile, --clock and "
            "--max-regression"
        )
    if asked.absolute and factor is not None:
        raise UsageError(
            "--max-regression is for the ratio to the anchor, and the budget itself is asked for: leave it out, or "
            "--judge-here, --latency-ms, --percentile and --clock"
        )


def check_files(bundle: Path, verdict: Verdict) -> Criterion:
    """Every file that the verdict names is there and whole.

    Raises:
        UsageError: One is not.
    """
    found = checksums(bundle)
    if verdict.model.file not in verdict.files:
        raise UsageError(f"{bundle / 'verdict.json'}: no checksum of {verdict.model.file}; make the bundle again")
    for name, expected in verdict.files.items():
        if name not in found:
            raise UsageError(f"{bundle / name}: missing; copy the whole bundle again")
        if found[name] != expected:
            raise UsageError(f"{bundle / name}: does not match its checksum in verdict.json; copy the bundle again")
    return Criterion(
        kind="files", name="files whole", limit=1.0, bound="at least", unit="share", value=1.0, outcome="met",
        explanation=f"{len(verdict.files)} files match their checksums",
    )  # fmt: skip


def answer_criteria(bundle: Path, evidence: Evidence) -> list[Criterion]:
    """The stored texts answered again: the same labels, and logits near the stored ones."""
    found = replay(bundle, evidence)
    same = 1.0 - len(found.changed) / found.texts
    said = f"the same labels on all {found.texts} stored texts"
    if found.changed:
        said = f"other labels on {len(found.changed)} of {found.texts} stored texts, such as {found.example}"
    drift = min(found.drift, 1e9)  # JSON has no infinity
    return [
        Criterion(
            kind="answers", name="answers unchanged", limit=1.0, bound="at least", unit="share", value=same,
            outcome="missed" if found.changed else "met", explanation=said,
        ),
        Criterion(
            kind="drift", name="drift of the logits", limit=found.tolerance, unit="share", value=drift,
            outcome="met" if drift <= found.tolerance else "missed",
            explanation=f"the logits moved by {100 * drift:.2g}% of their size",
        ),
    ]  # fmt: skip


@dataclass(frozen=True)
class _Subject:
    """A whole bundle, and all that says how its latency is to be judged."""

    bundle: Path
    verdict: Verdict
    evidence: Evidence | None
    config: BundleConfig
    profile: Profile

    def latency(
        self, asked: CheckOptions, progress: Progress
    ) -> tuple[Literal["absolute", "ratio"] | None, list[Criterion]]:
        """Judge the budget on the machine it was given for, or where that is asked for; elsewhere the ratio."""
        device = self.profile.target.device
        if not asked.absolute:
            if device != "local":
                return None, [self._unmeasured(f"the device {device!r} is elsewhere: {_ELSEWHERE}")]
            if not self._same_machine() or self._texts_missing():
                if self.evidence is None or self.evidence.ratio is None:
                    why = "another machine, and the bundle was made before bundles kept an anchor"
                    return None, [self._unmeasured(f"{why}: add --judge-here to judge the budget itself")]
                return "ratio", [self._ratio(self.evidence, asked, progress)]
        return "absolute", self._absolute(asked, progress)

    def _same_machine(self) -> bool:
        if self.evidence is not None:
            return self.evidence.fingerprint == fingerprint(read_machine())
        try:
            then = Machine.from_json(dict(self.verdict.machine))
        except UsageError:
            return False
        return fingerprint(then) == fingerprint(read_machine())

    def _texts_missing(self) -> bool:
        """Whether the budget is on real texts that the bundle does not hold."""
        own = self.evidence.own if self.evidence is not None else 0
        return self.verdict.budget.judge == "replay" and not own

    def _absolute(self, asked: CheckOptions, progress: Progress) -> list[Criterion]:
        length, texts = self._fixed()
        what = f"at {length} tokens"
        if self.verdict.budget.judge == "replay" and self.evidence is not None and self.evidence.own:
            texts, what = self.evidence.own_texts, "on the texts in the bundle"
        budget, accept = self.verdict.budget, self.profile.accept
        q = asked.percentile if asked.percentile is not None else budget.percentile
        judgement = judge_latency(
            self.bundle,
            texts,
            self._target(asked),
            asked.latency_ms if asked.latency_ms is not None else budget.latency_ms,
            q,
            progress,
            f"validate: p{q:g} {what}",
            batch_size=self.profile.workload.batch_size,
        )
        found = latency_criterion(judgement)
        criteria = [found.model_copy(update={"explanation": f"{found.explanation}, {what}"})]
        if accept.max_memory_mb is not None:
            criteria.append(memory_criterion(judgement.measurement.peak_memory_mb, accept.max_memory_mb))
        return criteria

    def _target(self, asked: CheckOptions) -> Target:
        """This machine, whatever device the profile names, judged on the clock that is asked for."""
        changes = {"device": "local"} | ({} if asked.clock is None else {"clock": asked.clock})
        return build_target(self.profile.target.model_copy(update=changes), asked.log)

    def _ratio(self, evidence: Evidence, asked: CheckOptions, progress: Progress) -> Criterion:
        then, limit = evidence.ratio, asked.max_regression or MAX_REGRESSION
        assert then is not None
        now = measure_ratio(
            self.bundle,
            self._target(asked),
            self._fixed()[1],
            self.profile.workload.batch_size,
            then.bundle_ms,
            progress,
        )
        value, interval, outcome = regression(then, now, limit)
        said = f"{now.value:.3g} times its anchor's time here, {then.value:.3g} times when it was made"
        if outcome == "inconclusive":
            said += ": too close to tell; run again"
        return Criterion(
            kind="latency", name="latency beside the anchor, over that when made", limit=limit, value=value,
            interval=interval, outcome=outcome, explanation=said,
        )  # fmt: skip

    def _unmeasured(self, why: str) -> Criterion:
        budget = self.verdict.budget
        return Criterion(
            kind="latency", name=f"latency p{budget.percentile:g}", limit=budget.latency_ms, unit="ms",
            outcome="unmeasured", explanation=why,
        )  # fmt: skip

    def _fixed(self) -> tuple[int, tuple[Text, ...]]:
        split = generic_split(self.config.pair)
        return self.config.max_length, fixed_texts(load_tokenizer(self.bundle), split, self.config.max_length)


def changes(verdict: Verdict, machine: Machine) -> tuple[Change, ...]:
    """What was otherwise when the verdict was given: libraries, processor, its instructions, its share."""
    here = machine.to_json()
    pairs: list[tuple[str, Any, Any]] = [
        (n, verdict.versions.get(n), _version(n, machine.versions)) for n in _LIBRARIES
    ]
    pairs += [(name.replace("_", " "), verdict.machine.get(name), here[name]) for name in _MACHINE]
    return tuple(Change(what=what, then=_shown(a), now=_shown(b)) for what, a, b in pairs if a != b)


def _version(name: str, known: Mapping[str, str]) -> str | None:
    if name == "edgekd":
        return __version__
    if name in known:
        return known[name]
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
