"""Losses on hidden states, layer pair by layer pair. The module owns what is learned beside the student."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.settings.losses import HiddenStates

# (teacher layer, student layer); 0 is the embeddings' output.
Pair = tuple[int, int]


class HiddenLoss(nn.Module):
    """`hidden_mse`, `hidden_cosine`, `pkd` or `hidden_ce` over pairs of layers.

    Where the widths differ, a linear map without bias takes the student's states to the teacher's width: one for
    each pair, as a student layer that follows two teacher layers cannot look like both; under EMD one for each
    student layer, as a distance between layers means little if each pair has a map of its own. Equal widths are
    compared as they are. The maps are parameters of this module, not of the student, and end with it.

    Computed in FP32, outside autocast. No gradient reaches the teacher.

    Args:
        spec: Which loss.
        pairs: (teacher layer, student layer), 0 being the embeddings' output.
        teacher_width: Width of the teacher's states.
        student_width: Width of the student's states.
        seed: Decides the maps' first weights; the global generator is neither read nor advanced.
    """

    def __init__(
        self,
        spec: HiddenStates,
        pairs: Sequence[Pair],
        teacher_width: int,
        student_width: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.spec, self.pairs = spec, tuple(pairs)
        students = sorted({student for _, student in self.pairs})
        if spec.mapping.name == "emd":
            self._map_of = [students.index(student) for _, student in self.pairs]
        else:
            self._map_of = list(range(len(self.pairs)))
        self.projections = nn.ModuleList()
        if teacher_width != student_width:
            generator = torch.Generator().manual_seed(seed)
            for _ in range(max(self._map_of) + 1):
                self.projections.append(_orthogonal(student_width, teacher_width, generator))

    def costs(self, teacher_states: Sequence[Tensor], student_states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """The loss of each pair.

        Args:
            teacher_states: States (B, S, teacher width) of layer 0, 1, .. of the teacher.
            student_states: States (B, S, student width) of layer 0, 1, .. of the student, on the same tokens.
            mask: (B, S), nonzero at tokens; what is elsewhere is never read.

        Returns:
            (pairs,), in the order of `pairs`.
        """
        with torch.autocast(mask.device.type, enabled=False):
            # PKD reads the first token, the others every token.
            kept = None if self.spec.name == "pkd" else mask.flatten().nonzero().squeeze(1)
            teacher = {i: _rows(teacher_states[i].detach(), kept) for i in {t for t, _ in self.pairs}}
            student = {i: _rows(student_states[i], kept) for i in {s for _, s in self.pairs}}
            if self.projections:
                seen = {(s, k): self.projections[k](student[s]) for (_, s), k in self._mapped()}
            else:
                seen = {(s, k): student[s] for (_, s), k in self._mapped()}
            return torch.stack([self._cost(teacher[t], seen[s, k]) for (t, s), k in self._mapped()])

    def forward(
        self,
        teacher_states: Sequence[Tensor],
        student_states: Sequence[Tensor],
        mask: Tensor,
        weights: Tensor | None = None,
    ) -> Tensor:
        """The weighted sum of `costs`, a scalar.

        Args:
            teacher_states: As in `costs`.
            student_states: As in `costs`.
            mask: As in `costs`.
            weights: (pairs,); None weighs all alike, 1 / pairs.
        """
        return weigh(self.costs(teacher_states, student_states, mask), weights)

    def _mapped(self) -> list[tuple[Pair, int]]:
        return list(zip(self.pairs, self._map_of, strict=True))

    def _cost(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Loss of rows (n, width): every row is a token, or a text's first token under PKD."""
        if self.spec.name == "hidden_mse":
            return F.mse_loss(student, teacher)
        if self.spec.name == "hidden_cosine":
            return (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()
        if self.spec.name == "pkd":
            return (F.normalize(student, dim=-1) - F.normalize(teacher, dim=-1)).square().sum(-1).mean()
        return -(F.softmax(teacher, dim=-1) * F.log_softmax(student, dim=-1)).sum(-1).mean()


def weigh(costs: Tensor, weights: Tensor | None) -> Tensor:
    """Sum of weights times costs, both (pairs,); the costs' mean without weights."""
    return costs.mean() if weights is None else (weights * costs).sum()


def _rows(states: Tensor, kept: Tensor | None) -> Tensor:
    """FP32 rows (n, width): those of the flattened tokens in `kept`, or each text's first token."""
    chosen = states[:, 0] if kept is None else states.flatten(0, 1).index_select(0, kept)
    return chosen.float()


def _orthogonal(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A map without bias that keeps lengths and angles (those it can, if `outputs` is fewer)."""
    # By way of the meta device: the constructor would draw weights from the global generator.
    layer = nn.Linear(inputs, outputs, bias=False, device="meta").to_empty(device="cpu")
    nn.init.orthogonal_(layer.weight, generator=generator)
    return layer
