"""Stage `adapt`: masked-language-model training of an encoder on the target text, before `teach` gives it labels.

Task-adaptive pretraining (Gururangan et al., 2020, https://arxiv.org/abs/2004.10964): it needs no labels, and what the
teacher gains by it its students inherit.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.data.augment.masked import only_at
from edgekd.data.split import TaskData
from edgekd.data.transfer_set import target_texts
from edgekd.distill.batches import fingerprint
from edgekd.distill.engine import Engine
from edgekd.distill.loop import held_out_loss, train
from edgekd.distill.objective import Batch, Terms
from edgekd.distill.on_the_fly import draw_share
from edgekd.distill.teach import POOLING, copy_tokenizer
from edgekd.errors import DataError
from edgekd.models.fill_in import load_masked_lm
from edgekd.models.quiet import quiet_transformers
from edgekd.models.teacher import load_body
from edgekd.models.tokenizer import folder_tokenizer
from edgekd.runtime.encodings import Encodings
from edgekd.settings.distill import MaskedLM
from edgekd.settings.transfer import Transfer
from edgekd.store import Artefact, Store
from edgekd.tasks.build import build_task

VERSION = 2

# Of the tokens that are to be guessed, so many are hidden and so many become another; the rest stay (BERT's recipe).
_HIDDEN, _OTHER = 0.8, 0.1

# Validation texts that judge.
_MOST_JUDGES = 2000


def adapt(
    store: Store,
    engine: Engine,
    encoder: Path,
    encoder_id: str,
    data: TaskData,
    max_length: int,
    spec: MaskedLM,
    seed: int,
) -> Artefact:
    """Train `encoder` to guess hidden words of the target text: train and unlabeled; validation judges.

    Args:
        store: Where the encoder is kept.
        encoder: Folder of a transformers encoder with tokenizer.json.
        max_length: Longer texts are cut.
        spec: How much is hidden, and the schedule.
        seed: Decides what is hidden, the order of the texts, dropout and a new head's weights.

    Returns:
        A folder that transformers' `AutoModel` loads, with the tokenizer; its result holds the curve and the held-out
        loss, nats a guessed token, before and after.

    Raises:
        DataError: There is no text to learn from, or to judge by.
        UsageError: The encoder has no masked LM, or its tokenizer no mask.
    """
    if data.validation is None or not len(data.validation):
        raise DataError("teach.adapt mlm needs validation texts: give more rows, or a file validation.jsonl")
    task, tokenizer = build_task(data.task, data.labels), folder_tokenizer(encoder)
    learn = task.encode(tokenizer, target_texts(data, Transfer(), seed).split, max_length)
    judges = data.validation.take(range(min(_MOST_JUDGES, len(data.validation))))
    judge = task.encode(tokenizer, judges, max_length)
    spec = spec.model_copy(update={"training": engine.resolve(spec.training)})
    key = {
        "encoder": encoder_id,
        "texts": [fingerprint(learn), fingerprint(judge)],
        "spec": spec.model_dump(mode="json"),
        "seed": seed,
    }
    return store.make("adapt", VERSION, key, lambda work: _adapt(engine, encoder, learn, judge, spec, seed, work))


@dataclass(frozen=True)
class MaskedObjective:
    """Cross-entropy of the hidden tokens.

    Attributes:
        output: The layer that gives the logits: it is run on the hidden tokens alone, a seventh of its work. None
            where the model has no such layer by itself.
        mask: Id that hides a token.
        special: Ids that are never hidden.
        vocabulary: Ids below this may stand for a token.
        ratio: Share of a text's tokens.
        fixed: Hide the same tokens of a batch each time, to judge by; else draw from torch's global generator.
    """

    output: nn.Linear | None
    mask: int
    special: tuple[int, ...]
    vocabulary: int
    ratio: float
    fixed: bool = False
    module: nn.Module | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        """See `Objective`."""
        ids = batch.inputs["input_ids"]
        generator = torch.Generator().manual_seed(int(batch.indices[0])) if self.fixed else None
        shown, chosen = self.hide(ids.cpu(), batch.mask.cpu(), generator)
        at = tuple(places.to(ids.device) for places in torch.nonzero(chosen, as_tuple=True))
        with only_at(self.output, at):
            logits = model(**{**batch.inputs, "input_ids": shown.to(ids.device)}).logits
        rows = logits if self.output is not None else logits[at]
        return {"mlm": F.cross_entropy(rows.float(), ids[at]) if len(rows) else rows.sum() * 0.0}

    def hide(self, ids: Tensor, mask: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Hide tokens of a batch.

        Args:
            ids: (B, L).
            mask: (B, L), nonzero at tokens.
            generator: Draws; None is torch's global one.

        Returns:
            The ids as the model sees them, and which are to be guessed, (B, L) both; at least one a text that has any.
        """
        words = mask.bool() & ~torch.isin(ids, torch.tensor(self.special))
        chosen = draw_share(words, self.ratio, generator)
        fate = torch.rand(ids.shape, generator=generator)
        others = torch.randint(self.vocabulary, ids.shape, generator=generator)
        shown = torch.where(chosen & (fate < _HIDDEN), self.mask, ids)
        return torch.where(chosen & (fate >= _HIDDEN) & (fate < _HIDDEN + _OTHER), others, shown), chosen


def _adapt(
    engine: Engine, encoder: Path, learn: Encodings, judge: Encodings, spec: MaskedLM, seed: int, work: Path
) -> dict[str, Any]:
    torch.manual_seed(seed)
    body = load_body(encoder).model
    found = load_masked_lm(encoder)
    model = found.model
    engine.to_device(model)
    output = model.get_output_embeddings()
    parts = (output if isinstance(output, nn.Linear) else None, found.mask, found.special, found.vocabulary)
    objective = MaskedObjective(*parts, spec.ratio)
    judging = MaskedObjective(*parts, spec.ratio, fixed=True)
    before = held_out_loss(model, judging, judge, engine)
    trained = train(
        model, learn, objective, lambda m: -held_out_loss(m, judging, judge, engine), spec.training, engine,
        work / "state", "teacher: adapt to the text", seed=seed,
    )  # fmt: skip
    # The pooler is no part of a masked LM: it stays as it was.
    body.load_state_dict(model.to("cpu").base_model.state_dict(), strict=False)
    with quiet_transformers():
        body.save_pretrained(work)
    copy_tokenizer(encoder, work)
    if (encoder / POOLING).is_file():
        (work / POOLING).parent.mkdir()
        shutil.copyfile(encoder / POOLING, work / POOLING)
    shutil.rmtree(work / "state")
    return {
        "head": "new" if found.new_head else "own",
        "texts": len(learn),
        "held_out_texts": len(judge),
        "held_out_before": before,
        "held_out_after": -trained.best_score,
        "points": [p | {"score": -p["score"]} for p in trained.points],
        "steps": trained.steps,
        "seconds": trained.seconds,
    }
