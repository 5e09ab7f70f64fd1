"""`edgekd cache`: what earlier runs have kept."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgekd.cli.options import store_of, store_option


@click.command(name="cache")
@click.option("--clear", is_flag=True, help="Delete everything that no running process holds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_option
def command(clear: bool, as_json: bool, cache_dir: Path | None) -> None:
    """Show what earlier runs have kept, stage by stage, or clear it."""
    store = store_of(cache_dir)
    freed = store.clear() if clear else 0
    stages: dict[str, dict[str, int]] = {}
    for stage, _, size in store.entries():
        entry = stages.setdefault(stage, {"artefacts": 0, "bytes": 0})
        entry["artefacts"] += 1
        entry["bytes"] += size
    if as_json:
        click.echo(json.dumps({"path": str(store.root), "freed_bytes": freed, "stages": stages}))
        return
    if clear:
        click.echo(f"freed {freed / 1e6:.1f} MB")
    click.echo(f"{store.root}: {sum(s['bytes'] for s in stages.values()) / 1e6:.1f} MB")
    for stage, entry in stages.items():
        click.echo(f"  {stage:<16} {entry['artefacts']:>4} kept  {entry['bytes'] / 1e6:>9.1f} MB")
