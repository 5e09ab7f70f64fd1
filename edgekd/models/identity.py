"""Which model a folder holds."""

from __future__ import annotations

import hashlib
from pathlib import Path


def folder_id(folder: Path) -> str:
    """Identity of a model folder: the SHA-256 of its configuration, weights and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), folder / "config.json", folder / "tokenizer.json"]):
        if path.is_file():
            digest.update(path.name.encode())
            with path.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:24]
