"""A model's logit rows over a whole split."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from edgekd.distill.batches import inputs_of, logit_rows
from edgekd.distill.engine import Engine
from edgekd.runtime.encodings import Encodings
from edgekd.store import replacing

# Batches between two parts saved: an interrupted labelling loses at most this much.
_PART = 64


@torch.inference_mode()
def predict_rows(
    model: nn.Module,
    encodings: Encodings,
    engine: Engine,
    *,
    batch_size: int = 64,
    title: str | None = None,
    parts: Path | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> np.ndarray:
    """Compute the logits of every row of a split.

    Args:
        model: Any model whose output has `.logits`; left in the mode it was in.
        batch_size: Texts a batch; texts are taken in the order of their lengths, so padding is nearly none.
        title: Title of the progress bar; None shows none.
        parts: Folder for finished parts, so that an interrupted call goes on where it was.
        precision: Of the model's products; the logits are kept in FP32.

    Returns:
        float32 array (rows, labels), in the order of the split.
    """
    was_training = model.training
    model.eval()
    engine.to_device(model)
    device = torch.device(engine.device)
    order = np.argsort(encodings.lengths, kind="stable")
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    pieces: list[np.ndarray] = []
    with engine.progress.bar(title or "", len(batches) if title else 0) as bar:
        for start in range(0, len(batches), _PART):
            path = parts / f"part-{start:06d}.npy" if parts is not None else None
            if path is not None and path.is_file():
                pieces.append(np.load(path, allow_pickle=False))
            else:
                part = []
                for i, indices in enumerate(batches[start : start + _PART], start):
                    with engine.autocast(precision):
                        output = model(**inputs_of(encodings, indices, device))
                    part.append(logit_rows(encodings, indices, output.logits).float().cpu().numpy())
                    bar.update(i + 1)
                pieces.append(np.concatenate(part))
                if path is not None:
                    _save(path, pieces[-1])
            bar.update(min(start + _PART, len(batches)))
    model.train(was_training)
    rows = np.concatenate(pieces)
    ordered = np.empty_like(rows)
    ordered[np.concatenate([encodings.row_slots(b) for b in batches])] = rows
    return ordered


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
