"""A head that is a logistic regression on the features of a model that stays as it is."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekd.distill import linear_probe
from edgekd.distill.linear_probe import regression, start_head
from edgekd.runtime.encodings import Encodings

LABELS = 3


class Toy(nn.Module):
    """Mean embedding, dropout, linear."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.embedding, self.dropout, self.output = nn.Embedding(30, 8), nn.Dropout(0.5), nn.Linear(8, LABELS)

    def forward(self, input_ids, attention_mask):
        states = self.embedding(input_ids) * attention_mask[..., None]
        return self.output(self.dropout(states.sum(1) / attention_mask.sum(1, keepdim=True)))


def texts(count, seed):
    """Texts of unlike length whose class is that of most of their words."""
    rng = np.random.default_rng(seed)
    classes, lengths = np.arange(count) % LABELS, rng.integers(2, 9, count)
    words = [10 * c + rng.integers(0, 10, n) for c, n in zip(classes, lengths, strict=True)]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Encodings(np.concatenate(words).astype(np.int32), offsets), torch.from_numpy(classes)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("strength", [0.5, 10.0])
def test_the_regression_is_where_its_loss_is_flat(soft, strength):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=generator)
    y = torch.randint(LABELS, (40,), generator=generator)
    if soft:
        y = torch.softmax(torch.randn(40, LABELS, generator=generator), -1)
    weight, bias = (part.requires_grad_() for part in regression(x, y, LABELS, strength))
    loss = F.cross_entropy(x @ weight.T + bias, y, reduction="sum") + weight.square().sum() / (2 * strength)
    loss.backward()
    assert float(weight.grad.abs().max()) < 2e-2
    assert float(bias.grad.abs().max()) < 2e-2
    assert float(weight.detach().abs().max()) > 0.05


def test_a_weaker_penalty_leaves_larger_weights():
    x, y = torch.eye(6), torch.arange(6) % LABELS
    sizes = [float(regression(x, y, LABELS, strength)[0].norm()) for strength in (0.1, 1.0, 10.0)]
    assert sizes == sorted(sizes)


def test_the_head_answers_and_nothing_else_moves(engine):
    model = Toy().train()
    before = model.embedding.weight.clone()
    (mine, labels), (theirs, gold) = texts(60, 0), texts(30, 1)
    start_head(model, mine, labels, engine, seed=0)
    assert torch.equal(model.embedding.weight, before)
    assert model.training
    assert accuracy(model, theirs, gold) > 0.8
    assert not model.output._forward_pre_hooks


def accuracy(model, encodings, gold):
    model.eval()
    answers = []
    for start, end in zip(encodings.offsets, encodings.offsets[1:], strict=False):
        ids = torch.from_numpy(encodings.input_ids[start:end].astype(np.int64))[None]
        answers.append(int(model(ids, torch.ones_like(ids)).argmax()))
    return float((torch.tensor(answers) == gold).float().mean())


def test_of_many_texts_some_are_read(engine, monkeypatch):
    (mine, labels), (theirs, gold) = texts(60, 0), texts(30, 1)
    monkeypatch.setattr(linear_probe, "MOST", 12)
    counted = []
    monkeypatch.setattr(linear_probe, "regression", lambda x, *rest: counted.append(len(x)) or regression(x, *rest))
    model = Toy()
    start_head(model, mine, labels, engine, seed=0)
    assert counted == [12]
    assert accuracy(model, theirs, gold) > 0.4


def test_features_that_lie_close_together_are_told_apart(engine):
    (mine, labels), (theirs, gold) = texts(60, 0), texts(30, 1)
    model = Toy()
    with torch.no_grad():
        model.embedding.weight.mul_(1e-4).add_(3.0)
    start_head(model, mine, labels, engine, seed=0)
    assert accuracy(model, theirs, gold) > 0.8


def test_probabilities_are_learned_as_they_are(engine):
    mine, labels = texts(60, 0)
    sure, unsure = Toy(), Toy()
    start_head(sure, mine, labels, engine, seed=0)
    start_head(unsure, mine, 0.2 + 0.4 * F.one_hot(labels, LABELS), engine, seed=0)
    assert float(unsure.output.weight.norm()) < float(sure.output.weight.norm())
