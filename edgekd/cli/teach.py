"""`edgekd teach`: fine-tune a teacher from an encoder and labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekd import api
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
    console, encoder = error_console(), named("--encoder", flags["encoder"])
    outputs, data = flags["teacher_outputs"], flags["data"]
    data = named("--data", data) if outputs is None else data
    taught = api.teach(
        encoder, data, out, teacher_outputs=None if outputs is None else named("--teacher-outputs", outputs),
        profile=profile, cache_dir=flags["cache_dir"], progress=ConsoleProgress(console), task=task_of(flags),
        columns=columns_of(flags), hub_config=flags["data_config"],
    )  # fmt: skip
    score = 100 * taught.validation
    console.print(f"teacher written to {out}: {score:.1f}% on validation after {taught.steps} steps")
    if flags["as_json"]:
        click.echo(json.dumps({"out": str(out), **taught.model_dump(mode="json")}))
