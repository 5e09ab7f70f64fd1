import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from edgekd.distill.losses.hidden import HiddenLoss
from edgekd.settings.losses import HiddenStates, LayerMapping

SPECS = [
    HiddenStates(name="hidden_mse"),
    HiddenStates(name="hidden_cosine"),
    HiddenStates(name="pkd"),
    HiddenStates(name="hidden_ce"),
]
LENGTHS = (5, 3, 1, 4)


@pytest.fixture
def mask():
    return (torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(1)).long()


def states(layers, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(len(LENGTHS), max(LENGTHS), width, generator=generator) for _ in range(layers + 1)]


def by_loop(name, teacher, student):
    """The loss of one pair, token by token, from arrays (B, S, width)."""
    values = []
    for text, length in enumerate(LENGTHS):
        for place in range(1 if name == "pkd" else length):
            t, s = teacher[text, place].astype(np.float64), student[text, place].astype(np.float64)
            t_unit, s_unit = t / np.linalg.norm(t), s / np.linalg.norm(s)
            values.append(
                {
                    "hidden_mse": ((t - s) ** 2).mean(),
                    "hidden_cosine": 1 - t_unit @ s_unit,
                    "pkd": ((t_unit - s_unit) ** 2).sum(),
                    "hidden_ce": -(softmax(t) * log_softmax(s)).sum(),
                }[name]
            )
    return np.mean(values)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("student_width", [8, 6, 11])
def test_costs_equal_a_loop_over_tokens(spec, student_width, mask):
    pairs = [(0, 0), (2, 1), (4, 2)]
    teacher, student = states(4, 8, 1), states(2, student_width, 2)
    loss = HiddenLoss(spec, pairs, 8, student_width)
    costs = loss.costs(teacher, student, mask)
    for k, (t, s) in enumerate(pairs):
        seen = student[s].numpy()
        if student_width != 8:
            seen = seen @ loss.projections[k].weight.detach().numpy().T
        assert float(costs[k]) == pytest.approx(by_loop(spec.name, teacher[t].numpy(), seen), abs=1e-6)
    weights = torch.tensor([0.5, 0.0, 2.0])
    assert float(loss(teacher, student, mask)) == pytest.approx(float(costs.mean()), abs=1e-6)
    assert float(loss(teacher, student, mask, weights)) == pytest.approx(float(costs @ weights), abs=1e-6)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_padding_is_never_read(spec, mask):
    teacher, student = states(1, 8, 1), states(1, 6, 2)
    loss = HiddenLoss(spec, [(1, 1)], 8, 6)
    clean = loss(teacher, student, mask)
    for layer in (*teacher, *student):
        layer[mask == 0] = float("nan")
    assert loss(teacher, student, mask) == clean


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_gradients_reach_student_and_map_but_not_the_teacher(spec, mask):
    teacher, student = ([x.requires_grad_() for x in states(1, width, width)] for width in (8, 6))
    loss = HiddenLoss(spec, [(1, 1)], 8, 6)
    loss(teacher, student, mask).backward()
    assert float(student[1].grad.abs().sum()) > 0
    assert float(loss.projections[0].weight.grad.abs().sum()) > 0
    assert teacher[1].grad is None


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_bf16_states_are_computed_in_fp32_under_autocast(spec, mask):
    teacher, student = ([x.bfloat16() for x in states(1, width, width)] for width in (8, 6))
    loss = HiddenLoss(spec, [(1, 1)], 8, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(teacher, student, mask)
    assert found.dtype == torch.float32
    assert found == loss([x.float() for x in teacher], [x.float() for x in student], mask)


def test_equal_widths_have_no_map():
    assert not list(HiddenLoss(HiddenStates(name="hidden_mse"), [(1, 1)], 8, 8).parameters())


@pytest.mark.parametrize(("teacher_width", "student_width"), [(8, 6), (6, 8)])
def test_maps_are_orthogonal_and_follow_the_seed_alone(teacher_width, student_width):
    before = torch.get_rng_state()
    first, again, other = (
        HiddenLoss(HiddenStates(name="hidden_mse"), [(1, 1)], teacher_width, student_width, seed=s) for s in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), before)
    weight = first.projections[0].weight.detach()
    assert weight.shape == (teacher_width, student_width)
    gram = weight.T @ weight if teacher_width > student_width else weight @ weight.T
    assert torch.allclose(gram, torch.eye(6), atol=1e-6)
    assert torch.equal(weight, again.projections[0].weight)
    assert not torch.allclose(weight, other.projections[0].weight)


def test_each_pair_has_a_map_but_under_emd_each_student_layer():
    pairs = [(t, s) for s in (1, 2) for t in (1, 2, 3)]
    by_pair = HiddenLoss(HiddenStates(name="hidden_mse", mapping=LayerMapping(name="uniform_last")), pairs, 8, 6)
    by_layer = HiddenLoss(HiddenStates(name="hidden_mse", mapping=LayerMapping(name="emd")), pairs, 8, 6)
    assert (len(by_pair.projections), len(by_layer.projections)) == (6, 2)
    teacher, student = states(3, 8, 1), states(2, 6, 2)
    costs = by_layer.costs(teacher, student, torch.ones(4, 5))
    for cost, (t, s) in zip(costs, pairs, strict=True):
        expected = ((by_layer.projections[s - 1](student[s]) - teacher[t]) ** 2).mean()
        assert float(cost) == pytest.approx(float(expected), abs=1e-6)
