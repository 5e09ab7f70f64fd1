"""`edgekd profiles`: list the profiles, show one, or print the JSON schema for editors."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgekd.cli.options import store_of, store_option
from edgekd.profiles import available, load_profile
from edgekd.settings.profile import Profile


@click.command(name="profiles")
@click.argument("name", required=False)
@click.option("--schema", is_flag=True, help="Print the JSON schema of a profile, for editors.")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, schema: bool, cache_dir: Path | None, as_json: bool) -> None:
    """List the profiles, added devices among them, or show NAME (a profile or a YAML file) with all its defaults."""
    if schema:
        click.echo(json.dumps(Profile.model_json_schema(), indent=1))
        return
    store = store_of(cache_dir)
    if name is not None:
        content = load_profile(name, store).model_dump(mode="json")
        if as_json:
            click.echo(json.dumps(content))
            return
        import yaml

        click.echo(yaml.safe_dump(content, sort_keys=False).rstrip())
        return
    loaded = {key: load_profile(key, store) for key in available(store)}
    if as_json:
        click.echo(json.dumps({key: profile.description for key, profile in loaded.items()}))
        return
    width, probed = max(map(len, loaded)), store.device_names()
    for key, profile in loaded.items():
        device = profile.target.device
        elsewhere = "" if device in ("local", *probed) else "  [elsewhere: needs a probe]"
        click.echo(f"{key:<{width}}  {profile.description.strip()}{elsewhere}")
