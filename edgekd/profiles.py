"""Profiles and requests on disk: shipped ones, those of added devices, and the user's YAML files."""

from __future__ import annotations

from pathlib import Path

import yaml

from edgekd.errors import UsageError
from edgekd.reading import read_yaml
from edgekd.resources import resource
from edgekd.settings.base import hint, validated
from edgekd.settings.profile import Profile, parse
from edgekd.settings.request import Request
from edgekd.store import Store, default_root


def available(store: Store | None = None) -> dict[str, Path]:
    """Name and file of every shipped profile, and of every device added to `store` (None: at its usual place)."""
    store = store or Store(default_root())
    devices = {name: store.device_folder(name) / "profile.yaml" for name in store.device_names()}
    return {path.stem: path for path in sorted(resource("profiles").glob("*.yaml"))} | devices


def load_profile(name: str, store: Store | None = None) -> Profile:
    """Load a shipped profile or that of an added device by name, or a YAML file by path.

    Args:
        name: Name or path.
        store: Where devices were added; None is the usual place.

    Raises:
        UsageError: No such profile ("did you mean"), not YAML, or a field is wrong.
    """
    known = available(store)
    path = known.get(name) or Path(name)
    if not path.is_file():
        raise UsageError(f"--profile {name or repr(name)}: no such profile or file; {hint(name, known)}")
    content = read_yaml(path)
    if isinstance(content.get("profile"), dict):
        raise UsageError(f"--profile {name}: this is a whole request; run it with `edgekd compress -c {name}`")
    return parse(content, source=str(path.name))


def load_request(path: Path) -> Request:
    """Read an `edgekd.yaml`.

    Raises:
        UsageError: Missing, not YAML, or a field is wrong.
    """
    if not path.is_file():
        raise UsageError(f"-c {path}: no such file")
    return validated(Request, read_yaml(path), str(path))


def save_request(request: Request, path: Path) -> None:
    """Write a request as YAML."""
    content = yaml.safe_dump(request.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    path.write_text("# edgekd compress -c edgekd.yaml makes this bundle again\n" + content, encoding="utf-8")
