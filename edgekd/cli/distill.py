"""`edgekd distill`: train the student of a plan, or a general encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click

from edgekd.cli import agnostic
from edgekd.cli.agnostic import agnostic_options
from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.options import (
    assistants_option,
    data_options,
    json_option,
    named,
    new_folder,
    profile_options,
    request_of,
    store_of,
    store_option,
)
from edgekd.errors import UsageError, require


@click.command(name="distill")
@click.option("--teacher", help="Folder or hub id of a fine-tuned Transformer encoder.")
@data_options
@profile_options
@click.option("--plan", help="The plan.json that says which student.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the student.")
@click.option("--overwrite", is_flag=True, help="Replace the folder --out.")
@agnostic_options
@assistants_option
@store_option
@json_option
def command(**flags: Any) -> None:
    """Train the student of a plan: cut out of the teacher, then taught by it.

    With --task-agnostic: a general encoder from any larger one and raw text, which `teach` takes.
    """
    agnostic.check_flags(agnostic=flags["task_agnostic"])
    if flags["task_agnostic"]:
        agnostic.run(flags)
        return
    request = request_of(flags, budget=False)
    out = new_folder(flags)
    require("torch", "cpu", "train a student")
    from edgekd.assistants.chain import make_chain
    from edgekd.pipeline.attempt import train_student
    from edgekd.pipeline.compress import gather
    from edgekd.plan.weights import first_weights
    from edgekd.records.plan import read_plan
    from edgekd.session import Session

    plan = read_plan(Path(named("--plan", flags["plan"])))
    candidate = plan.choice or plan.nearest()
    if candidate.kind == "teacher":
        raise UsageError(f"--plan {flags['plan']}: it chose the unchanged teacher; plan with --always-distill")
    console = error_console()
    session = Session.open(store_of(flags["cache_dir"]), ConsoleProgress(console))
    inputs = gather(session, request).of_student
    chain = make_chain(session, inputs, candidate, first_weights(session, inputs, candidate))
    student = train_student(session, inputs, chain.start, chain.lesson, inputs.profile.distill, longer=False)[-1]
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(student.path, out, ignore=shutil.ignore_patterns("manifest.json"))
    inputs.reader.save_tokenizer(out)
    before, after = 100 * student.result["untrained"], 100 * student.result["validation"]
    console.print(f"student written to {out}: {after:.1f}% on validation ({before:.1f}% before training)")
    if flags["as_json"]:
        click.echo(json.dumps({"out": str(out), **student.result}))
