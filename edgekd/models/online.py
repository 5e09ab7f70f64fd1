"""A teacher that is run beside its student: its hidden states, queries, keys and values, and logits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import UsageError
from edgekd.models.student import Mix, StudentOutput, from_weights
from edgekd.models.teacher import Encoder
from edgekd.models.tokenizer import one_line
from edgekd.settings.shape import EncoderShape


@dataclass(frozen=True)
class OnlineTeacher:
    """A frozen teacher.

    Attributes:
        model: In eval mode. BERT-like teachers run as a student of full shape, which computes the same.
        shape: Its shape; None for a foreign architecture, which shows hidden states and logits alone.
        width: Hidden size.
        depth: Number of layers.
    """

    model: nn.Module
    shape: EncoderShape | None
    width: int
    depth: int

    @staticmethod
    def of(teacher: Encoder) -> OnlineTeacher:
        """Make one of a loaded teacher, or of an encoder without a head."""
        if teacher.hosted is None:
            return OnlineTeacher(_frozen(teacher.model), None, teacher.width, teacher.depth)
        shape, weights = teacher.hosted
        names = [str(i) for i in range(shape.head.columns if shape.head else 0)]
        return OnlineTeacher(_frozen(from_weights(shape, weights, names)), shape, shape.hidden, shape.depth)

    @torch.no_grad()
    def __call__(
        self,
        inputs: Mapping[str, Tensor],
        *,
        hidden: bool = False,
        relations: Collection[int] = (),
        last_layer: int | None = None,
        mix: Mix | None = None,
    ) -> StudentOutput:
        """Run it on B texts of L tokens; see `StudentModel.forward`.

        Args:
            inputs: `input_ids` and the rest, (B, L).
            hidden: Return every layer's states.
            relations: Layers (from 1) whose queries, keys and values are returned.
            last_layer: Run no higher; None runs the head too. A foreign teacher always runs whole.
            mix: Mix the texts' embeddings; for BERT-like teachers alone.
        """
        if self.shape is not None:
            found: StudentOutput = self.model(
                **inputs, output_hidden_states=hidden, output_relations=relations, last_layer=last_layer, mix=mix
            )
            return found
        try:
            output: Any = self.model(**inputs, output_hidden_states=hidden)
        except ValueError as error:
            raise UsageError(f"the teacher answers no batch of texts in transformers: {one_line(error)}") from error
        return StudentOutput(logits=getattr(output, "logits", None), hidden_states=output.hidden_states)


def _frozen(model: nn.Module) -> nn.Module:
    model.eval()
    return model.requires_grad_(False)
