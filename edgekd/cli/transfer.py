"""`edgekd transfer`: build the transfer set and look at it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.options import (
    columns_of,
    data_options,
    json_option,
    named,
    new_folder,
    resolve_profile,
    task_of,
)


@click.command(name="transfer")
@data_options
@click.option("--profile", default="cpu", show_default=True, help="Profile whose `transfer` settings are used.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the transfer set.")
@click.option("--overwrite", is_flag=True, help="Write into a folder that is not empty.")
@json_option
def command(**flags: Any) -> None:
    """Build the transfer set: target-domain texts, none of them in validation or test."""
    from edgekd.data.transfer import build_transfer_set
    from edgekd.session import read

    out = new_folder(flags["out"], flags["overwrite"])
    console = error_console()
    profile = resolve_profile(flags["profile"], {})
    source = named("--data", flags["data"])
    data = read(ConsoleProgress(console), source, task_of(flags), columns_of(flags), flags["data_config"])
    made = build_transfer_set(data, profile.transfer, profile.distill.seed)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "unlabeled.jsonl").open("w", encoding="utf-8") as handle:
        for i, text in enumerate(made.split.texts):
            row: dict[str, Any] = {"text": text}
            if made.split.pairs is not None:
                row["text_pair"] = made.split.pairs[i]
            if made.split.words is not None:
                row["tokens"] = made.split.words[i]
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")
    labelled = 0 if made.labelled is None else len(made.labelled)
    for note in made.notes:
        console.print(f"transfer: {note}")
    console.print(f"{len(made.split)} texts ({labelled} of them labelled) written to {out}")
    if flags["as_json"]:
        click.echo(json.dumps({"texts": len(made.split), "labelled": labelled, "notes": made.notes}))
