"""The local folder of a model, wherever it was named."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from edgekd.errors import UnavailableError, UsageError
from edgekd.models.quiet import quiet_transformers
from edgekd.settings.request import is_hub_id


def model_folder(folder: str | Path, trust_remote_code: bool = False) -> Path:
    """The local folder of a model, fetched from the hub if it is an id and no folder.

    Args:
        folder: A folder, or, as a string, a hub id such as "org/name".

    Raises:
        UsageError: There is no such folder, and it is no hub id of a model.
        UnavailableError: A hub id, and the hub cannot be reached.
    """
    name = str(folder)
    path = Path(folder)
    if not name.strip():
        raise UsageError("the model's folder is empty: name a folder, or a hub id such as org/name")
    if path.is_dir():
        return _readable(path)
    if path.exists():
        raise UsageError(f"{path} is a file: name the folder that holds config.json and the weights")
    if not isinstance(folder, str) or not is_hub_id(name):
        raise UsageError(f"{path}: there is no such folder")
    return _fetch(name, trust_remote_code)


def _readable(path: Path) -> Path:
    """The folder of a model, once it is known that this is the one, and that its files may be read."""
    if not any(path.iterdir()):
        raise UsageError(f"{path} is empty: name the folder that holds config.json and the weights")
    if not (path / "config.json").is_file():
        inside = next((file.parent for file in sorted(path.glob("*/config.json"))), None)
        mend = f"{inside} has one" if inside else "name a folder written by save_pretrained"
        raise UsageError(f"{path} has no config.json: {mend}")
    for file in path.iterdir():
        if file.suffix in (".json", ".safetensors", ".txt", ".model") and not os.access(file, os.R_OK):
            raise UsageError(f"{file}: no permission to read it")
    return path


def _fetch(name: str, trust_remote_code: bool) -> Path:
    # Weights in other formats are left out, code is taken only if it may run.
    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "README.md"] + (["*.py"] if trust_remote_code else [])
    try:
        with quiet_transformers():
            return Path(snapshot_download(name, allow_patterns=patterns))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise UsageError(f"{name}: neither a folder, nor a model on the hub that you may read") from error
    except (HfHubHTTPError, OSError) as error:
        raise UnavailableError(
            f"{name}: there is no such folder, and the hub cannot be reached: pass a local folder"
        ) from error
