"""A task head's first weights: logistic regression on the frozen encoder's features.

Fine-tuning that begins with a random head bends the encoder towards it in its first hundred steps. One that is fitted
first, at the cost of a pass over the texts, has to bend it less, and needs a fraction of the steps (LP-FT: Kumar et al.,
"Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.engine import Engine
from edgekd.distill.predict import predict_rows
from edgekd.runtime.tokenise import Encodings

# Features are standardised; the penalty on the weights is that of a unit prior, shared by the rows.
_ITERATIONS, _PENALTY = 100, 1.0

# Rows that a head is fitted on: more say no more of so few weights.
_MOST_ROWS = 50_000


def fit_head(model: nn.Module, encodings: Encodings, targets: Tensor, engine: Engine, title: str) -> None:
    """Fit the last linear layer of a classifier to its own frozen features, in place.

    Args:
        model: A classifier whose logits come from its last linear layer.
        encodings: The labelled texts.
        targets: Class of each logit row, (rows,); negative ones are left out.
        engine: Where to compute.
        title: Of the progress bar.
    """
    name, output = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    parent = model.get_submodule(name.rpartition(".")[0])
    leaf = name.rpartition(".")[2]
    # With the layer out of the way the logits are what it is fed.
    setattr(parent, leaf, nn.Identity())
    try:
        features = torch.from_numpy(predict_rows(model, encodings, engine, title=title))
    finally:
        setattr(parent, leaf, output)
    known = targets.cpu() >= 0
    features, classes = features[known][:_MOST_ROWS], targets.cpu()[known][:_MOST_ROWS]
    weight, bias = logistic_regression(features, classes, output.out_features)
    with torch.no_grad():
        output.weight.copy_(weight)
        output.bias.copy_(bias)


def logistic_regression(features: Tensor, classes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression with a Gaussian prior on standardised features, by L-BFGS.

    Args:
        features: (n, d) float32.
        classes: (n,) int64, below `count`.
        count: Number of classes.

    Returns:
        Weights (count, d) and biases (count,) for the features as they are.
    """
    mean, spread = features.mean(dim=0), features.std(dim=0).clamp_min(1e-6)
    standard = (features - mean) / spread
    weight = torch.zeros(count, features.shape[1], requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(standard @ weight.T + bias, classes)
        loss = loss + _PENALTY * weight.square().sum() / (2 * len(standard))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        scaled = weight / spread
        return scaled, bias - scaled @ mean
