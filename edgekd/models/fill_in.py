"""Encoders under a masked-language-model head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel

from edgekd.errors import UsageError
from edgekd.models.quiet import quiet_transformers
from edgekd.models.teacher import load_weights
from edgekd.models.tokenizer import one_line


@dataclass(frozen=True, eq=False)
class FillIn:
    """An encoder under a masked-language-model head.

    Attributes:
        model: In eval mode, float32, on the CPU.
        new_head: The checkpoint had none: the head is new, but for its last layer, which is the word embedding.
        mask: Id of the token that hides another.
        special: Ids of tokens that are no part of a text.
        vocabulary: Ids of the tokenizer are below this.
    """

    model: PreTrainedModel
    new_head: bool
    mask: int
    special: tuple[int, ...]
    vocabulary: int


def load_masked_lm(folder: Path) -> FillIn:
    """Load an encoder with its masked-language-model head, or a new one drawn from torch's global generator.

    Raises:
        UsageError: The folder is no encoder that can have one, or its tokenizer has no mask.
    """
    model, lost = load_weights(AutoModelForMaskedLM, folder, False, use_safetensors=True)
    inside = [name for name in lost if name.startswith(f"{model.base_model_prefix}.")]
    if inside:
        raise UsageError(f"{folder}: the weights have no fitting {inside[0]}: save the encoder with save_pretrained")
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the Rust library raises bare Exception
        raise UsageError(f"{folder}: its tokenizer cannot be read: {one_line(error)}") from error
    if tokenizer.mask_token_id is None:
        raise UsageError(f"{folder}: its tokenizer has no mask token, which teach.adapt mlm needs: take adapt none")
    return FillIn(model, bool(lost), tokenizer.mask_token_id, tuple(tokenizer.all_special_ids), len(tokenizer))
