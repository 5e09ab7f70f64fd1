"""`edgekd transfer`: build the transfer set and look at it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.options import (
    columns_of,
    data_options,
    json_option,
    named,
    new_folder,
    resolve_profile,
    store_of,
    store_option,
    task_of,
    transfer_options,
)
from edgekd.errors import require

if TYPE_CHECKING:
    from edgekd.data.transfer_set import TransferSet
    from edgekd.inputs.transfer_stage import Embedder
    from edgekd.session import Session

# Examples of chosen and refused texts that a screen takes.
_SHOWN = 3


@click.command(name="transfer")
@data_options
@transfer_options
@click.option("--teacher", help="Folder of the teacher, in whose space generic texts are compared with yours.")
@click.option("--profile", default="cpu", show_default=True, help="Profile whose `transfer` settings are used.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the transfer set.")
@click.option("--overwrite", is_flag=True, help="Replace the folder --out.")
@store_option
@json_option
def command(**flags: Any) -> None:
    """Build the transfer set: target-domain texts, generic texts like them, and new texts.

    None of them is in validation or test. `unlabeled.jsonl` holds the texts, `transfer.json` says where they are from.
    """
    out = new_folder(flags)
    console = error_console()
    profile = resolve_profile(flags["profile"], flags)
    source = named("--data", flags["data"])
    require("torch", "cpu", "build a transfer set")
    from edgekd.inputs.transfer_stage import build_transfer_set
    from edgekd.output import building, publish
    from edgekd.session import Session, read
    from edgekd.store import write_json

    session = Session.open(store_of(flags["cache_dir"]), ConsoleProgress(console))
    with building(out) as work:
        data = read(session.engine.progress, source, task_of(flags), columns_of(flags), flags["data_config"])
        embedder = None if flags["teacher"] is None else _embedder(session, named("--teacher", flags["teacher"]))
        made = build_transfer_set(session.store, session.engine, data, profile.transfer, profile.distill.seed, embedder)
        _write_texts(made, work / "unlabeled.jsonl")
        generic = None if made.selection is None else made.selection.model_dump(mode="json")
        about = {"texts": len(made.split), "counts": made.counts, "notes": made.notes, "generic": generic}
        write_json(work / "transfer.json", about)
        publish(work, out)
    for line in _said(made):
        console.print(f"transfer: {line}", markup=False)
    console.print(f"{len(made.split)} texts written to {out}")
    if flags["as_json"]:
        click.echo(json.dumps(about))


def _embedder(session: Session, folder: str) -> Embedder:
    from edgekd.inputs.transfer_stage import Embedder
    from edgekd.models.identity import folder_id
    from edgekd.models.teacher import load_teacher

    teacher = load_teacher(folder)
    return Embedder(teacher, folder_id(teacher.folder), min(128, teacher.max_length))


def _write_texts(made: TransferSet, path: Path) -> None:
    with path.open("w", encoding="utf-8") as handle:
        for i, text in enumerate(made.split.texts):
            row: dict[str, Any] = {"text": text}
            if made.split.pairs is not None:
                row["text_pair"] = made.split.pairs[i]
            if made.split.words is not None:
                row["tokens"] = made.split.words[i]
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def _said(made: TransferSet) -> list[str]:
    """What a person wants to know of it, a line each."""
    lines = [*made.notes, ", ".join(f"{count} {kind}" for kind, count in made.counts.items() if count)]
    if made.selection is not None:
        chosen = made.selection
        lines.append(
            f"generic: of {chosen.pool_size} texts; {chosen.kl_reduction:+.2f} nats nearer to yours by n-grams "
            "than as many taken at random"
        )
        for kind, examples in (("chosen", chosen.chosen_examples), ("refused", chosen.refused_examples)):
            lines += [f"generic, {kind}: {score:.2f} {text}" for text, score in examples[:_SHOWN]]
    return lines
