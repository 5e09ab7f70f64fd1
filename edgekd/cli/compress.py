"""`edgekd compress`: the whole product in one command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edgekd import api
from edgekd.cli import family
from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.family import budgets_of
from edgekd.cli.options import (
    assistants_option,
    columns_of,
    data_options,
    json_option,
    outputs_option,
    overridden,
    profile_options,
    resolve_profile,
    store_of,
    store_option,
    task_of,
)
from edgekd.cli.tracking import check_tracking, log_runs, tracking_options
from edgekd.errors import UnavailableError, UsageError, check_installed
from edgekd.profiles import load_request
from edgekd.settings.profile import Profile
from edgekd.settings.request import Request, is_demo, is_hub_data, is_hub_id

_DEMO = (
    "demo, on synthetic data: makes a teacher, plans a student, distils, exports and proves it, in seven steps; four"
    " minutes on two idle cores, longer beside other load. Ctrl-C ends it, and the same command goes on from there."
)


@click.command(name="compress")
@click.option("--teacher", help="Folder or hub id of a fine-tuned Transformer encoder.")
@click.option("--encoder", help="Folder or hub id of an encoder to make a teacher of; needs --teacher-outputs.")
@outputs_option
@data_options
@profile_options
@click.option("--out", type=click.Path(path_type=Path), default=Path("bundle"), show_default=True, help="The bundle.")
@click.option("--family", help="Several budgets in ms, such as 5,10,20: a bundle each in --out.")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="An edgekd.yaml: make its bundle again.")
@click.option("--plan", help="A plan.json that pins the student.")
@click.option("--always-distill", is_flag=True, help="Distil even where the unchanged teacher fits.")
@click.option(
    "--select",
    type=click.Choice(["kept", "accuracy"]),
    help="Choose of the students that fit by the importance they keep, or by accuracy in short runs.  [default: kept]",
)
@click.option("--demo", is_flag=True, help="Run on the embedded demo (synthetic data).")
@click.option("--dry-run", is_flag=True, help="Print the resolved request; train and measure nothing.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle of another request in --out.")
@click.option("--bundle-texts", is_flag=True, help="Keep 64 of your texts in the bundle, for `edgekd validate`.")
@click.option("--trust-remote-code", is_flag=True, help="Run model code that comes with the teacher.")
@tracking_options
@assistants_option
@store_option
@json_option
def command(**flags: Any) -> int:
    """Compress a teacher to a latency budget and prove it.

    With --encoder and --teacher-outputs it makes the teacher first. Without any it runs on an embedded demo:
    synthetic data, offline, in minutes.
    """
    budgets = budgets_of(flags)
    # What every member is asked for; each has its own budget.
    request = _request(flags | {"latency_ms": budgets[0]} if budgets else flags)
    console = error_console()
    if flags["dry_run"]:
        _dry_run(request, flags, budgets)
        return 0
    _require_everything(request.profile, flags)
    if request.demo:
        ConsoleProgress(console).say(_DEMO)
    if budgets:
        return family.run(flags, request, budgets, console)
    from edgekd.records.verdict import verdict_json
    from edgekd.report.terminal import summary

    result = api.compress(
        request, flags["out"], overwrite=flags["overwrite"], cache_dir=flags["cache_dir"],
        progress=ConsoleProgress(console),
    )  # fmt: skip
    console.print(summary(result, str(flags["out"])))
    if flags["as_json"]:
        click.echo(json.dumps(verdict_json(result)))
    log_runs(flags, [(result, flags["out"])], console)
    return int(result.exit_code)


# What a request names; each may be changed by its flag where the rest is read from a file.
_NAMED = ("teacher", "data", "data_config", "encoder", "teacher_outputs", "plan")


def _request(flags: dict[str, Any]) -> Request:
    """What is asked for: the flags, and what -c says where there is none."""
    base = None if flags["config"] is None else load_request(flags["config"])
    given = {name: flags[name] for name in _NAMED if flags[name] is not None}
    for name, value in given.items():
        if not value.strip():
            raise UsageError(f"--{name.replace('_', '-')} is empty: name a folder or file, or leave it out")
    named, demo = _named(given, base)
    as_demo = _is_demo(named, asked=flags["demo"] or demo, as_json=flags["as_json"])
    profile = None if base is None or flags["profile"] is not None else base.profile
    profile = resolve_profile(flags["profile"], flags) if profile is None else overridden(profile, flags)
    columns = columns_of(flags)
    if base is not None:
        columns = base.columns.model_copy(update=columns.model_dump(exclude_defaults=True))
    return Request(
        **named,
        demo=as_demo,
        task=task_of(flags) or (None if base is None else base.task),
        columns=columns,
        profile=_checked(profile),
        trust_remote_code=flags["trust_remote_code"] or (base is not None and base.trust_remote_code),
        bundle_texts=flags["bundle_texts"] or (base is not None and base.bundle_texts),
    )


def _named(given: dict[str, str], base: Request | None) -> tuple[dict[str, str | None], bool]:
    """What is named, by flag or in the file, and whether the file is the demo's; a teacher replaces one to be made."""
    named: dict[str, str | None] = {name: None if base is None else getattr(base, name) for name in _NAMED}
    if "teacher" in given:
        named |= {"encoder": None, "teacher_outputs": None}
    if "encoder" in given or "teacher_outputs" in given:
        named["teacher"] = None
    demo = base is not None and base.demo and not given.keys() & {"teacher", "data", "encoder", "teacher_outputs"}
    return named | given, demo


def _is_demo(named: dict[str, str | None], *, asked: bool, as_json: bool) -> bool:
    """Whether nothing of one's own was named, and that is meant."""
    demo = is_demo(named["teacher"], named["data"], named["encoder"], named["teacher_outputs"])
    if asked and not demo:
        raise UsageError("--demo goes without --teacher and --data: it brings its own")
    if demo and as_json and not asked:
        raise UsageError("--json without --teacher and --data: add --demo if the synthetic demo is what you want")
    return demo


def _checked(profile: Profile) -> Profile:
    from edgekd.latency.clocks import judged_clock

    profile.budget.asked_ms()  # refuses one that is missing
    if profile.target.kind != "fake":
        judged_clock(profile.target.clock, profile.target.kind, profile.target.threads)
    if profile.target.device == "local" and profile.target.kind == "onnxruntime-cpu":
        from edgekd.latency.machine import check_threads

        check_threads(profile.target.threads)
    return profile


def _dry_run(request: Request, flags: dict[str, Any], budgets: Sequence[float]) -> None:
    import yaml

    from edgekd.bundle import check_out
    from edgekd.pipeline.demo import kept_request
    from edgekd.pipeline.members import requests_of
    from edgekd.records.plan import read_plan

    named = {"--teacher": request.teacher, "--data": request.data}
    named |= {"--encoder": request.encoder, "--teacher-outputs": request.teacher_outputs}
    elsewhere = {flag: name for flag, name in named.items() if name and not Path(name).exists()}
    for flag, name in elsewhere.items():
        # What has the form of a hub id is not looked up: a dry run reaches for no network.
        on_hub = {"--data": is_hub_data, "--teacher": is_hub_id, "--encoder": is_hub_id}.get(flag)
        if on_hub is None or not on_hub(name):
            raise UsageError(f"{flag} {name}: no such file or folder")
    if request.plan is not None:
        read_plan(Path(request.plan))
    init = request.profile.distill.init
    if init.folder is not None and not Path(init.folder).is_dir():
        raise UsageError(f"distill.init.folder {init.folder}: no such folder")
    request = kept_request(request)
    if budgets:
        requests_of(request, budgets, flags["out"], flags["overwrite"])
    else:
        check_out(flags["out"], request, flags["overwrite"])
    known = "teacher and data: not read; plan: not measured yet"
    if elsewhere:
        known += f"; not here, so taken from the hub: {', '.join(f'{flag} {name}' for flag, name in elsewhere.items())}"
    if budgets:
        known += f"; a bundle for each of --family {flags['family']}, with its own budget"
    try:
        _require_everything(request.profile, flags)
    except UnavailableError as error:
        known += f" ({error})"
    if flags["as_json"]:
        click.echo(json.dumps({"request": request.model_dump(mode="json"), "plan": known}))
        return
    click.echo(yaml.safe_dump(request.model_dump(mode="json"), sort_keys=False).rstrip())
    click.echo(known)


def _require_everything(profile: Profile, flags: dict[str, Any]) -> None:
    """Fail now, not after an hour: everything that the run imports later must be there."""
    from edgekd.latency.targets.build import build_target
    from edgekd.remote.devices import find_probe

    extra = "cpu" if profile.target.kind in ("onnxruntime-cpu", "fake") else "gpu"
    for module in ("torch", "transformers", "accelerate", "onnx", "onnxruntime", "datasets", "matplotlib"):
        check_installed(module, extra, "compress a model")
    if find_probe(store_of(flags["cache_dir"]), profile.target.device) is None:
        build_target(profile.target).check()
    check_tracking(flags)
