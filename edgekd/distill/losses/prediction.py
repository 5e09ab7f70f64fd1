"""Prediction losses on logit rows (n, labels). Pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.distill.losses.spec import KL, Dist, LogitMSE, LossSpec, SoftCE
from edgekd.errors import UsageError


def kl_divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """T^2 KL( softmax(teacher / T) || softmax(student / T) ), mean over rows (Hinton et al., 2015, eq. 1 and 2).

    The T^2 keeps the gradient's size independent of T: softened gradients shrink as 1 / T^2.

    Args:
        teacher: Teacher logits (n, labels).
        student: Student logits (n, labels).
        temperature: T > 0.

    Returns:
        A scalar; the sum over labels is averaged over rows only ("batchmean"), never over labels.
    """
    target = F.log_softmax(teacher / temperature, dim=-1)
    guess = F.log_softmax(student / temperature, dim=-1)
    return F.kl_div(guess, target, reduction="batchmean", log_target=True) * temperature**2


def soft_cross_entropy(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """T^2 CE( softmax(teacher / T), softmax(student / T) ), mean over rows: KL plus the teacher's own entropy.

    The student's gradient is that of `kl_divergence`; the value is zero for no student.

    Args:
        teacher: Teacher logits (n, labels).
        student: Student logits (n, labels).
        temperature: T > 0.

    Returns:
        A scalar.
    """
    target = F.softmax(teacher / temperature, dim=-1)
    guess = F.log_softmax(student / temperature, dim=-1)
    return -(target * guess).sum(-1).mean() * temperature**2


def logit_mse(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean squared error of the logits over rows and labels."""
    return F.mse_loss(student, teacher)


def dist(teacher: Tensor, student: Tensor, temperature: float, between: float, within: float) -> Tensor:
    """Match the softened outputs up to shift and scale (DIST, Huang et al., 2022, eq. 7 to 10).

    `between` weighs 1 - the Pearson correlation of teacher and student row by row (over the labels of one row),
    `within` that of column by column (over the rows of one label). Two labels always correlate by 1 or -1, so only
    `within` teaches there, and a batch of one row has nothing within. No T^2: unlike the KL's, a correlation's
    gradient does not shrink as T grows.

    Args:
        teacher: Teacher logits (n, labels).
        student: Student logits (n, labels).
        temperature: T > 0.
        between: Weight of the rows' term.
        within: Weight of the columns' term.

    Returns:
        A scalar in [0, 2 (between + within)].
    """
    target, guess = F.softmax(teacher / temperature, dim=-1), F.softmax(student / temperature, dim=-1)
    rows, columns = 1 - _pearson(target, guess).mean(), 1 - _pearson(target.T, guess.T).mean()
    return between * rows + within * columns


def _pearson(x: Tensor, y: Tensor) -> Tensor:
    """Correlation of each row of x with the same row of y, (n,); 0 where a row is constant."""
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    # The authors' epsilon: it also mutes labels that nobody in the batch gives any probability to.
    norms: Tensor = x.norm(dim=-1) * y.norm(dim=-1)
    return (x * y).sum(-1) / (norms + 1e-8)


def distillation_loss(spec: LossSpec, teacher: Tensor, student: Tensor) -> Tensor:
    """The loss that `spec` names, on rows (n, labels); computed in FP32.

    Raises:
        UsageError: The loss is not one on logits.
    """
    teacher, student = teacher.float(), student.float()
    if isinstance(spec, KL):
        return kl_divergence(teacher, student, spec.temperature)
    if isinstance(spec, SoftCE):
        return soft_cross_entropy(teacher, student, spec.temperature)
    if isinstance(spec, LogitMSE):
        return logit_mse(teacher, student)
    if isinstance(spec, Dist):
        return dist(teacher, student, spec.temperature, spec.between, spec.within)
    raise UsageError(f"distill loss: {spec.name} does not compare logits; those that do are kl, soft_ce, mse and dist")


def check_prediction(spec: LossSpec, labels: int) -> None:
    """Refuse a loss that teaches nothing on a head of this many logits.

    Raises:
        UsageError: A softmax loss on one logit, whose softmax is always 1: its gradient would be zero.
    """
    if labels < 2 and isinstance(spec, KL | SoftCE | Dist):
        raise UsageError(f"distill loss: {spec.name} compares class probabilities, but the head has one logit: use mse")


def hard_loss(student: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy on gold labels (n,), ignoring -100; zero if no row has a label."""
    if bool((targets == -100).all()):
        return student.sum() * 0.0
    return F.cross_entropy(student.float(), targets, ignore_index=-100)


def is_finite(loss: Tensor) -> bool:
    """True if the loss is a number."""
    return bool(torch.isfinite(loss))
