"""Models that make text, from local folders only: safetensors, no code of their own, no network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from edgekd.errors import UnavailableError, UsageError
from edgekd.models.quiet import quiet_transformers
from edgekd.models.teacher import load_weights
from edgekd.models.tokenizer import one_line


def load_model(kind: Any, folder: str, flag: str, device: str) -> tuple[Any, Any]:
    """A model in eval mode, float32, and its tokenizer.

    Args:
        kind: The transformers class that loads it, such as `AutoModelForMaskedLM`.
        flag: What named the folder, to begin messages with.
        device: Where it will run.

    Raises:
        UsageError: The folder does not hold such a model whole, or holds it as pickle.
        UnavailableError: Its tokenizer needs a library that is not installed.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UsageError(f"{flag}: {folder}: there is no such folder; download the model and name its folder")
    if not (path / "config.json").is_file():
        raise UsageError(f"{flag}: {path} has no config.json: name a folder written by save_pretrained")
    if not any(path.glob("*.safetensors")):
        raise UsageError(
            f"{flag}: {path} holds no model.safetensors (pickled weights can run code when read): "
            "load it once where you trust it and write it with save_pretrained"
        )
    tokenizer = _tokenizer(path, flag)
    try:
        model, lost = load_weights(kind, path, False, use_safetensors=True)
    except UsageError as error:
        raise UsageError(f"{flag}: {error}") from error
    if lost:
        raise UsageError(f"{flag}: {path}: the weights have no fitting {lost[0]}: this is no {kind.__name__}")
    if (highest := max(tokenizer.get_vocab().values())) >= (rows := model.get_input_embeddings().num_embeddings):
        raise UsageError(
            f"{flag}: {path}: the tokenizer gives ids up to {highest}, the model has {rows} word embeddings"
        )
    return model.to(torch.device(device)), tokenizer


def _tokenizer(path: Path, flag: str) -> Any:
    if any(path.glob("*.spm")) and not (path / "tokenizer.json").is_file() and find_spec("sentencepiece") is None:
        raise UnavailableError(f"{flag}: sentencepiece is needed to read {path}: pip install sentencepiece")
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the Rust library raises bare Exception
        raise UsageError(f"{flag}: {path}: the tokenizer cannot be loaded: {one_line(error)}") from error
    # From a folder without a vocabulary transformers makes a tokenizer that knows nothing.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UsageError(f"{flag}: {path} holds no vocabulary: save the model's tokenizer there")
    return tokenizer
