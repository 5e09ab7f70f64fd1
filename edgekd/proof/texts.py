"""The texts that latency is judged on: of the greatest length, or the user's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from edgekd.data.split import Split
from edgekd.latency.timer import Text
from edgekd.runtime.tokenise import cut_at, cut_side

# Texts that a latency measurement cycles over.
_TEXTS = 64


def replay_texts(split: Split, seed: int = 0) -> tuple[Text, ...]:
    """Real texts at their own lengths, a seeded sample."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(split))[:_TEXTS]
    if split.pairs is not None:
        return tuple((split.texts[i], split.pairs[i]) for i in chosen)
    return tuple(split.texts[i] for i in chosen)


def fixed_texts(tokenizer: Tokenizer, split: Split, length: int, seed: int = 0) -> tuple[Text, ...]:
    """Texts of exactly `length` tokens, special tokens included, made by joining real ones.

    Args:
        length: Tokens wanted.
    """
    cut_at(tokenizer, cut_side(tokenizer))  # by the texts' own ends alone
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(split))
    pair = split.pairs is not None
    wanted = length - tokenizer.num_special_tokens_to_add(pair)
    sizes = [wanted - wanted // 2, wanted // 2] if pair else [wanted]
    made: list[Text] = []
    position = 0
    for _ in range(min(_TEXTS, max(8, len(split)))):
        parts = []
        for size in sizes:
            text, position = _join(tokenizer, split.texts, order, position, size)
            parts.append(text)
        made.append((parts[0], parts[1]) if pair else parts[0])
    return tuple(made)


def _join(tokenizer: Tokenizer, texts: Sequence[str], order: np.ndarray, position: int, size: int) -> tuple[str, int]:
    """Join texts from `position` on until they hold `size` tokens, and cut after the last of them."""
    joined = ""
    for _ in range(size + 1):
        joined = f"{joined} {texts[order[position % len(order)]]}".strip()
        position += 1
        encoding = tokenizer.encode(joined, add_special_tokens=False)
        if len(encoding.ids) >= size:
            return joined[: encoding.offsets[size - 1][1]], position
    return joined, position  # texts that give no token at all
