import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from edgekd.distill.losses.information import InformationLoss, i_alpha, info_nce, jensen_shannon, nwj
from edgekd.errors import UsageError
from edgekd.settings.losses import NWJ, InfoNCE, JensenShannon, MutualInformation

ALPHAS = [0.0, 1e-6, 0.1, 0.5, 0.9, 1 - 1e-6, 1.0]
PAIRS = [(0, 0), (2, 1), (2, 2)]


def random_scores(rows=6, columns=6, scale=3.0, seed=0):
    return scale * np.random.default_rng(seed).standard_normal((rows, columns))


def i_alpha_by_loop(scores, log_q, alpha):
    """The estimator term by term, in probabilities instead of their logarithms."""
    rows, columns = scores.shape
    joint, marginal = [], []
    for i in range(rows):
        for j in range(columns):
            if j == i:
                continue
            for_joint = np.mean([np.exp(scores[i, k]) for k in range(columns) if k != j])
            for_marginal = np.mean([np.exp(scores[i, k]) for k in range(columns) if k != i])
            q = np.exp(log_q[i])
            joint.append(np.log(np.exp(scores[i, i]) / (alpha * for_joint + (1 - alpha) * q)))
            marginal.append(np.exp(scores[i, j]) / (alpha * for_marginal + (1 - alpha) * q))
    return 1 + np.mean(joint) - np.mean(marginal)


# The estimators


@pytest.mark.parametrize("columns", [6, 9])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_i_alpha_equals_a_loop(columns, alpha):
    scores, log_q = random_scores(6, columns), np.random.default_rng(1).standard_normal(6)
    found = i_alpha(torch.tensor(scores), torch.tensor(log_q), alpha)
    assert float(found) == pytest.approx(i_alpha_by_loop(scores, log_q, alpha), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("columns", [6, 9])
def test_info_nce_equals_a_loop_and_i_alpha_at_one(columns):
    scores = random_scores(6, columns)
    terms = [
        scores[i, i] - logsumexp(np.delete(scores[i], j)) + math.log(columns - 1)
        for i in range(6)
        for j in range(columns)
        if j != i
    ]
    tensor = torch.tensor(scores)
    assert float(info_nce(tensor)) == pytest.approx(np.mean(terms), abs=1e-6)
    assert float(i_alpha(tensor, None, 1.0)) == pytest.approx(np.mean(terms), abs=1e-6)


def test_alpha_zero_with_q_e_is_nwj():
    scores = random_scores()
    off = ~np.eye(6, dtype=bool)
    nwj = 1 + np.mean(np.diag(scores) - 1) - np.mean(np.exp(scores[off] - 1))
    assert float(i_alpha(torch.tensor(scores), torch.ones(6), 0.0)) == pytest.approx(nwj, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("columns", [8, 20])
def test_info_nce_reaches_its_ceiling_and_no_more(columns):
    for seed in range(20):
        assert float(info_nce(torch.tensor(random_scores(8, columns, 9.0, seed)))) <= math.log(columns - 1) + 1e-6
    perfect = torch.full((8, columns), -30.0, dtype=torch.float64).fill_diagonal_(30.0)
    assert float(info_nce(perfect)) == pytest.approx(math.log(columns - 1), abs=1e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_order_of_the_texts_does_not_matter(alpha):
    scores, log_q = torch.tensor(random_scores(6, 9)), torch.tensor(random_scores(1, 6)[0])
    order, queue = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([8, 6, 7])
    shuffled = scores[order][:, torch.cat([order, queue])]
    expected = float(i_alpha(scores, log_q, alpha))
    assert float(i_alpha(shuffled, log_q[order], alpha)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_extremes_are_finite_in_fp32_and_so_are_their_gradients(alpha, sign):
    scores = torch.full((5, 9), -sign * 30.0).fill_diagonal_(sign * 30.0).requires_grad_()
    log_q = torch.full((5,), -sign * 30.0, requires_grad=True)
    value = i_alpha(scores, log_q, alpha)
    value.backward()
    assert bool(value.isfinite())
    assert bool(scores.grad.isfinite().all())
    assert log_q.grad is None or bool(log_q.grad.isfinite().all())


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_gradients_equal_finite_differences(alpha):
    scores = torch.tensor(random_scores(4, 6, 1.5), requires_grad=True)
    log_q = torch.tensor(random_scores(1, 4, 1.0, 2)[0], requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, q: i_alpha(s, q, alpha), (scores, log_q))


def gaussian_estimates(batch, nats, alpha, columns=None, batches=200):
    """I_alpha with the true log ratio of `batches` batches of 20-dimensional Gaussians that share `nats` nats."""
    rng = np.random.default_rng(7)
    rho = math.sqrt(1 - math.exp(-nats / 10))
    found = []
    for _ in range(batches):
        x = rng.standard_normal((columns or batch, 20))
        y = rho * x[:batch] + math.sqrt(1 - rho**2) * rng.standard_normal((batch, 20))
        distance = ((x[None] - rho * y[:, None]) ** 2).sum(-1)
        ratio = -distance / (2 * (1 - rho**2)) + (x**2).sum(-1) / 2 - 10 * math.log(1 - rho**2)
        found.append(float(i_alpha(torch.tensor(ratio), torch.zeros(batch), alpha)))
    return np.mean(found), np.std(found)


# Batch, nats, alpha; mean and standard deviation of an estimate over 200 batches.
TABLE = [
    *[(16, 10, *row) for row in ((1, 2.70, 0.02), (0.99, 3.52, 0.09), (0.9, 3.70, 0.08), (0.5, 4.27, 0.12))],
    *[(16, 10, *row) for row in ((0.1, 5.71, 0.26), (0.01, 7.51, 0.71), (0, 10.7, 1.9))],
    *[(64, 10, *row) for row in ((1, 4.11, 0.03), (0.9, 5.00, 0.07), (0.5, 5.57, 0.09), (0.1, 6.88, 0.16))],
    *[(64, 10, *row) for row in ((0.01, 8.40, 0.44), (0, 10.3, 2.2))],
    *[(64, 2, *row) for row in ((1, 1.81, 0.21), (0, 2.01, 0.26))],
]


@pytest.mark.parametrize(("batch", "nats", "alpha", "mean", "deviation"), TABLE)
def test_gaussians(batch, nats, alpha, mean, deviation):
    found, spread = gaussian_estimates(batch, nats, alpha)
    # A mean of 200 against a rounded mean of 200.
    assert found == pytest.approx(mean, abs=4 * deviation * math.sqrt(2 / 200) + 0.02)
    # Rare batches decide the spread: at batch 16 and alpha 1, a plain loop gives 0.02 to 0.05 over ten seeds, and at
    # alpha 0, whose tail is heavy, there is no bound to test.
    assert alpha == 0 or spread < 2.5 * deviation


def test_alpha_trades_variance_for_bias():
    means, spreads = zip(*[gaussian_estimates(16, 10, alpha) for alpha in (0.01, 0.1, 0.5, 0.9, 1.0)], strict=True)
    assert list(means) == sorted(means, reverse=True)
    assert spreads[0] > spreads[1] > spreads[2] > spreads[3]
    assert means[0] < 10


def test_more_columns_raise_info_nce_towards_the_truth():
    alone, _ = gaussian_estimates(16, 10, 1.0)
    queued, _ = gaussian_estimates(16, 10, 1.0, columns=64)
    assert queued == pytest.approx(4.11, abs=0.03)
    assert alone < math.log(15) < queued < math.log(63) < 10


# The module


def states(layers, width, seed, texts=6):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(texts, 5, width, generator=generator) for _ in range(layers + 1)]


@pytest.fixture
def mask():
    return (torch.arange(5) < torch.tensor([5, 3, 1, 4, 2, 5]).unsqueeze(1)).long()


def module(seed=0, kind=MutualInformation, **fields):
    return InformationLoss(kind(hidden=16, size=8, **{"queue": 10, **fields}), PAIRS, 8, 4, seed=seed)


@pytest.mark.parametrize("pool", ["first", "mean"])
@pytest.mark.parametrize("queue", [0, 10])
def test_costs_are_the_estimator_on_pooled_states_and_queue(pool, queue, mask):
    loss = module(pool=pool, queue=queue)
    earlier = states(2, 8, 5)
    loss(earlier, states(2, 4, 6), mask)
    teacher, student = states(2, 8, 1), states(2, 4, 2)
    costs = loss.costs(teacher, student, mask)

    def pooled(layer):
        return torch.stack([x[0] if pool == "first" else x[: int(m.sum())].mean(0) for x, m in zip(layer, mask)])  # noqa: B905

    for cost, (t, s), critic in zip(costs, PAIRS, loss.critics, strict=True):
        vectors = pooled(teacher[t]) if queue == 0 else torch.cat([pooled(teacher[t]), pooled(earlier[t])])
        scores, log_q = critic(pooled(student[s]), vectors, mask)
        assert scores.shape == (6, 6 if queue == 0 else 12)
        expected = i_alpha_by_loop(scores.detach().double().numpy(), log_q.detach().double().numpy(), 0.9)
        assert float(cost) == pytest.approx(-expected, abs=1e-4)
    weights = torch.tensor([0.5, 0.0, 2.0])
    loss.eval()
    assert float(loss(teacher, student, mask)) == pytest.approx(float(costs.mean()), abs=1e-5)
    assert float(loss(teacher, student, mask, weights)) == pytest.approx(float(costs @ weights), abs=1e-5)


@pytest.mark.parametrize("critic", ["mlp", "transformer"])
@pytest.mark.parametrize("pool", ["first", "mean"])
def test_padding_is_never_read(pool, critic, mask):
    loss = module(pool=pool, critic=critic, queue=0).eval()
    teacher, student = states(2, 8, 1), states(2, 4, 2)
    clean = loss(teacher, student, mask)
    for layer in (*teacher, *student):
        layer[mask == 0] = float("nan")
    assert loss(teacher, student, mask) == clean


@pytest.mark.parametrize(
    "fields",
    [
        {"alpha": 0.0}, {"alpha": 0.5}, {"alpha": 1.0}, {"kind": NWJ}, {"kind": JensenShannon},
        {"critic": "transformer", "queue": 0}, {"kind": JensenShannon, "critic": "transformer", "queue": 0},
    ],
)  # fmt: skip
def test_gradients_reach_student_and_every_critic_but_not_the_teacher(fields, mask):
    teacher, student = ([x.requires_grad_() for x in states(2, width, width)] for width in (8, 4))
    loss = module(**fields)
    loss(teacher, student, mask).backward()
    assert all(float(x.grad.abs().sum()) > 0 for x in student)
    assert all(x.grad is None for x in teacher)
    assert all(float(p.grad.abs().sum()) > 0 for p in loss.critics.parameters())
    assert not loss.queue.requires_grad


def test_info_nce_has_no_q_and_is_mi_at_alpha_one(mask):
    teacher, student = states(2, 8, 1), states(2, 4, 2)
    nce, mi = module(kind=InfoNCE), module(alpha=1.0)
    assert all(critic.log_q is None for critic in nce.critics)
    assert torch.equal(nce.costs(teacher, student, mask), mi.costs(teacher, student, mask))


def bounds_by_loop(scores, name):
    """NWJ and JS of scores (B, N), written out as in Poole et al. (2019)."""
    rows, columns = scores.shape
    own = [scores[i, i] for i in range(rows)]
    others = [scores[i, j] for i in range(rows) for j in range(columns) if i != j]
    if name == "nwj":
        return 1 + np.mean([s - 1 for s in own]) - np.mean([np.exp(s - 1) for s in others])
    return np.mean([-np.log1p(np.exp(-s)) for s in own]) - np.mean([np.log1p(np.exp(s)) for s in others])


@pytest.mark.parametrize("columns", [5, 9])
@pytest.mark.parametrize(("name", "estimate"), [("nwj", nwj), ("js", jensen_shannon)])
def test_other_bounds_are_those_of_the_papers(name, estimate, columns):
    scores = np.random.default_rng(3).normal(0, 2, (5, columns))
    assert float(estimate(torch.tensor(scores))) == pytest.approx(bounds_by_loop(scores, name), rel=1e-12)


def test_with_the_best_scores_each_bound_is_what_it_bounds():
    # Two variables of eight values, equal with probability 0.65: the log of joint over product is known.
    rng = np.random.default_rng(0)
    values, equal = 8, 0.65
    joint = np.full((values, values), (1 - equal) / values / (values - 1))
    np.fill_diagonal(joint, equal / values)
    ratio = np.log(joint * values * values)
    information = float((joint * ratio).sum())
    middle = (joint + 1 / values**2) / 2
    divergence = 0.5 * (joint * np.log(joint / middle)).sum() + 0.5 * (np.log(1 / values**2 / middle) / values**2).sum()
    size = 4000
    x = rng.integers(0, values, size)
    y = np.where(rng.random(size) < equal, x, (x + rng.integers(1, values, size)) % values)
    scores = torch.tensor(ratio[x][:, y])
    assert float(nwj(scores + 1)) == pytest.approx(information, abs=0.05)
    assert (float(jensen_shannon(scores)) + 2 * np.log(2)) / 2 == pytest.approx(divergence, abs=0.02)


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_a_transformer_critic_reads_tokens_in_their_order_of_texts(pool, mask):
    """Each text's score is its own: those of some texts alone are the same."""
    loss = module(critic="transformer", pool=pool, queue=0).eval()
    teacher, student = states(2, 8, 1), states(2, 4, 2)
    scores, log_q = loss.critics[0](student[0], teacher[0], mask)
    assert (scores.shape, log_q.shape) == ((6, 6), (6,))
    some = torch.tensor([4, 0, 2])
    fewer, fewer_q = loss.critics[0](student[0][some], teacher[0][some], mask[some])
    torch.testing.assert_close(fewer, scores[some][:, some], atol=1e-5, rtol=0)
    torch.testing.assert_close(fewer_q, log_q[some], atol=1e-5, rtol=0)


def test_critics_leave_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, second = (module(critic="transformer", queue=0, seed=7) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_transformer_critic_has_no_queue():
    assert MutualInformation(critic="transformer").queue == 0
    with pytest.raises(ValueError, match="leave queue out"):
        MutualInformation(critic="transformer", queue=8)
    with pytest.raises(ValueError, match="eight heads"):
        NWJ(critic="transformer", hidden=12)


def test_queue_keeps_the_newest_vectors_of_each_teacher_layer():
    loss = module(pool="first", queue=7)
    mask, seen = torch.ones(4, 5), []
    for seed in range(5):
        teacher = states(2, 8, seed, texts=4)
        loss(teacher, states(2, 4, seed, texts=4), mask)
        seen.append(torch.stack([teacher[0][:, 0], teacher[2][:, 0]]))
        newest = torch.cat(seen, dim=1)[:, -7:]
        assert int(loss.count) == 4 * (seed + 1)
        kept = loss.queue[:, : min(7, int(loss.count))]
        for layer in range(2):
            assert {tuple(v.tolist()) for v in kept[layer]} == {tuple(v.tolist()) for v in newest[layer]}


def test_a_batch_larger_than_the_queue_leaves_its_last_vectors(mask):
    loss = module(pool="first", queue=4)
    teacher = states(2, 8, 1)
    loss(teacher, states(2, 4, 2), mask)
    assert {tuple(v.tolist()) for v in loss.queue[1]} == {tuple(v.tolist()) for v in teacher[2][-4:, 0]}


def test_only_forward_in_training_fills_the_queue(mask):
    loss = module()
    loss.costs(states(2, 8, 1), states(2, 4, 2), mask)
    loss.eval()(states(2, 8, 1), states(2, 4, 2), mask)
    assert int(loss.count) == 0


def test_a_restored_module_goes_on_exactly(mask, tmp_path):
    from safetensors.torch import load_file, save_file

    loss, batches = module(queue=8), [(states(2, 8, i), states(2, 4, i + 50)) for i in range(4)]
    for batch in batches[:2]:
        loss(*batch, mask)
    save_file(loss.state_dict(), tmp_path / "loss.safetensors")
    resumed = module(seed=1, queue=8)
    resumed.load_state_dict(load_file(tmp_path / "loss.safetensors"))
    for batch in batches[2:]:
        assert loss(*batch, mask) == resumed(*batch, mask)
    assert torch.equal(loss.queue, resumed.queue)


def test_without_queue_the_state_can_be_saved(tmp_path):
    from safetensors.torch import load_file, save_file

    loss = module(queue=0)
    save_file(loss.state_dict(), tmp_path / "loss.safetensors")
    resumed = module(queue=0, seed=1)
    resumed.load_state_dict(load_file(tmp_path / "loss.safetensors"))
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in loss.state_dict().items())


def test_one_text_needs_a_queue(mask):
    alone = states(2, 8, 1, texts=1), states(2, 4, 2, texts=1), torch.ones(1, 5)
    with pytest.raises(UsageError, match=r"distill loss: mi .* batch size of 2"):
        module().costs(*alone)
    loss = module()
    loss(states(2, 8, 1), states(2, 4, 2), mask)
    assert bool(loss(*alone).isfinite())


def test_weights_follow_the_seed_alone():
    before = torch.get_rng_state()
    first, again, other = (module(seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["critics.0.student.layers.0.weight"], other["critics.0.student.layers.0.weight"])
    assert not torch.equal(first["critics.0.student.layers.0.weight"], first["critics.1.student.layers.0.weight"])


def test_bf16_states_are_computed_in_fp32_under_autocast(mask):
    teacher, student = ([x.bfloat16() for x in states(2, width, width)] for width in (8, 4))
    loss = module().eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(teacher, student, mask)
    assert found.dtype == torch.float32
    assert found == loss([x.float() for x in teacher], [x.float() for x in student], mask)


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
def test_training_finds_the_information(alpha):
    """A student that starts at random learns what the teacher's states tell of the text."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 6, generator=generator).div_(3).requires_grad_()
    loss = InformationLoss(MutualInformation(alpha=alpha, hidden=32, size=8, queue=32), [(0, 0)], 6, 4)
    optimizer = torch.optim.Adam([weight, *loss.parameters()], lr=3e-3)
    bounds = []
    for _ in range(150):
        x = torch.randn(16, 1, 6, generator=generator)
        value = loss([x], [x @ weight.T], torch.ones(16, 1))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        bounds.append(-value.item())
    assert np.mean(bounds[:5]) < 0.5
    assert np.mean(bounds[-10:]) > 1.5
