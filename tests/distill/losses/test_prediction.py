import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from scipy.stats import entropy, pearsonr

from edgekd.distill.losses.prediction import (
    binary_kl,
    check_prediction,
    dist,
    distillation_loss,
    hard_loss,
    kl_divergence,
    logit_mse,
    soft_cross_entropy,
)
from edgekd.errors import UsageError
from edgekd.runtime.encodings import MASKED
from edgekd.settings.losses import KL, Dist, HardCE, HiddenStates, LogitMSE, SoftCE


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
    assert distillation_loss(SoftCE(temperature=3), teacher, student) == soft_cross_entropy(teacher, student, 3)
    spec = Dist(temperature=3, between=2, within=0.5)
    assert distillation_loss(spec, teacher, student) == dist(teacher, student, 3, 2, 0.5)


@pytest.mark.parametrize("spec", [HiddenStates(name="pkd"), HardCE()])
def test_a_loss_on_something_else_is_refused(logits, spec):
    with pytest.raises(UsageError, match=f"distill loss: {spec.name}"):
        distillation_loss(spec, torch.tensor(logits[0]), torch.tensor(logits[1]))


@pytest.mark.parametrize("spec", [KL(), SoftCE(), LogitMSE(), Dist()])
def test_bf16_rows_are_computed_in_fp32(logits, spec):
    teacher, student = (torch.tensor(x).bfloat16() for x in logits)
    found = distillation_loss(spec, teacher, student)
    assert found.dtype == torch.float32
    assert found == distillation_loss(spec, teacher.float(), student.float())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_ce_equals_scipy_and_has_the_gradient_of_kl(logits, temperature):
    teacher, student = logits
    guess = log_softmax(student / temperature, axis=1)
    expected = -(temperature**2) * (softmax(teacher / temperature, axis=1) * guess).sum(1).mean()
    rows = [torch.tensor(student, requires_grad=True) for _ in range(2)]
    found = soft_cross_entropy(torch.tensor(teacher), rows[0], temperature)
    found.backward()
    kl_divergence(torch.tensor(teacher), rows[1], temperature).backward()
    assert found.item() == pytest.approx(expected, abs=1e-9)
    assert rows[0].grad.numpy() == pytest.approx(rows[1].grad.numpy(), abs=1e-12)


@pytest.mark.parametrize(("between", "within"), [(1.0, 0.0), (0.0, 1.0), (2.0, 0.5)])
def test_dist_equals_scipy(logits, between, within):
    p, q = (softmax(x / 1.5, axis=1) for x in logits)
    rows = np.mean([1 - pearsonr(a, b).statistic for a, b in zip(p, q, strict=True)])
    columns = np.mean([1 - pearsonr(a, b).statistic for a, b in zip(p.T, q.T, strict=True)])
    found = dist(*map(torch.tensor, logits), 1.5, between, within)
    assert float(found) == pytest.approx(between * rows + within * columns, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 4])
def test_dist_has_a_finite_gradient_where_nothing_varies(rows):
    student = torch.zeros(rows, 3, requires_grad=True)
    dist(torch.randn(rows, 3, generator=torch.Generator().manual_seed(0)), student, 1.0, 1.0, 1.0).backward()
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize("spec", [KL(), SoftCE(), Dist()])
def test_softmax_losses_are_refused_on_one_logit(spec):
    with pytest.raises(UsageError, match=f"distill loss: {spec.name} .* use mse"):
        check_prediction(spec, 1)
    check_prediction(spec, 2)


def test_mse_suits_one_logit():
    check_prediction(LogitMSE(), 1)
    rows = torch.tensor([[1.0], [3.0]])
    assert distillation_loss(LogitMSE(), rows, rows + 2).item() == pytest.approx(4.0)


def test_hard_loss_ignores_rows_without_label():
    rows = torch.tensor([[2.0, 0.0], [0.0, 9.0]], requires_grad=True)
    labelled = hard_loss(rows, torch.tensor([0, -100]))
    assert labelled.item() == pytest.approx(float(np.log(1 + np.exp(-2.0))), abs=1e-6)
    nothing = hard_loss(rows, torch.tensor([-100, -100]))
    nothing.backward()
    assert nothing.item() == 0.0
    assert bool((rows.grad == 0).all())


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_binary_kl_equals_scipy(logits, temperature):
    teacher, student = logits
    p, q = (expit(x / temperature) for x in (teacher, student))
    both = (np.stack([p, 1 - p]), np.stack([q, 1 - q]))
    found = binary_kl(torch.tensor(teacher), torch.tensor(student), temperature)
    assert float(found) == pytest.approx(temperature**2 * entropy(*both).mean(), abs=1e-9)
    assert float(binary_kl(torch.tensor(teacher), torch.tensor(teacher), temperature)) == pytest.approx(0, abs=1e-12)


def test_labels_one_by_one_do_not_compete():
    """Raising all logits together changes every Bernoulli, and no softmax."""
    teacher = torch.tensor([[1.0, -2.0, 0.5]])
    assert float(distillation_loss(KL(), teacher, teacher + 3)) == pytest.approx(0.0, abs=1e-6)
    assert float(distillation_loss(KL(), teacher, teacher + 3, "flags")) > 0.1
    soft = distillation_loss(SoftCE(temperature=1), teacher, teacher + 3, "flags")
    p, q = expit([1.0, -2.0, 0.5]), expit([4.0, 1.0, 3.5])
    assert float(soft) == pytest.approx(-np.mean(p * np.log(q) + (1 - p) * np.log(1 - q)), rel=1e-5)


@pytest.mark.parametrize("spec", [KL(), SoftCE()])
def test_a_value_is_a_normal_distribution(spec):
    check_prediction(spec, 1, "value")
    found = distillation_loss(spec, torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.0]]), "value")
    assert float(found) == pytest.approx(0.5 * (4 + 0) / 2)


@pytest.mark.parametrize("output", ["flags", "value"])
def test_dist_is_for_classes(output):
    with pytest.raises(UsageError, match="use kl or mse"):
        check_prediction(Dist(), 3, output)


def test_hard_loss_of_numbers_skips_rows_without_any():
    rows = torch.tensor([[0.0, 2.0], [5.0, 5.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [float("nan")] * 2])
    expected = -np.mean([np.log(0.5), np.log(1 - expit(2.0))])
    loss = hard_loss(rows, targets, "flags")
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert rows.grad[1].tolist() == [0.0, 0.0]
    assert float(hard_loss(rows, targets, "value")) == pytest.approx((1 + 4) / 2)
    assert float(hard_loss(rows, torch.full((2, 2), float("nan")), "value")) == 0.0


def joint(intents, slots):
    """Rows of one text: its intent's, then its words'."""
    whole = torch.nn.functional.pad(torch.tensor([intents]), (0, len(slots[0])), value=MASKED)
    return torch.cat([whole, torch.nn.functional.pad(torch.tensor(slots), (len(intents), 0), value=MASKED)])


@pytest.mark.parametrize("spec", [KL(), SoftCE(), LogitMSE(), Dist()])
def test_a_joint_loss_is_that_of_intents_and_that_of_slots(spec):
    teacher = [1.0, 0.0], [[0.0, 2.0, 1.0], [1.0, -1.0, 0.5]]
    student = [0.5, 0.0], [[0.0, 1.0, 3.0], [1.0, 0.0, 0.0]]
    apart = [
        distillation_loss(spec, torch.tensor(a), torch.tensor(b))
        for a, b in (([teacher[0]], [student[0]]), (teacher[1], student[1]))
    ]
    found = distillation_loss(spec, joint(*teacher), joint(*student), "joint")
    assert float(found) == pytest.approx(float(sum(apart)), rel=1e-5)
    rounded = joint(*student).masked_fill(joint(*student) == MASKED, 1.01 * MASKED)  # as in BF16
    assert float(distillation_loss(spec, joint(*teacher), rounded, "joint")) == pytest.approx(float(found), rel=1e-5)


def test_a_joint_hard_loss_weighs_intent_and_slots_the_same():
    rows = joint([0.0, 0.0], [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    apart = hard_loss(torch.zeros(1, 2), torch.tensor([1])), hard_loss(rows[1:, 2:], torch.tensor([0, -100]))
    assert float(hard_loss(rows, torch.tensor([1, 2, -100]), "joint")) == pytest.approx(float(sum(apart)), rel=1e-5)
    assert float(hard_loss(rows[:1], torch.tensor([1]), "joint")) == pytest.approx(float(apart[0]), rel=1e-5)
