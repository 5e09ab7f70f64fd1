"""`edgekd cache`: what earlier runs have kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from edgekd.cli.options import store_of, store_option
from edgekd.errors import ExitCode
from edgekd.store import Store


@click.command(name="cache")
@click.option("--clear", is_flag=True, help="Delete everything that no running process holds.")
@click.option("--verify", is_flag=True, help="Read everything, and name what is damaged.")
@click.option("--yes", is_flag=True, help="With --clear: do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_option
def command(clear: bool, verify: bool, yes: bool, as_json: bool, cache_dir: Path | None) -> int:
    """Show what earlier runs have kept, stage by stage, or clear it."""
    store = store_of(cache_dir)
    if verify:
        return _verify(store, as_json)
    if clear and not yes and sys.stdin.isatty():
        size = sum(size for _, _, size in store.entries())
        if not click.confirm(f"delete {size / 1e6:.1f} MB of finished steps in {store.root}?", err=True):
            click.echo("nothing was deleted", err=True)
            return ExitCode.MET
    freed = store.clear() if clear else 0
    stages: dict[str, dict[str, int]] = {}
    for stage, _, size in store.entries():
        entry = stages.setdefault(stage, {"artefacts": 0, "bytes": 0})
        entry["artefacts"] += 1
        entry["bytes"] += size
    if as_json:
        click.echo(json.dumps({"path": str(store.root), "freed_bytes": freed, "stages": stages}))
        return ExitCode.MET
    if clear:
        click.echo(f"freed {freed / 1e6:.1f} MB")
    click.echo(f"{store.root}: {sum(s['bytes'] for s in stages.values()) / 1e6:.1f} MB")
    for stage, entry in stages.items():
        click.echo(f"  {stage:<16} {entry['artefacts']:>4} kept  {entry['bytes'] / 1e6:>9.1f} MB")
    return ExitCode.MET


def _verify(store: Store, as_json: bool) -> int:
    """What is damaged is made again by the next run that needs it."""
    whole, damaged = store.verify()
    if as_json:
        click.echo(json.dumps({"path": str(store.root), "whole": whole, "damaged": [str(path) for path in damaged]}))
    else:
        click.echo(f"{store.root}: {whole} whole, {len(damaged)} damaged")
        for path in damaged:
            click.echo(f"  {path}: made again by the next run that needs it")
    return ExitCode.MISSED if damaged else ExitCode.MET
