"""`edgekd export`: write a student as ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekd import api
from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.options import (
    columns_of,
    data_options,
    json_option,
    named,
    new_folder,
    profile_options,
    request_of,
    store_option,
    task_of,
)
from edgekd.errors import UsageError, require


@click.command(name="export")
@click.option("--student", help="Folder that `edgekd distill` wrote.")
@click.option("--teacher", help="Its teacher.")
@data_options
@profile_options
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the ONNX files.")
@click.option(
    "--choose-graph", flag_value="measured", help="Measure the forms of the graph here, and keep the fastest."
)
@click.option("--overwrite", is_flag=True, help="Replace the folder --out.")
@click.option("--bundle", type=click.Path(path_type=Path), help="A finished bundle, for what is below.")
@click.option("--triton", type=click.Path(path_type=Path), help="Write a Triton model repository with --bundle in it.")
@click.option(
    "--single-file",
    type=click.Path(path_type=Path),
    help="Write --bundle as one ONNX file that takes text; --data: texts to prove it on.",
)
@store_option
@json_option
def command(**flags: Any) -> None:
    """Write a student as ONNX, FP32 and INT8; INT8 is refused where it costs too much on validation.

    With --bundle and --triton: write a finished bundle as a model repository of Triton's onnxruntime backend.
    With --bundle and --single-file: write it as one ONNX file with the tokenizer in it.
    """
    if any(flags[name] is not None for name in ("bundle", "triton", "single_file")):
        _finished(flags)
        return
    request = request_of(flags, budget=False)
    folder = Path(named("--student", flags["student"]))
    out = new_folder(flags)
    require("torch", "cpu", "export a student")
    require("onnxruntime", "cpu", "prove the export")
    console = error_console()
    found = api.export(request, folder, out, cache_dir=flags["cache_dir"], progress=ConsoleProgress(console))
    console.print(f"ONNX written to {out}: largest logit gap to PyTorch {found.parity.max_abs_gap:.1e}")
    if (int8 := found.quantisation) is not None:
        console.print(f"INT8 {'may' if int8.kept else 'must not'} be deployed: {int8.reason}")
    for form in found.forms:
        if form.chosen:
            console.print(f"Fastest form of the graph, {form.precision.upper()}: {form.name}")
    if flags["as_json"]:
        click.echo(json.dumps({"out": str(out), **found.model_dump(mode="json")}))


def _finished(flags: dict[str, Any]) -> None:
    """A finished bundle in another form."""
    forms = [name for name in ("triton", "single_file") if flags[name] is not None]
    if len(forms) != 1:
        raise UsageError("--bundle goes with --triton or --single-file: name one of them")
    flag = f"--{forms[0].replace('_', '-')}"
    if flags["bundle"] is None:
        raise UsageError(f"{flag} needs --bundle: name the finished bundle")
    for name in ("student", "teacher", "out", *(["data"] if forms == ["triton"] else [])):
        if flags[name] is not None:
            raise UsageError(f"{flag} writes a finished bundle: leave out --{name}")
    for name in ("overwrite", "choose_graph"):
        if flags[name]:
            raise UsageError(f"--{name.replace('_', '-')} goes without {flag}: it replaces and measures nothing")
    require("onnx", "cpu", "read the bundle's graph")
    if forms == ["triton"]:
        _triton(flags)
    else:
        _single_file(flags)


def _triton(flags: dict[str, Any]) -> None:
    if flags["triton"].is_file():
        raise UsageError(f"--triton {flags['triton']} is a file: name a folder")
    from edgekd.export.deploy import triton_repository

    model = triton_repository(flags["bundle"], flags["triton"])
    error_console().print(f"Triton model written to {model}; run: tritonserver --model-repository {flags['triton']}")
    if flags["as_json"]:
        click.echo(json.dumps({"model": str(model)}))


def _single_file(flags: dict[str, Any]) -> None:
    from edgekd.data.read import read_data
    from edgekd.export.single_file import single_file

    own: list[str] = []
    if flags["data"] is not None:
        data = read_data(flags["data"], task=task_of(flags), columns=columns_of(flags))
        splits = (data.test, data.unlabeled, data.validation, data.train)
        own = [text for split in splits if split for text in split.texts if isinstance(text, str)]
    compared = single_file(flags["bundle"], flags["single_file"], own)
    error_console().print(f"{flags['single_file']} written: it equals the bundle on {compared:,} texts")
    if flags["as_json"]:
        click.echo(json.dumps({"file": str(flags["single_file"]), "equal_on": compared}))
