"""Prediction losses on logit rows (n, labels). Pure functions of tensors.

A divergence is that of the distributions which the rows stand for: categorical for one class of several, a Bernoulli
a label for several labels, and a normal distribution of unit variance about the value for a regression.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.errors import UsageError
from edgekd.runtime.encodings import MASKED
from edgekd.settings.losses import KL, Dist, LogitMSE, LossSpec, SoftCE
from edgekd.settings.task import Output


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


def binary_kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """T^2 KL( sigmoid(teacher / T) || sigmoid(student / T) ) of each label, mean over rows and labels.

    Args:
        teacher: Teacher logits (n, labels).
        student: Student logits (n, labels).
        temperature: T > 0.

    Returns:
        A scalar.
    """
    target = teacher / temperature
    return binary_cross_entropy(teacher, student, temperature) - _binary_entropy(target).mean() * temperature**2


def binary_cross_entropy(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """T^2 CE( sigmoid(teacher / T), sigmoid(student / T) ) of each label, mean over rows and labels.

    Args:
        teacher: Teacher logits (n, labels).
        student: Student logits (n, labels).
        temperature: T > 0.

    Returns:
        A scalar.
    """
    target = torch.sigmoid(teacher / temperature)
    return F.binary_cross_entropy_with_logits(student / temperature, target) * temperature**2


def _binary_entropy(logits: Tensor) -> Tensor:
    """Entropy of sigmoid(logits), elementwise."""
    return F.binary_cross_entropy_with_logits(logits, torch.sigmoid(logits), reduction="none")


def normal_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL of normal distributions of unit variance about the values: half their squared distance, mean over rows."""
    return 0.5 * F.mse_loss(student, teacher)


def distillation_loss(spec: LossSpec, teacher: Tensor, student: Tensor, output: Output = "classes") -> Tensor:
    """The loss that `spec` names, on rows (n, labels); computed in FP32.

    Args:
        teacher: Teacher logits (n, labels).
        student: Student logits (n, labels).
        output: What a row means.

    Raises:
        UsageError: The loss is not one on logits, or not one on such rows.
    """
    teacher, student = teacher.float(), student.float()
    if output == "joint":
        # Each kind of row by its own columns, the two weighing the same however many words a text has.
        parts = [(kind, teacher[kind][0] > _OUT) for kind in _kinds(teacher)]
        each = [distillation_loss(spec, teacher[rows][:, own], student[rows][:, own]) for rows, own in parts]
        return torch.stack(each).sum()
    if isinstance(spec, LogitMSE):
        return logit_mse(teacher, student)
    if isinstance(spec, KL | SoftCE) and output == "value":
        return normal_kl(teacher, student)
    if isinstance(spec, KL):
        divergence = kl_divergence if output == "classes" else binary_kl
        return divergence(teacher, student, spec.temperature)
    if isinstance(spec, SoftCE):
        entropy = soft_cross_entropy if output == "classes" else binary_cross_entropy
        return entropy(teacher, student, spec.temperature)
    if isinstance(spec, Dist):
        return dist(teacher, student, spec.temperature, spec.between, spec.within)
    raise UsageError(f"distill loss: {spec.name} does not compare logits; those that do are kl, soft_ce, mse and dist")


def check_prediction(spec: LossSpec, labels: int, output: Output = "classes") -> None:
    """Refuse a loss that teaches nothing, or something wrong, on a head of this kind.

    Raises:
        UsageError: A softmax loss on what is no distribution over classes: on one logit its gradient would be zero.
    """
    if output in ("classes", "joint") and labels < 2 and isinstance(spec, KL | SoftCE | Dist):
        raise UsageError(f"distill loss: {spec.name} compares class probabilities, but the head has one logit: use mse")
    if output in ("flags", "value") and isinstance(spec, Dist):
        raise UsageError("distill loss: dist compares probabilities of one class of several: use kl or mse")


def hard_loss(student: Tensor, targets: Tensor, output: Output = "classes") -> Tensor:
    """Loss on gold targets; zero if no row has one.

    Args:
        student: Logits (n, labels).
        targets: Label ids (n,), -100 where there is none: cross-entropy, mean over rows. Or numbers (n, labels), NaN
            where there are none: binary cross-entropy or squared error, mean over rows and labels.
        output: What a row means.
    """
    if output == "joint":
        return torch.stack([hard_loss(student[rows], targets[rows]) for rows in _kinds(student)]).sum()
    if output == "classes":
        if bool((targets == -100).all()):
            return student.sum() * 0.0
        return F.cross_entropy(student.float(), targets, ignore_index=-100)
    known = ~targets.isnan().any(dim=-1)
    if not bool(known.any()):
        return student.sum() * 0.0
    rows, right = student[known].float(), targets[known]
    return F.binary_cross_entropy_with_logits(rows, right) if output == "flags" else F.mse_loss(rows, right)


# Where columns that a row has no say in end, in any precision and at any temperature.
_OUT = 0.01 * MASKED


def _kinds(rows: Tensor) -> list[Tensor]:
    """Masks (n,) of the rows of each kind of a joint task, those without a row left out."""
    whole = rows.detach()[:, 0] > _OUT
    return [kind for kind in (whole, ~whole) if bool(kind.any())]


def is_finite(loss: Tensor) -> bool:
    """True if the loss is a number."""
    return bool(torch.isfinite(loss))
