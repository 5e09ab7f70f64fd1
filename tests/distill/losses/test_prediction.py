import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from edgekd.distill.losses.prediction import distillation_loss, hard_loss, kl_divergence, logit_mse
from edgekd.distill.losses.spec import KL, LogitMSE


@pytest.fixture
def logits():
    rng = np.random.default_rng(0)
    return 3 * rng.standard_normal((7, 5)), 3 * rng.standard_normal((7, 5))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.5])
def test_kl_equals_scipy(logits, temperature):
    teacher, student = logits
    p, q = softmax(teacher / temperature, axis=1), softmax(student / temperature, axis=1)
    expected = temperature**2 * np.mean([entropy(a, b) for a, b in zip(p, q, strict=True)])
    found = kl_divergence(torch.tensor(teacher), torch.tensor(student), temperature)
    assert float(found) == pytest.approx(expected, abs=1e-9)


def test_kl_of_equals_is_zero(logits):
    teacher = torch.tensor(logits[0])
    assert float(kl_divergence(teacher, teacher, 2.0)) == pytest.approx(0.0, abs=1e-12)


def test_mse_by_hand():
    assert float(logit_mse(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]]))) == pytest.approx((4 + 9) / 2)


def test_spec_chooses_the_loss(logits):
    teacher, student = (torch.tensor(x, dtype=torch.float32) for x in logits)
    assert distillation_loss(LogitMSE(), teacher, student) == logit_mse(teacher, student)
    assert distillation_loss(KL(temperature=3), teacher, student) == kl_divergence(teacher, student, 3)


def test_hard_loss_ignores_rows_without_label():
    rows = torch.tensor([[2.0, 0.0], [0.0, 9.0]], requires_grad=True)
    labelled = hard_loss(rows, torch.tensor([0, -100]))
    assert float(labelled) == pytest.approx(float(np.log(1 + np.exp(-2.0))), abs=1e-6)
    nothing = hard_loss(rows, torch.tensor([-100, -100]))
    nothing.backward()
    assert float(nothing) == 0.0
    assert bool((rows.grad == 0).all())
