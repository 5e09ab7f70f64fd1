"""The tokenizer of a model's folder, as transformers makes it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from textwrap import shorten
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedModel

from edgekd.errors import UsageError
from edgekd.models.quiet import quiet_transformers
from edgekd.reading import read_json
from edgekd.runtime.tokenise import cut_at, cut_side


def folder_tokenizer(path: Path, trust_remote_code: bool = False) -> Tokenizer:
    """The tokenizer that transformers makes of the folder: its settings count beside tokenizer.json.

    A folder that transformers cannot make one of is read by its tokenizer.json alone.
    """
    file = path / "tokenizer.json"
    try:
        with quiet_transformers():
            made = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
        # From a folder without a vocabulary transformers makes a tokenizer that knows nothing.
        if not made.is_fast or len(made) <= len(made.all_special_tokens):
            raise ValueError("no vocabulary that makes a fast tokenizer")
        if getattr(made, "split_special_tokens", False):
            raise UsageError(
                f"{path / 'tokenizer_config.json'}: split_special_tokens is kept in no tokenizer.json: set it to false"
            )
        content = _without_made_up(json.loads(made.backend_tokenizer.to_str()), path)
        if "token_type_ids" not in made.model_input_names:
            content["post_processor"] = _of_one_type(content["post_processor"])
        return cut_at(Tokenizer.from_str(json.dumps(content)), made.truncation_side)
    except UsageError:
        raise
    except Exception as error:  # the Rust library raises bare Exception
        why = one_line(error)
    if not file.is_file():
        raise UsageError(f"{path}: no tokenizer.json, and none can be made{_missing(path, why)}")
    try:
        tokenizer, side = Tokenizer.from_file(str(file)), path / "tokenizer_config.json"
        settings = read_settings(side) if side.is_file() else {}
        return cut_at(tokenizer, settings.get("truncation_side") or cut_side(tokenizer))
    except Exception as error:
        raise UsageError(
            f"{path}: tokenizer.json is broken ({one_line(error)}): save the fast tokenizer again"
        ) from error


def _without_made_up(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """A tokenizer less the special tokens that transformers adds by their usual names and the model has no row for."""
    config = path / "config.json"
    rows = read_settings(config).get("vocab_size") if config.is_file() else None
    if isinstance(rows, int):
        kept = [token for token in content["added_tokens"] if token["id"] < rows or not token["special"]]
        content = content | {"added_tokens": kept}
    return content


def _of_one_type(processor: Any) -> Any:
    """What adds special tokens, for models that transformers gives no token types: the second text's are 0 as well."""
    if isinstance(processor, list):
        return [_of_one_type(part) for part in processor]
    if not isinstance(processor, dict):
        return processor
    if processor.get("type") == "BertProcessing":
        cls, sep = processor["cls"][0], processor["sep"][0]
        known = [tuple(processor["cls"]), tuple(processor["sep"])]
        made = TemplateProcessing(single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B {sep}", special_tokens=known)
        parsed: Any = json.loads(made.__getstate__())
        return parsed
    return {name: 0 if name == "type_id" else _of_one_type(part) for name, part in processor.items()}


def _missing(path: Path, why: str) -> str:
    """What a folder lacks for a fast tokenizer, and what helps."""
    if list(path.glob("*.model")) and importlib.util.find_spec("sentencepiece") is None:
        name = next(path.glob("*.model")).name
        return f" of {name} without sentencepiece: pip install sentencepiece, or save the fast tokenizer there"
    return f" ({why}): save the model's fast tokenizer there"


def require_rows(path: Path, tokenizer: Tokenizer, model: PreTrainedModel) -> None:
    """Refuse a tokenizer that gives ids which the model has no embedding for."""
    rows, ids = len(model.get_input_embeddings().weight), tokenizer.get_vocab().values()
    highest = max(ids, default=-1)
    if highest >= rows:
        raise UsageError(
            f"{path}: the tokenizer gives ids up to {highest}, the model has {rows} word embeddings: "
            "they do not belong together"
        )


def read_settings(file: Path) -> dict[str, Any]:
    """A JSON file of a model's folder that holds an object.

    Raises:
        UsageError: It holds something else, or cannot be read.
    """
    content = read_json(file, "save the model again with save_pretrained")
    if not isinstance(content, dict):
        raise UsageError(f"{file} must hold a JSON object, not {type(content).__name__}")
    return content


def one_line(error: Exception) -> str:
    """A library's error as a part of one of ours."""
    return shorten(str(error) or type(error).__name__, width=200, placeholder="...")
