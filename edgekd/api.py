"""EdgeKD from Python: what each command does, as a function that returns its record.

    from edgekd import api

    request = api.request(teacher="./my-bert", data="./data", latency_ms=10)
    result = api.compress(request, "./bundle")
    result.outcome                                # "met", "missed", "inconclusive" or "unmeasured"
    api.load("./bundle").predict(["turn the lights off"])

`compress`, `teach`, `validate`, `load` and `request` are attributes of `edgekd` itself, too; the other names are
packages there. Nothing heavy is imported before a function is called.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekd.errors import UsageError

if TYPE_CHECKING:
    from edgekd.progress import Progress
    from edgekd.proof.validate import Validation
    from edgekd.records.export import Exported
    from edgekd.records.plan import Plan
    from edgekd.records.result import Result
    from edgekd.records.training import TrainingRun
    from edgekd.runtime.model import Model
    from edgekd.session import Session
    from edgekd.settings.profile import Profile
    from edgekd.settings.request import Request
    from edgekd.settings.target import Clock
    from edgekd.store import Artefact, Store

__all__ = ["compress", "distill", "export", "load", "plan", "request", "teach", "validate"]


def request(
    teacher: str | Path | None = None,
    data: str | Path | None = None,
    *,
    latency_ms: float | None = None,
    profile: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    **named: Any,
) -> Request:
    """What is asked for; without teacher and data, the embedded demo.

    Args:
        teacher: Folder or hub id of a fine-tuned encoder.
        data: Folder, file or hub id of the data.
        latency_ms: The budget, in milliseconds a call.
        profile: A shipped profile, an added device's name, or a YAML file.
        settings: Fields of the profile by dotted name, such as {"target.threads": 2}.
        cache_dir: Where added devices are looked up.
        named: Further fields of `edgekd.settings.request.Request`, such as `task` or `columns`.

    Raises:
        UsageError: No such profile, or a field is wrong.
    """
    from edgekd.profiles import load_profile
    from edgekd.settings.base import validated
    from edgekd.settings.profile import override
    from edgekd.settings.request import Request, is_demo

    resolved = override(
        load_profile(profile, _store(cache_dir)), {**(settings or {}), "budget.latency_ms": latency_ms}, "settings"
    )
    given = {name: None if value is None else str(value) for name, value in (("teacher", teacher), ("data", data))}
    demo = is_demo(given["teacher"], given["data"], named.get("encoder"), named.get("teacher_outputs"))
    return validated(Request, {"demo": demo, **given, "profile": resolved, **named}, "request")


def compress(
    request: Request,
    out: str | Path = "bundle",
    *,
    overwrite: bool = False,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Make a bundle that meets the request's budget, or the best there is with its proof.

    Args:
        request: See `request`.
        out: The bundle's folder.
        overwrite: Replace the bundle of another request.
        cache_dir: Where finished steps are kept.
        progress: Where progress is shown; None is silent.

    Raises:
        EdgekdError: The request, the data or the machine make it impossible.
    """
    from edgekd.pipeline.compress import compress as run

    return run(_session(cache_dir, progress), request, Path(out), overwrite=overwrite)


def plan(request: Request, *, cache_dir: str | Path | None = None, progress: Progress | None = None) -> Plan:
    """Choose the student for the request's budget on this machine; see `compress` for the arguments."""
    from edgekd.assistants.by_accuracy import choose_student
    from edgekd.pipeline.demo import kept_request
    from edgekd.pipeline.sources import gather
    from edgekd.plan.device import device_of
    from edgekd.plan.planner import planner_of

    request.profile.budget.asked_ms()  # refuses one that is missing, before the teacher labels a text
    request, session = kept_request(request), _session(cache_dir, progress)
    device = device_of(session, request.profile.target)
    return choose_student(planner_of(session, gather(session, request), device))


def teach(
    encoder: str | Path,
    data: str | Path | None,
    out: str | Path,
    *,
    teacher_outputs: str | Path | None = None,
    profile: Profile | str = "cpu",
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    **reading: Any,
) -> TrainingRun:
    """Fine-tune a teacher from an encoder and labels, or from another teacher's outputs.

    Args:
        encoder: Folder or hub id of a Transformer encoder.
        data: Folder, file or hub id; may be None where there are outputs.
        out: Folder for the teacher.
        teacher_outputs: Parquet or JSON Lines file of another teacher's outputs.
        profile: Its `teach` settings are used.
        cache_dir: Where finished steps are kept.
        progress: Where progress is shown; None is silent.
        reading: `task`, `columns` and `hub_config`, where they are not read off the data.

    Raises:
        UsageError: Encoder, settings and task do not go together.
        DataError: The data are broken, or hold no labels.
    """
    from edgekd.output import building, publish
    from edgekd.pipeline.blackbox import read_with_outputs, teach_from_outputs
    from edgekd.profiles import load_profile
    from edgekd.records.base import record_of
    from edgekd.records.training import TrainingRun
    from edgekd.session import read, teach_from
    from edgekd.settings.columns import Columns

    session, folder = _session(cache_dir, progress), Path(out)
    resolved = load_profile(profile, session.store) if isinstance(profile, str) else profile
    given = (reading.get("task"), reading.get("columns") or Columns(), reading.get("hub_config"))
    source = None if data is None else str(data)
    with building(folder) as work:
        if teacher_outputs is not None:
            texts, outputs = read_with_outputs(session, str(teacher_outputs), source, *given)
            taught = teach_from_outputs(session, str(encoder), texts, outputs, resolved)
        elif source is None:
            raise UsageError("--data is missing")
        else:
            taught = teach_from(session, str(encoder), read(session.engine.progress, source, *given), resolved)
        _keep(taught, work)
        publish(work, folder)
    return record_of(taught, TrainingRun)


def distill(
    request: Request,
    plan: Plan,
    out: str | Path,
    *,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> TrainingRun:
    """Train the student of a plan into a folder; see `compress` for the other arguments.

    Returns:
        Its last stage.

    Raises:
        UsageError: The plan chose the unchanged teacher.
    """
    from edgekd.assistants.chain import make_chain
    from edgekd.output import building, publish
    from edgekd.pipeline.build import train_student
    from edgekd.pipeline.sources import gather
    from edgekd.plan.weights import first_weights
    from edgekd.records.base import record_of
    from edgekd.records.training import TrainingRun

    candidate = plan.choice or plan.nearest()
    if candidate.kind == "teacher":
        raise UsageError("the plan chose the unchanged teacher: plan with --always-distill")
    session, folder = _session(cache_dir, progress), Path(out)
    with building(folder) as work:
        inputs = gather(session, request).of_student
        chain = make_chain(session, inputs, candidate, first_weights(session, inputs, candidate))
        student = train_student(session, inputs, chain.start, chain.lesson, inputs.profile.distill, longer=False)[-1]
        _keep(student, work)
        inputs.reader.save_tokenizer(work)
        publish(work, folder)
    return record_of(student, TrainingRun)


def export(
    request: Request,
    student: str | Path,
    out: str | Path,
    *,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write a student that `distill` made as ONNX, proven equal; INT8 under guard. See `compress` for the arguments."""
    from edgekd.distill.student import load_student
    from edgekd.export.stage import exported_of
    from edgekd.models.identity import folder_id
    from edgekd.output import building, publish
    from edgekd.pipeline.build import export_of
    from edgekd.pipeline.sources import gather
    from edgekd.plan.device import device_of

    folder, session = Path(student), _session(cache_dir, progress)
    if not (folder / "model.safetensors").is_file():
        raise UsageError(f"--student {folder}: no model.safetensors there; make it with `edgekd distill`")
    device = device_of(session, request.profile.target)
    with building(Path(out)) as work:
        made = export_of(session, gather(session, request).of_student, device, load_student(folder), folder_id(folder))
        _keep(made, work)
        publish(work, Path(out))
    return exported_of(made)


def validate(
    bundle: str | Path,
    *,
    only: Literal["answers", "latency"] | None = None,
    max_regression: float | None = None,
    judge_here: bool = False,
    latency_ms: float | None = None,
    percentile: float | None = None,
    clock: Clock | None = None,
    measured: str | Path | None = None,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Validation:
    """Check a bundle on any host: its files, its answers to stored texts, and its latency. Needs no torch.

    Args:
        bundle: Its folder.
        only: Check these alone; the files always.
        max_regression: On another machine: how many times slower beside its anchor it may be; None: 1.15.
        judge_here: Judge the budget itself, whatever machine this is.
        latency_ms: Another budget than the bundle's; implies `judge_here`, as do the next two.
        percentile: Another percentile, in percent.
        clock: Another clock.
        measured: Judge what the verify kit wrote on its device, instead.
        cache_dir: Where this machine's speed log is kept.
        progress: Where progress is shown; None is silent.

    Raises:
        UsageError: No such bundle, a file is missing or broken, or what is asked is impossible.
        UnavailableError: The target cannot run here.
    """
    from edgekd.latency.speed_log import SpeedLog
    from edgekd.progress import Progress
    from edgekd.proof.validate import CheckOptions, validate

    folder = Path(bundle)
    if not folder.is_dir():
        hint = "name the folder that it is in" if folder.is_file() else "no such bundle"
        raise UsageError(f"{folder}: {hint}")
    log = SpeedLog.of_this_machine(_store(cache_dir).speed_folder)
    asked = CheckOptions(only, max_regression, judge_here, latency_ms, percentile, clock, log)
    if measured is not None:
        from edgekd.remote.verify import judge_measured

        return judge_measured(folder, Path(measured), asked)
    return validate(folder, asked, progress or Progress())


def load(bundle: str | Path, **options: Any) -> Model:
    """A bundle's model: `load(bundle).predict(["..."])`; see `edgekd.runtime.load`. Needs no torch."""
    from edgekd.runtime.model import load as load_bundle

    return load_bundle(bundle, **options)


def _store(cache_dir: str | Path | None) -> Store:
    from edgekd.store import Store, default_root

    return Store(default_root() if cache_dir is None else Path(cache_dir))


def _session(cache_dir: str | Path | None, progress: Progress | None) -> Session:
    from edgekd.progress import Progress
    from edgekd.session import Session

    return Session.open(_store(cache_dir), progress or Progress())


def _keep(made: Artefact, work: Path) -> None:
    """A finished step's files, as the user asked for them."""
    shutil.copytree(made.path, work, ignore=shutil.ignore_patterns("manifest.json"), dirs_exist_ok=True)
