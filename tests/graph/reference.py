"""A student in plain torch operations, written apart from the package: what the graphs are held against."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": torch.relu,
    "tanh": torch.tanh,
}


def forward(shape, weights, input_ids, attention_mask, token_type_ids=None):
    """Output of the student in float64, (batch, ...)."""
    w = {name: torch.from_numpy(np.asarray(value)).double() for name, value in weights.items()}
    ids, mask = torch.from_numpy(input_ids), torch.from_numpy(attention_mask).bool()

    def linear(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], shape.norm_eps)

    x = w["embeddings.word.weight"][ids] + w["embeddings.position.weight"][: ids.shape[1]]
    if shape.token_types:
        x = x + w["embeddings.token_type.weight"][torch.from_numpy(token_type_ids)]
    x = norm("embeddings.norm", x)
    if shape.embedding != shape.hidden:
        x = linear("embeddings.projection", x)
    for i, heads in enumerate(shape.heads):
        name = f"layers.{i}.attention"
        contexts = []
        q, k, v = (linear(f"{name}.{part}", x) for part in ("query", "key", "value"))
        for h in range(heads):
            cut = slice(h * shape.head_size, (h + 1) * shape.head_size)
            scores = torch.einsum("bid,bjd->bij", q[..., cut], k[..., cut]) / shape.head_size**0.5
            scores = scores.masked_fill(~mask[:, None, :], -torch.inf)
            contexts.append(scores.softmax(-1) @ v[..., cut])
        x = norm(f"{name}.norm", x + linear(f"{name}.output", torch.cat(contexts, -1)))
        neurons = ACTIVATIONS[shape.activation](linear(f"layers.{i}.ffn.up", x))
        x = norm(f"layers.{i}.ffn.norm", x + linear(f"layers.{i}.ffn.down", neurons))
    if shape.head is None:
        return x.numpy()
    if shape.head.pool == "mean":
        x = torch.stack([text[real].mean(0) for text, real in zip(x, mask, strict=True)])
    elif shape.head.kind == "sequence":
        x = x[:, 0]
    if shape.head.activation is not None:
        x = ACTIVATIONS[shape.head.activation](linear("head.dense", x))
    return linear("head.output", x).numpy()
