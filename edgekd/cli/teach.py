"""`edgekd teach`: fine-tune a teacher from an encoder and labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click

from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.options import (
    Length,
    columns_of,
    data_options,
    json_option,
    named,
    new_folder,
    outputs_option,
    resolve_profile,
    store_of,
    store_option,
    task_of,
)
from edgekd.errors import require


@click.command(name="teach")
@click.option("--encoder", help="Folder or hub id of a Transformer encoder.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the teacher.")
@click.option("--profile", default="cpu", show_default=True, help="Profile whose `teach` settings are used.")
@click.option("--epochs", type=float, help="Passes over the training texts.")
@click.option("--learning-rate", type=float, help="Peak learning rate.")
@click.option("--max-length", type=Length(), help="Tokens a text; longer ones are cut.  [default: auto]")
@click.option(
    "--adapt", type=click.Choice(["none", "mlm"]), help="Fit the encoder to your text first, by guessing hidden words."
)
@click.option("--seed", type=int, help="Seed of the training.")
@click.option("--overwrite", is_flag=True, help="Replace the folder --out.")
@outputs_option
@data_options
@store_option
@json_option
def command(**flags: Any) -> None:
    """Fine-tune a teacher from an encoder and labelled data.

    With --teacher-outputs it learns those; --data may then lack labels, or be left out.
    """
    require("torch", "cpu", "train a teacher")
    from edgekd.pipeline.blackbox import read_with_outputs, teach_from_outputs
    from edgekd.session import Session, read, teach_from
    from edgekd.settings.profile import override

    out = new_folder(flags)
    profile = resolve_profile(flags["profile"], {})
    adapt = None if flags["adapt"] in (None, profile.teach.adapt.name) else {"name": flags["adapt"]}
    profile = override(
        profile,
        {
            "teach.adapt": adapt,
            "teach.training.epochs": flags["epochs"],
            "teach.training.learning_rate": flags["learning_rate"],
            "teach.seed": flags["seed"],
            "workload.max_length": flags["max_length"],
        },
    )
    console = error_console()
    progress = ConsoleProgress(console)
    session = Session.open(store_of(flags["cache_dir"]), progress)
    encoder, reading = named("--encoder", flags["encoder"]), (task_of(flags), columns_of(flags), flags["data_config"])
    if flags["teacher_outputs"] is not None:
        file = named("--teacher-outputs", flags["teacher_outputs"])
        data, outputs = read_with_outputs(session, file, flags["data"], *reading)
        taught = teach_from_outputs(session, encoder, data, outputs, profile)
    else:
        data = read(progress, named("--data", flags["data"]), *reading)
        taught = teach_from(session, encoder, data, profile)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(taught.path, out, ignore=shutil.ignore_patterns("manifest.json"))
    score = 100 * taught.result["validation"]
    console.print(f"teacher written to {out}: {score:.1f}% on validation after {taught.result['steps']} steps")
    if flags["as_json"]:
        click.echo(json.dumps({"out": str(out), **taught.result}))
