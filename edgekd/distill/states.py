"""A sample of a model's hidden states, for the PCA of a narrower width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from edgekd.distill.batches import inputs_of
from edgekd.distill.engine import Engine
from edgekd.runtime.encodings import Encodings

# States kept, over all layers.
_STATES = 20_000


@torch.inference_mode()
def sample_states(model: nn.Module, encodings: Encodings, batches: Sequence[np.ndarray], engine: Engine) -> np.ndarray:
    """A sample of hidden states of all layers and the embeddings, (n, hidden) float32.

    Args:
        model: In eval mode, on the engine's device.
        batches: Indices of texts; about eight of the batches are run.
    """
    rng = np.random.default_rng(0)
    kept = []
    for indices in batches[:: max(1, len(batches) // 8)]:
        inputs = inputs_of(encodings, indices, torch.device(engine.device))
        output = model(**inputs, output_hidden_states=True)
        real = inputs["attention_mask"].bool()
        kept.append(torch.stack([h[real] for h in output.hidden_states]).flatten(0, 1).float().cpu().numpy())
    states = np.concatenate(kept)
    return states[np.sort(rng.permutation(len(states))[:_STATES])]
