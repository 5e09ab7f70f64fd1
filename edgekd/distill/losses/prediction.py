"""Prediction losses on logit rows (n, labels). Pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.distill.losses.spec import KL, LossSpec


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


def logit_mse(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean squared error of the logits over rows and labels."""
    return F.mse_loss(student, teacher)


def distillation_loss(spec: LossSpec, teacher: Tensor, student: Tensor) -> Tensor:
    """The loss that `spec` names, on rows (n, labels); computed in FP32."""
    teacher, student = teacher.float(), student.float()
    if isinstance(spec, KL):
        return kl_divergence(teacher, student, spec.temperature)
    return logit_mse(teacher, student)


def hard_loss(student: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy on gold labels (n,), ignoring -100; zero if no row has a label."""
    if bool((targets == -100).all()):
        return student.sum() * 0.0
    return F.cross_entropy(student.float(), targets, ignore_index=-100)


def is_finite(loss: Tensor) -> bool:
    """True if the loss is a number."""
    return bool(torch.isfinite(loss))
