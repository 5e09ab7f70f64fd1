"""Texts that are changed anew at every step, for teacher and student alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AutoTokenizer

from edgekd.errors import UsageError
from edgekd.models.quiet import quiet_transformers
from edgekd.models.teacher import Encoder
from edgekd.models.tokenizer import one_line
from edgekd.settings.distill import TokenChange


@dataclass(frozen=True)
class Augmentation:
    """Changes token ids; each token keeps its place, so a word's first piece stays where its label is.

    Attributes:
        spec: What is changed.
        special: Ids that are never changed.
        mask: Id that hides a token; None where the spec hides none.
    """

    spec: TokenChange
    special: tuple[int, ...]
    mask: int | None = None

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Draw from torch's global generator, which the loop seeds at every step.

        Args:
            ids: (B, L).
            mask: (B, L), nonzero at tokens.

        Returns:
            The changed ids, (B, L), on their device.
        """
        device, ids = ids.device, ids.cpu()
        words = mask.cpu().bool() & ~torch.isin(ids, torch.tensor(self.special, dtype=ids.dtype))
        chosen = draw_share(words, self.spec.ratio)
        count = int(chosen.sum())
        changed = ids.clone()
        if self.mask is not None:
            changed[chosen] = self.mask
        elif count:
            pool = ids[words]
            changed[chosen] = pool[torch.randint(len(pool), (count,))]
        return changed.to(device)


def draw_share(words: Tensor, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw a share of each text's tokens, at least one of a text that has any.

    Args:
        words: (B, L), true where a token may be drawn.
        ratio: The share.
        generator: Draws; None is torch's global one.

    Returns:
        (B, L), true at what was drawn.
    """
    count = words.sum(dim=1, keepdim=True)
    wanted = (count * ratio).round().clamp_min(1).minimum(count)
    order = torch.rand(words.shape, generator=generator).masked_fill(~words, -1.0).argsort(dim=1, descending=True)
    return order.argsort(dim=1) < wanted


def augmentation(spec: TokenChange | None, teacher: Encoder) -> Augmentation | None:
    """Fit a stage's changes to the teacher's tokenizer; None where it asks for none.

    Raises:
        UsageError: The tokenizer has no mask token, or its special tokens cannot be read.
    """
    if spec is None:
        return None
    field = f"distill on_the_fly {spec.name}: {teacher.folder}"
    try:
        with quiet_transformers():
            named = AutoTokenizer.from_pretrained(teacher.folder, local_files_only=True)
    except Exception as error:  # the Rust library raises bare Exception
        raise UsageError(f"{field}: its tokenizer cannot be read: {one_line(error)}") from error
    # By the names: transformers gives a new id to a token that the vocabulary lacks.
    known = teacher.tokenizer.token_to_id
    special = tuple(i for token in named.all_special_tokens if (i := known(token)) is not None)
    if spec.name != "mask_tokens":
        return Augmentation(spec, special)
    mask = None if named.mask_token is None else known(named.mask_token)
    if mask is None:
        raise UsageError(f"{field}: its tokenizer has no mask token; take swap_tokens")
    return Augmentation(spec, special, mask)
