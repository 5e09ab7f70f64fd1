"""Distillation of what a masked LM says of hidden words, from raw text: "OD transfer" of Udagawa et al. (2023)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.distill.adapt import MaskedObjective
from edgekd.distill.losses.prediction import kl_divergence
from edgekd.distill.objective import Batch, Terms
from edgekd.errors import UsageError
from edgekd.models.fill_in import load_masked_lm
from edgekd.settings.losses import MlmLogits


@dataclass(frozen=True)
class VocabularyObjective:
    """T^2 KL of teacher and student over the vocabulary, at hidden tokens.

    The student has no head of its own: a projection takes its states to the teacher's width, and the teacher's head,
    frozen, reads them. The projection is left behind with the run.

    Attributes:
        spec: The loss.
        encoder: The teacher without its head, frozen.
        head: The teacher's head, frozen: states (n, width) to logits (n, vocabulary).
        hiding: Hides tokens; the same ones of a batch each time where nothing is trained.
        module: Student states (n, hidden) to (n, width).
    """

    spec: MlmLogits
    encoder: nn.Module
    head: nn.Module
    hiding: MaskedObjective
    module: nn.Module

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        """See `Objective`."""
        ids = batch.inputs["input_ids"]
        generator = None if self.module.training else torch.Generator().manual_seed(int(batch.indices[0]))
        shown, chosen = self.hiding.hide(ids.cpu(), batch.mask.cpu(), generator)
        at = torch.nonzero(chosen.to(ids.device), as_tuple=True)
        inputs = {**batch.inputs, "input_ids": shown.to(ids.device)}
        with torch.no_grad():
            taught: Tensor = self.head(self.encoder(**inputs).last_hidden_state[at])
        states: Tensor = model(**inputs, output_hidden_states=True).hidden_states[-1][at]
        guessed = self.head(self.module(states))
        return {"mlm_logits": kl_divergence(taught.float(), guessed.float(), self.spec.temperature)}


def vocabulary_objective(
    spec: MlmLogits, folder: Path, width: int, seed: int, device: torch.device
) -> VocabularyObjective:
    """Make the objective of a teacher's folder.

    Args:
        width: The student's.

    Raises:
        UsageError: The teacher has no masked-LM head of its own, or one that cannot be run by itself.
    """
    found = load_masked_lm(folder)
    if found.new_head:
        raise UsageError(
            f"--loss mlm_logits: {folder} holds no masked-LM head that could teach; take another loss, or the "
            "checkpoint with its head"
        )
    model = found.model.eval().requires_grad_(False).to(device)
    head = _head(model)
    if head is None:
        raise UsageError(
            f"--loss mlm_logits: the masked-LM head of {model.config.model_type} cannot be run by itself; take a BERT, "
            "RoBERTa, XLM-R, DistilBERT or ELECTRA teacher, or another loss"
        )
    hidden = int(model.config.hidden_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projection = nn.Linear(width, hidden)
    if width == hidden:
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)
    hiding = MaskedObjective(None, found.mask, found.special, found.vocabulary, spec.ratio)
    return VocabularyObjective(spec, model.base_model, head, hiding, projection)


def _head(model: nn.Module) -> nn.Module | None:
    """What turns last states into logits, by the names that transformers gives it; None where it has another form."""
    for names in (
        ("cls",),
        ("lm_head",),
        ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
        ("generator_predictions", "generator_lm_head"),
    ):
        parts = [getattr(model, name, None) for name in names]
        if all(isinstance(part, nn.Module) for part in parts):
            return nn.Sequential(*(part for part in parts if part is not None))
    return None
