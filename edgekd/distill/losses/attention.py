"""Attention losses: pure functions of queries, keys and values, and the object that a spec makes of them.

Everything is computed in FP32. Padding neither attends nor is attended to: its states change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from edgekd.distill.mappings import LayerPairs, emd_weights, layer_pairs
from edgekd.errors import UsageError
from edgekd.models.student import Relations
from edgekd.settings.losses import AttentionMaps, MiniLM, MiniLMv2

# What one of them is scored against another by: (queries, keys), or the values twice.
Scored = tuple[Tensor, Tensor]

# MiniLM's heads at once, as many as `MiniLMv2.chunk` takes unless told otherwise.
_CHUNK = 8
# Dimensions that a relation head keeps at least, where the number of heads is ours to choose.
_HEAD_FLOOR = 8
# Up to this depth the last but one layer teaches, of deeper ones that at this share of the depth.
_SHALLOW, _UPPER = 12, 0.85


def relation_kl(teacher: Scored, student: Scored, mask: Tensor, heads: int, chunk: int) -> Tensor:
    """KL(teacher || student) of softmax(A B^T / sqrt(d_r)), mean over heads and a text's tokens, then over texts.

    Widths are split anew into `heads`, so they need not be equal. Heads are computed `chunk` at a time and again in
    the backward pass, so that memory holds `chunk` heads' L x L relations and no more.

    Args:
        teacher: A and B, each (texts, L, width).
        student: A and B, each (texts, L, its own width).
        mask: (texts, L), nonzero where there is a token.
        heads: Must divide both widths; the width over it is d_r.
        chunk: Heads at once.

    Returns:
        A scalar (MiniLMv2, arXiv:2012.15828, eq. 3 and 4).
    """
    total = mask.new_zeros((), dtype=torch.float32)
    for start in range(0, heads, chunk):
        part = slice(start, start + chunk)
        pieces = [_split(x, heads)[:, part] for x in (*teacher, *student)]
        total = total + _recomputed(_kl_sum, *pieces, mask)
    return total / heads


def minilmv2(teacher: Relations, student: Relations, mask: Tensor, heads: int, chunk: int) -> Tensor:
    """Sum of `relation_kl` of queries, keys and values, each with itself (MiniLMv2, arXiv:2012.15828, eq. 2).

    Args:
        teacher: Queries, keys, values of one layer, each (texts, L, width).
        student: Those of the student's, each (texts, L, its own width).
        mask: (texts, L), nonzero where there is a token.
        heads: Relation heads; must divide both widths.
        chunk: Relation heads at once.
    """
    kinds = (relation_kl((t, t), (s, s), mask, heads, chunk) for t, s in zip(teacher, student, strict=True))
    return torch.stack(list(kinds)).sum()


def minilm(teacher: Relations, student: Relations, mask: Tensor, heads: int) -> Tensor:
    """`relation_kl` of the attention distributions plus that of the values (MiniLM, arXiv:2002.10957, eq. 5 to 8).

    Args:
        teacher: Queries, keys, values of one layer, each (texts, L, width).
        student: Those of the student's, each (texts, L, its own width).
        mask: (texts, L), nonzero where there is a token.
        heads: Attention heads of both layers.
    """
    (tq, tk, tv), (sq, sk, sv) = teacher, student
    attention = relation_kl((tq, tk), (sq, sk), mask, heads, _CHUNK)
    return attention + relation_kl((tv, tv), (sv, sv), mask, heads, _CHUNK)


def map_mse(teacher: Relations, student: Relations, mask: Tensor, teacher_head: int, student_head: int) -> Tensor:
    """Mean squared error of the scores Q K^T / sqrt(d) before the softmax (TinyBERT, arXiv:1909.10351, eq. 7).

    Mean over heads and a text's pairs of tokens, then over texts. Layers with equally many heads are compared head
    by head, in order. A student's layer may have fewer, kept by importance with no record of which they were: then
    the means over each one's heads are compared.

    Args:
        teacher: Queries, keys, values of one layer, each (texts, L, heads * head size); the values are not used.
        mask: (texts, L), nonzero where there is a token.
        teacher_head: The teacher's head size.
        student_head: The student's head size.
    """
    pieces = [_split(x, x.shape[-1] // teacher_head) for x in teacher[:2]]
    pieces += [_split(x, x.shape[-1] // student_head) for x in student[:2]]
    return _recomputed(_map_mse, *pieces, mask)


def _split(x: Tensor, heads: int) -> Tensor:
    """(texts, L, width) -> (texts, heads, L, width / heads)."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


def _scores(a: Tensor, b: Tensor) -> Tensor:
    """A B^T / sqrt(d_r) of (texts, heads, L, d_r): (texts, heads, L, L)."""
    return a.float() @ b.float().transpose(-1, -2) / math.sqrt(a.shape[-1])


def _kl_sum(ta: Tensor, tb: Tensor, sa: Tensor, sb: Tensor, mask: Tensor) -> Tensor:
    """KL of the relations, summed over these heads, mean over a text's tokens, then over texts."""
    padded = ~mask.bool()
    # The lowest finite number, not -inf: its probability is 0 all the same, and 0 * (a - b) stays 0, never NaN.
    lowest = torch.finfo(torch.float32).min
    target, guess = (
        _scores(a, b).masked_fill(padded[:, None, None, :], lowest).log_softmax(-1) for a, b in ((ta, tb), (sa, sb))
    )
    rows = F.kl_div(guess, target, reduction="none", log_target=True).sum((1, 3))
    return _mean(rows.masked_fill(padded, 0.0).sum(-1), (~padded).sum(-1))


def _map_mse(tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, mask: Tensor) -> Tensor:
    target, guess = _scores(tq, tk), _scores(sq, sk)
    if target.shape[1] != guess.shape[1]:
        target, guess = target.mean(1, keepdim=True), guess.mean(1, keepdim=True)
    present = mask.bool()
    pairs = present[:, :, None] & present[:, None, :]
    errors = (guess - target).square().mean(1).masked_fill(~pairs, 0.0)
    return _mean(errors.sum((1, 2)), pairs.sum((1, 2)))


def _mean(sums: Tensor, counts: Tensor) -> Tensor:
    """Mean over texts of each one's sum over its count; a text without tokens counts as 0."""
    return (sums / counts.clamp(min=1)).mean()


def _recomputed(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """The function's value; its inner tensors are computed again in the backward pass, not kept for it."""
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return function(*tensors)
    result: Tensor = checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)
    return result


class AttentionShape(Protocol):
    """What an attention loss must know of a model: an `EncoderShape`, or anything with these two."""

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads per layer; its length is the depth."""

    @property
    def head_size(self) -> int:
        """Width of one head."""


@dataclass(frozen=True)
class AttentionLoss:
    """A loss on queries, keys and values; it owns no parameters.

    Attributes:
        pairs: (teacher layer, student layer), from 1.
        compare: Loss of one pair: the teacher's relations, the student's and the mask, to a scalar.
        grid: (teacher's, student's) depth where the pairs are weighted by optimal transport; None: evenly.
    """

    pairs: LayerPairs
    compare: Callable[[Relations, Relations, Tensor], Tensor]
    grid: tuple[int, int] | None = None

    @property
    def teacher_layers(self) -> tuple[int, ...]:
        """Layers of the teacher whose relations are read, ascending, from 1."""
        return tuple(sorted({teacher for teacher, _ in self.pairs}))

    @property
    def student_layers(self) -> tuple[int, ...]:
        """Layers of the student whose relations are read, ascending, from 1."""
        return tuple(sorted({student for _, student in self.pairs}))

    def __call__(self, teacher: Mapping[int, Relations], student: Mapping[int, Relations], mask: Tensor) -> Tensor:
        """The loss, a mean over pairs; gradients flow to the student alone.

        Args:
            teacher: By layer, queries, keys and values, each (texts, L, heads * head size).
            mask: (texts, L), nonzero where there is a token.
        """
        fixed = {layer: _fixed(teacher[layer]) for layer in self.teacher_layers}
        # Autocast would run the scores in half precision although they are given in single.
        with torch.autocast(mask.device.type, enabled=False):
            losses = torch.stack([self.compare(fixed[t], student[s], mask) for t, s in self.pairs])
        if self.grid is None:
            return losses.mean()
        return (emd_weights(losses.view(self.grid)).flatten() * losses).sum()


def _fixed(relations: Relations) -> Relations:
    # What inference mode made can enter no graph, not even as a constant; its copy can.
    query, key, value = (x.clone() if x.is_inference() else x.detach() for x in relations)
    return query, key, value


def attention_loss(
    spec: AttentionMaps | MiniLM | MiniLMv2, teacher: AttentionShape | None, student: AttentionShape
) -> AttentionLoss:
    """Make the loss that `spec` names.

    Args:
        teacher: The teacher's heads; None if its architecture shows no queries, keys and values.

    Raises:
        UsageError: The teacher shows no attention, a layer is not there, relation heads do not divide both
            widths, or heads that must be equally many are not.
    """
    if teacher is None:
        raise UsageError(
            f"loss {spec.name}: the teacher's architecture shows no queries, keys and values to read; "
            "choose a loss on logits or hidden states"
        )
    depths = len(teacher.heads), len(student.heads)
    if isinstance(spec, AttentionMaps):
        compare = partial(map_mse, teacher_head=teacher.head_size, student_head=student.head_size)
        grid = depths if spec.mapping.name == "emd" else None
        return AttentionLoss(layer_pairs(spec.mapping, *depths, embeddings=False), compare, grid)
    layer = _teacher_layer(spec, depths[0])
    pairs = ((layer, depths[1]),)
    if isinstance(spec, MiniLM):
        return AttentionLoss(pairs, partial(minilm, heads=_equal_heads(teacher, student, layer)))
    heads = _relation_heads(spec, teacher, student, layer)
    return AttentionLoss(pairs, partial(minilmv2, heads=heads, chunk=spec.chunk))


def _teacher_layer(spec: MiniLM | MiniLMv2, depth: int) -> int:
    if spec.teacher_layer is not None:
        if spec.teacher_layer > depth:
            raise UsageError(
                f"loss {spec.name}: teacher_layer {spec.teacher_layer} is not there; give one of 1 to {depth}"
            )
        return spec.teacher_layer
    if isinstance(spec, MiniLM):
        return depth
    return max(1, depth - 1) if depth <= _SHALLOW else round(_UPPER * depth)


def _equal_heads(teacher: AttentionShape, student: AttentionShape, layer: int) -> int:
    theirs, ours = teacher.heads[layer - 1], student.heads[-1]
    if theirs != ours:
        raise UsageError(
            f"loss minilm: the teacher's layer {layer} has {theirs} heads, the student's last {ours}; "
            "they must be equally many, or choose minilmv2, which splits heads anew"
        )
    return ours


def _relation_heads(spec: MiniLMv2, teacher: AttentionShape, student: AttentionShape, layer: int) -> int:
    theirs, ours = teacher.heads[layer - 1] * teacher.head_size, student.heads[-1] * student.head_size
    common = [n for n in range(1, min(theirs, ours) + 1) if theirs % n == 0 and ours % n == 0]
    if spec.relation_heads is None:
        return max((n for n in common if min(theirs, ours) // n >= _HEAD_FLOOR), default=1)
    if spec.relation_heads not in common:
        raise UsageError(
            f"loss minilmv2: relation_heads {spec.relation_heads} does not divide both widths, {theirs} of the "
            f"teacher's layer {layer} and {ours} of the student's last; give one of {', '.join(map(str, common))}"
        )
    return spec.relation_heads
