"""Mutual information of teacher and student states as a loss: MI-alpha, InfoNCE, NWJ and JS, with a learned critic.

Sources: van den Oord et al. (2018), InfoNCE; Poole et al. (2019), "On variational bounds of mutual information",
sections 2.1 to 2.5: NWJ, JS and I_alpha; He et al. (2021), "Distiller", which uses them for distillation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.distill.losses.hidden import Pair, weigh
from edgekd.errors import UsageError
from edgekd.settings.losses import NWJ, InfoNCE, Information, MutualInformation

# Bound of |score| and |log q|: exp(30 + 30) is still finite in FP32.
_LIMIT = 30.0

# Heads of a Transformer critic (Distiller's).
_HEADS = 8

# The critic's first temperature: |score| starts at 10 at most.
_TEMPERATURE = 0.1


def info_nce(scores: Tensor) -> Tensor:
    """InfoNCE from the scores of B conditioning samples with N samples each: a lower bound of I, at most log(N - 1).

        mean over i and j != i of  scores[i, i] - log( 1 / (N - 1) sum over l != j of exp(scores[i, l]) )

    This is the leave-one-out convention, that of `i_alpha` at alpha 1: each partition function is a mean over N - 1
    samples, the pair's own among them. (The more common one takes all N and is at most log N.)

    Args:
        scores: (B, N), N >= B and N >= 2: row i is a conditioning sample, column i its own partner, and all other
            columns, those from B on too, samples that are independent of row i.

    Returns:
        A scalar, in nats.
    """
    return (scores.diagonal().unsqueeze(1) - _leave_one_out(scores))[_off_diagonal(scores)].mean()


def i_alpha(scores: Tensor, log_q: Tensor | None, alpha: float) -> Tensor:
    """I_alpha: a lower bound of the mutual information between InfoNCE and TUBA, in log space.

        m[i, j] = 1 / (N - 1) sum over l != j of exp(scores[i, l])
        a[i, j] = alpha m[i, j] + (1 - alpha) q[i]
        I_alpha = 1 + mean over i and j != i of ( scores[i, i] - log a[i, j] )
                    - mean over i and j != i of exp(scores[i, j]) / a[i, i]

    Row i conditions, its baseline a sees N - 1 samples: its own partner and N - 2 others in the first mean, which
    stands for the joint distribution, and N - 1 others, j among them, in the second, which stands for the product of
    the marginals. At alpha 1 the second mean is 1 and I_alpha is `info_nce`: little variance, at most log(N - 1).
    At alpha 0 it is TUBA, unbounded and of large variance, and NWJ with q = e.

    In the papers' symbols S[i, j] = f(x_j, y_i): y conditions, x is sampled. Mutual information is symmetric, so
    either variable may be the one that conditions.

    Args:
        scores: (B, N) as in `info_nce`.
        log_q: (B,), log of the learned baseline of each conditioning sample; not read at alpha 1.
        alpha: In [0, 1].

    Returns:
        A scalar, in nats.
    """
    off = _off_diagonal(scores)
    leave_one_out = _leave_one_out(scores)
    if alpha == 1:
        baseline = leave_one_out
    else:
        assert log_q is not None
        baseline = log_q.unsqueeze(1).expand_as(scores)
        if alpha > 0:
            baseline = torch.logaddexp(math.log(alpha) + leave_one_out, math.log1p(-alpha) + baseline)
    joint = (scores.diagonal().unsqueeze(1) - baseline)[off].mean()
    marginal = (scores - baseline.diagonal().unsqueeze(1))[off].exp().mean()
    return 1 + joint - marginal


def nwj(scores: Tensor) -> Tensor:
    """NWJ (Nguyen, Wainwright and Jordan, 2010): 1 + mean of (scores[i, i] - 1) - mean over j != i of exp(scores - 1).

    A lower bound of the mutual information without a ceiling, whose variance grows with exp(I).

    Args:
        scores: (B, N) as in `info_nce`.

    Returns:
        A scalar, in nats.
    """
    return i_alpha(scores, scores.new_ones(len(scores)), 0.0)


def jensen_shannon(scores: Tensor) -> Tensor:
    """JS: mean of -softplus(-scores[i, i]) - mean over j != i of softplus(scores[i, j]); at most 0.

    Half of it, and log 2, are the Jensen-Shannon divergence of joint and product (Hjelm et al., 2019, eq. 4). The best
    scores are the log of the joint's density over the product's, whatever the batch, so that `nwj(scores + 1)` is the
    information in nats (Poole et al., 2019, section 2.2). Trained and judged is this value alone: the other's
    exponentials would choose the weights by chance.

    Args:
        scores: (B, N) as in `info_nce`.
    """
    return -F.softplus(-scores.diagonal()).mean() - F.softplus(scores)[_off_diagonal(scores)].mean()


def bound(spec: Information, scores: Tensor, log_q: Tensor | None) -> Tensor:
    """What a loss makes large.

    Args:
        scores: (B, N) as in `info_nce`.
        log_q: (B,) as in `i_alpha`, for `mi` alone.
    """
    if isinstance(spec, MutualInformation | InfoNCE):
        return i_alpha(scores, log_q, spec.alpha if isinstance(spec, MutualInformation) else 1.0)
    return nwj(scores) if isinstance(spec, NWJ) else jensen_shannon(scores)


def _off_diagonal(scores: Tensor) -> Tensor:
    """True at (i, j != i), (B, N)."""
    return ~torch.eye(*scores.shape, dtype=torch.bool, device=scores.device)


def _leave_one_out(scores: Tensor) -> Tensor:
    """Log of the mean of exp(scores[i, l]) over l != j, at [i, j], (B, N).

    The row's sum less one term, log1p(-share), is exact while that term's share is at most a half. Only a row's
    largest can have more: its entry is summed without it.
    """
    largest = scores.argmax(1, keepdim=True)
    total = scores.logsumexp(1, keepdim=True)
    shares = (scores - total).exp().scatter(1, largest, 0.0)
    others = scores.scatter(1, largest, -math.inf).logsumexp(1, keepdim=True)
    return (total + torch.log1p(-shares)).scatter(1, largest, others) - math.log(scores.shape[1] - 1)


class InformationLoss(nn.Module):
    """Minus a bound on the mutual information of teacher and student states, a critic for each pair of layers.

    The student's state s conditions and the teacher's t is sampled: `i_alpha` with scores[i, j] = f(s_i, t_j), whose
    partition function is a mean over teacher states, E_t exp f(s, t), and whose q is a function of s.

    That direction is what the queue asks for. It holds teacher vectors of earlier batches, and these have no student
    partner. Normalising over students (rows of teachers), they could only be further rows of the second mean, which
    is 1 at alpha 1 whatever they are: InfoNCE would not notice them. Normalising over teachers, they are further
    columns, samples of the teacher's marginal as good as the batch's own: they sharpen every partition function and
    raise InfoNCE's ceiling from log(B - 1) to log(B + queued - 1). The queue keeps states, not critic outputs, so
    that they always pass through the critic of today; the teacher is frozen, so they are exact. Texts of an earlier
    epoch come back in the queue once it is longer than the data; they are then drawn with replacement, and the
    ceiling is the log of the number of texts.

    The critic is separable: f(s, t) = k g(s) . h(t), with g and h networks of two hidden layers (on a text's state) or
    two Transformer layers (on its tokens) and a normalised output, and k in (0, 30) learned.

    Computed in FP32, outside autocast. No gradient reaches the teacher; the critics are parameters of this module,
    not of the student. Queue and count are in its state, so that a run resumed from a checkpoint goes on exactly.

    Args:
        pairs: (teacher layer, student layer), 0 being the embeddings' output.
        teacher_width: Width of the teacher's states.
        student_width: Width of the student's states.
        seed: Decides the critics' first weights; the global generator is neither read nor advanced.
    """

    queue: Tensor
    count: Tensor

    def __init__(
        self,
        spec: Information,
        pairs: Sequence[Pair],
        teacher_width: int,
        student_width: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.spec, self.pairs = spec, tuple(pairs)
        self._teachers = sorted({teacher for teacher, _ in self.pairs})
        generator = torch.Generator().manual_seed(seed)
        self.critics = nn.ModuleList(_Critic(spec, teacher_width, student_width, generator) for _ in self.pairs)
        self.register_buffer("queue", torch.zeros(len(self._teachers), spec.queue, teacher_width))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def costs(self, teacher_states: Sequence[Tensor], student_states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Minus the mutual information of each pair, in nats; the queue stays as it is.

        Args:
            teacher_states: States (B, S, teacher width) of layer 0, 1, .. of the teacher.
            student_states: States (B, S, student width) of layer 0, 1, .. of the student, of the same texts.
            mask: (B, S), nonzero at tokens; what is elsewhere is never read.

        Returns:
            (pairs,), in the order of `pairs`.

        Raises:
            UsageError: A batch of one text while the queue is empty: there is nothing to tell it from.
        """
        queued = min(int(self.count), self.spec.queue)
        if len(mask) + queued < 2:
            raise UsageError(
                f"distill loss: {self.spec.name} tells a text from others, but the batch has one and the queue none: "
                "use a batch size of 2 or more"
            )
        with torch.autocast(mask.device.type, enabled=False):
            if self.spec.critic == "transformer":
                given = {(t, s): (student_states[s], teacher_states[t].detach()) for t, s in self.pairs}
            else:
                teacher = self._pooled_teacher(teacher_states, mask)
                columns = dict(zip(self._teachers, torch.cat([teacher, self.queue[:, :queued]], dim=1), strict=True))
                student = {i: self._pool(student_states[i], mask) for i in {s for _, s in self.pairs}}
                given = {(t, s): (student[s], columns[t]) for t, s in self.pairs}
            bounds = []
            for pair, critic in zip(self.pairs, self.critics, strict=True):
                bounds.append(bound(self.spec, *critic(*given[pair], mask)))
            return -torch.stack(bounds)

    def forward(
        self,
        teacher_states: Sequence[Tensor],
        student_states: Sequence[Tensor],
        mask: Tensor,
        weights: Tensor | None = None,
    ) -> Tensor:
        """The weighted sum of `costs`, a scalar; in training mode the batch then joins the queue.

        Args:
            teacher_states: As in `costs`.
            student_states: As in `costs`.
            mask: As in `costs`.
            weights: (pairs,); None weighs all alike, 1 / pairs.
        """
        loss = weigh(self.costs(teacher_states, student_states, mask), weights)
        if self.training:
            self.remember(teacher_states, mask)
        return loss

    @torch.no_grad()
    def remember(self, teacher_states: Sequence[Tensor], mask: Tensor) -> None:
        """Put a batch's teacher vectors into the queue over the oldest; for who calls `costs`, once a step."""
        if self.spec.queue == 0:
            return
        vectors = self._pooled_teacher(teacher_states, mask)[:, -self.spec.queue :]
        places = (self.count + torch.arange(vectors.shape[1], device=vectors.device)) % self.spec.queue
        self.queue.index_copy_(1, places, vectors)
        self.count += vectors.shape[1]

    def _pooled_teacher(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """(teacher layers in pairs, B, width)."""
        return torch.stack([self._pool(states[i].detach(), mask) for i in self._teachers])

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        return _pool(states, mask, self.spec.pool)


def _pool(states: Tensor, mask: Tensor, pool: Literal["first", "mean"]) -> Tensor:
    """FP32 state of each text (B, width): its first token's, or the mean over its tokens."""
    if pool == "first":
        return states[:, 0].float()
    token = mask.bool().unsqueeze(-1)
    return states.float().masked_fill(~token, 0.0).sum(1) / token.sum(1)


class _Critic(nn.Module):
    """Scores (B, N) and log q (B,) of what an MLP is given, (B or N, width), or a Transformer, (B or N, S, width)."""

    def __init__(self, spec: Information, teacher_width: int, student_width: int, generator: torch.Generator) -> None:
        super().__init__()
        learned = isinstance(spec, MutualInformation) and spec.alpha < 1
        self.student = _network(spec, student_width, spec.size, generator)
        self.teacher = _network(spec, teacher_width, spec.size, generator)
        self.log_q = _network(spec, student_width, 1, generator) if learned else None
        share = 1 / _TEMPERATURE / _LIMIT
        self.scale = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        g, h = F.normalize(self.student(student, mask), dim=-1), F.normalize(self.teacher(teacher, mask), dim=-1)
        # Sigmoid and tanh bound without the dead gradient of a clamp.
        scores = _LIMIT * self.scale.sigmoid() * (g @ h.T)
        if self.log_q is None:
            return scores, None
        return scores, _LIMIT * (self.log_q(student, mask).squeeze(-1) / _LIMIT).tanh()


def _network(spec: Information, inputs: int, outputs: int, generator: torch.Generator) -> nn.Module:
    kind = _TokenNetwork if spec.critic == "transformer" else _StateNetwork
    return kind(spec, inputs, outputs, generator)


class _StateNetwork(nn.Module):
    """Two hidden layers with ReLU (He et al. initialisation, zero biases) on the state of each text."""

    def __init__(self, spec: Information, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        sizes = ((inputs, spec.hidden), (spec.hidden, spec.hidden), (spec.hidden, outputs))
        layers: list[nn.Module] = []
        for fan_in, fan_out in sizes:
            # By way of the meta device: the constructor would draw weights from the global generator.
            layer = nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
            layers += [layer, nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(texts, width) to (texts, outputs)."""
        return self.layers(states)  # type: ignore[no-any-return]


class _TokenNetwork(nn.Module):
    """Two Transformer layers on the tokens of each text, between a map to their width and one to the output."""

    def __init__(self, spec: Information, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.pool = spec.pool
        # The layers' own initialisation draws from the global generator, which must stay as it is.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            self.enter = nn.Linear(inputs, spec.hidden)
            self.layers = nn.ModuleList(
                nn.TransformerEncoderLayer(spec.hidden, _HEADS, 2 * spec.hidden, dropout=0.0, batch_first=True)
                for _ in range(2)
            )
            self.leave = nn.Linear(spec.hidden, outputs)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(texts, tokens, width) to (texts, outputs)."""
        padded = ~mask.bool()
        x = self.enter(states.float().masked_fill(padded.unsqueeze(-1), 0.0))
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=padded)
        return self.leave(_pool(x, mask, self.pool))  # type: ignore[no-any-return]
