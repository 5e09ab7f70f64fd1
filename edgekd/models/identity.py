"""Which model a folder holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

_FILES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt",
)  # fmt: skip


def folder_id(folder: Path) -> str:
    """Identity of a model folder: the SHA-256 of its configuration, weights and whatever makes its tokenizer."""
    digest = hashlib.sha256()
    weights = (*folder.glob("*.safetensors"), *folder.glob("*.model"))
    for path in sorted([*weights, *(folder / name for name in _FILES)]):
        if path.is_file():
            digest.update(path.name.encode())
            with path.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:24]


def card_license(folder: Path) -> str | None:
    """The licence that a model's own card (README.md) names, None where it has none or cannot be read."""
    from huggingface_hub import ModelCard

    file = folder / "README.md"
    if not file.is_file():
        return None
    try:
        found = ModelCard.load(file, ignore_metadata_errors=True).data.license
    except (OSError, ValueError, TypeError):
        return None
    return found if isinstance(found, str) else None
