"""Which texts are trained on together, and where their logit rows are."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from edgekd.runtime.encodings import Encodings

# Texts are sorted by length inside pools of this many batches: long enough that a batch holds texts of like
# length (little padding), short enough that the order stays random.
_POOL = 64


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Split all texts into batches of like length, in an order that (seed, epoch) alone decides.

    Args:
        lengths: Tokens of each text, (n,).
        batch_size: Texts a batch; the last one may be smaller, but a single text left over joins another batch:
            some losses tell a text from the others of its batch.
        epoch: 0-based epoch.

    Returns:
        Index arrays that together hold every text once.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), batch_size * _POOL):
        pool = order[start : start + batch_size * _POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] = np.concatenate([batches[-1], last])
    return [batches[i] for i in rng.permutation(len(batches))]


def count_batches(texts: int, batch_size: int) -> int:
    """How many batches `epoch_batches` makes of so many texts."""
    whole, left = divmod(texts, batch_size)
    return max(1, whole + (left > 1))


def inputs_of(encodings: Encodings, indices: np.ndarray, device: torch.device) -> dict[str, Tensor]:
    """The model's inputs for these texts, padded to their longest, on `device`."""
    batch = encodings.batch(indices)
    return {name: torch.from_numpy(array).to(device) for name, array in batch.items()}


def logit_rows(encodings: Encodings, indices: np.ndarray, logits: Tensor) -> Tensor:
    """Pick the rows (n, labels) of these texts from a batch's logits.

    Args:
        encodings: The split that the batch was made from.
        indices: Its texts, in the batch's order.
        logits: (batch, labels), or (batch, length, labels) where each word has a row at its first piece.
    """
    if logits.dim() == 2:
        return logits
    texts, places = encodings.row_index(indices)
    return logits[torch.from_numpy(texts).to(logits.device), torch.from_numpy(places).to(logits.device)]


def fingerprint(encodings: Encodings) -> str:
    """Identity of what a model sees of a split: token ids and where the rows are."""
    digest = hashlib.sha256()
    arrays = (encodings.input_ids, encodings.offsets, encodings.token_type_ids, encodings.answer_positions)
    for array in (*arrays, encodings.answer_offsets):
        digest.update(b"none" if array is None else np.ascontiguousarray(array).data)
    return digest.hexdigest()
