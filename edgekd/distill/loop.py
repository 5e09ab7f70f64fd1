"""The training loop: one for teachers, students and baselines. Resumes exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from edgekd.distill.batches import count_batches, epoch_batches, inputs_of
from edgekd.distill.checkpoint import Checkpoint, State, snapshot
from edgekd.distill.engine import Engine
from edgekd.distill.losses.prediction import is_finite
from edgekd.distill.objective import CHANGED, LABELS, MIXED, Batch, Objective
from edgekd.errors import EdgekdError
from edgekd.runtime.encodings import Encodings
from edgekd.settings.distill import Training

# Seconds between two checkpoints, what a kill can cost; more where saving is slow, so that it takes at most 3%.
_CHECKPOINT_SECONDS, _SAVING_SHARE = 20.0, 0.03


@dataclass(frozen=True)
class Trained:
    """What a training run did.

    Attributes:
        best_score: Best validation score, at most 1.
        best_step: The step whose weights were kept.
        steps: Steps done.
        planned_steps: Steps asked for.
        points: [{step, epoch, loss, score, seconds}], one a look at validation.
        seconds: Training time, validation included.
    """

    best_score: float
    best_step: int
    steps: int
    planned_steps: int
    points: list[dict[str, Any]]
    seconds: float


def train(
    model: nn.Module,
    encodings: Encodings,
    objective: Objective,
    evaluate: Callable[[nn.Module], float],
    spec: Training,
    engine: Engine,
    work: Path,
    title: str,
    *,
    seed: int,
    max_steps: int | None = None,
    judge_start: bool = False,
) -> Trained:
    """Train `model` in place and leave the weights of the best look at validation in it.

    The order of the texts and dropout follow from (seed, step) alone, so a run that was killed and resumed gives
    the same bytes as one that was not.

    Args:
        objective: Runs the model on a batch and gives the loss; what it learns itself is trained along.
        evaluate: Validation score of the model, higher is better.
        spec: The schedule; its precision must be resolved (`Engine.resolve`).
        work: Folder for checkpoints; what an interrupted run left there is used.
        seed: Decides the order of the texts and dropout.
        max_steps: The schedule's length where the epochs are more.
        judge_start: The weights that it begins with may be the best: look at validation before the first step.

    Raises:
        EdgekdError: Loss, gradient or weights became NaN or infinite; the best weights so far stay in `work`.
    """
    run = _Run(model, encodings, objective, evaluate, spec, engine, Checkpoint(work), seed, max_steps)
    if judge_start and not run.state.points:
        run.look()
    with engine.progress.bar(title, run.total) as bar:
        while not run.state.done:
            run.advance()
            bar.update(run.state.step, run.note())
    return run.finish()


@torch.no_grad()
def held_out_loss(
    model: nn.Module, objective: Objective, encodings: Encodings, engine: Engine, batch_size: int = 64
) -> float:
    """Mean loss of an objective that needs no labels on texts that it is not trained on, in FP32.

    Args:
        objective: Reads teacher and student alone.
        batch_size: Texts a batch, those of like length together.
    """
    whole = [m for m in (model, objective.module) if m is not None]
    modes = [m.training for m in whole]
    for module in whole:
        module.eval()
    order = np.argsort(encodings.lengths, kind="stable")
    total = 0.0
    # A single text left over joins the batch before it: some losses tell a text from the others of its batch.
    parts = max(1, math.ceil((len(order) - 1) / batch_size))
    for indices in np.array_split(order, parts):
        batch = Batch(encodings, indices, inputs_of(encodings, indices, torch.device(engine.device)))
        terms = objective(model, batch)
        total += len(indices) * sum(float(term) for name, term in terms.items() if name not in (LABELS, MIXED, CHANGED))
    for module, mode in zip(whole, modes, strict=True):
        module.train(mode)
    return total / len(order)


class _Run:
    def __init__(
        self,
        model: nn.Module,
        encodings: Encodings,
        objective: Objective,
        evaluate: Callable[[nn.Module], float],
        spec: Training,
        engine: Engine,
        checkpoint: Checkpoint,
        seed: int,
        max_steps: int | None,
    ) -> None:
        self.encodings, self.objective, self.evaluate = encodings, objective, evaluate
        self.spec, self.engine, self.checkpoint, self.seed = spec, engine, checkpoint, seed
        _set_dropout(model, spec.dropout)
        _set_words(model, spec.freeze_words)
        self.accelerator: Accelerator = engine.accelerator()
        self.plain = engine.to_device(model)
        beside = objective.module
        # All that is trained, the model first; what is learned beside it is checkpointed too, but never kept.
        self.whole = nn.ModuleList([model] if beside is None else [model, engine.to_device(beside)])
        optimizer = torch.optim.AdamW(
            _groups(self.whole, spec), lr=spec.learning_rate, fused=True
        )  # fused: 6x faster than the default on CPU, where the embedding dominates the step
        restored = checkpoint.load(self.whole, optimizer)
        self.state, self.best = restored if restored is not None else (State(), {})
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.steps_per_epoch = math.ceil(count_batches(len(encodings), spec.batch_size) / self.world)
        self.total = max(1, round(spec.epochs * self.steps_per_epoch))
        if max_steps is not None:
            self.total = min(self.total, max_steps)
        self.look_every = max(1, self.total // spec.evaluations)
        self.saved_at, self.pause = time.monotonic(), _CHECKPOINT_SECONDS
        self._epoch, self._batches = -1, [np.empty(0, dtype=np.int64)]

    def advance(self) -> None:
        """One optimiser step, and a look at validation and a checkpoint where they are due."""
        started = time.monotonic()
        self._step()
        if self.state.step % self.look_every == 0 or self.state.step >= self.total:
            self.look()
        self.state.seconds += time.monotonic() - started
        if self.state.step >= self.total or self.state.looks_since_best >= self.spec.patience:
            self.state.done = True
        if self.state.done or time.monotonic() - self.saved_at > self.pause:
            self._save()

    def note(self) -> str:
        """What the bar says beside the time left."""
        if not self.state.points:
            return ""
        best = self.state.best_score
        # What is negative is a loss that is to fall: of the metrics only a correlation can be, and no best one is.
        return f"validation {100 * best:.1f}" if best >= 0 else f"held-out loss {-best:.4g}"

    def finish(self) -> Trained:
        """Put the best weights into the model and report."""
        self.plain.load_state_dict(self.best)
        state = self.state
        return Trained(state.best_score, state.best_step, state.step, self.total, state.points, state.seconds)

    def _step(self) -> None:
        indices = self._indices(self.state.step)
        # Seeded a step, not a run: dropout then needs no stored generator state to resume exactly.
        torch.manual_seed((self.seed << 32) + self.state.step * self.world + self.rank)
        self.whole.train()
        batch = Batch(self.encodings, indices, inputs_of(self.encodings, indices, self.accelerator.device))
        with self.engine.autocast(self.spec.precision):
            terms = self.objective(self.model, batch)
        for name, term in terms.items():
            if not is_finite(term):
                raise self._diverged(f"the loss ({name}) became {term.item()}")
        loss = torch.stack(list(terms.values())).sum()
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.whole.parameters(), self.spec.max_grad_norm)
        if norm is not None and not math.isfinite(norm):
            raise self._diverged(f"the gradient of {' + '.join(terms)} became {float(norm)}")
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self._schedule(self.state.step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state.step += 1
        self.state.loss_sum += float(loss.detach())
        self.state.loss_count += 1

    def _diverged(self, what: str) -> EdgekdError:
        """The error that ends the run; the best weights so far are kept beside the checkpoints."""
        kept = "there was no look at validation before"
        if self.best:
            kept = (
                f"the weights of step {self.state.best_step}, the best so far, are in {self.checkpoint.keep(self.best)}"
            )
        return EdgekdError(
            f"{what} at step {self.state.step}: lower the learning rate (now {self.spec.learning_rate:g}); {kept}"
        )

    def _indices(self, step: int) -> np.ndarray:
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._batches = epoch_batches(self.encodings.lengths, self.spec.batch_size, self.seed, epoch)
        chosen: np.ndarray = self._batches[(within * self.world + self.rank) % len(self._batches)]
        return chosen

    def _schedule(self, step: int) -> float:
        warmup: int = max(1, round(self.spec.warmup * self.total))
        if step < warmup:
            return (step + 1) / warmup
        return float(max(0.0, (self.total - step) / max(1, self.total - warmup)))

    def look(self) -> None:
        """Judge the weights as they are, and keep them where they are the best."""
        score = self.evaluate(self.plain)
        state = self.state
        if not math.isfinite(score) or not all(bool(p.isfinite().all()) for p in self.plain.parameters()):
            raise self._diverged("the weights became NaN or infinite")
        state.points.append(
            {
                "step": state.step,
                "epoch": state.step / self.steps_per_epoch,
                "loss": state.loss_sum / state.loss_count if state.loss_count else None,
                "score": score,
                "seconds": state.seconds,
            }
        )
        state.loss_sum, state.loss_count = 0.0, 0
        if score > state.best_score:
            state.best_score, state.best_step, state.looks_since_best = score, state.step, 0
            self.best = snapshot(self.plain)
        else:
            state.looks_since_best += 1

    def _save(self) -> None:
        started = time.monotonic()
        if self.accelerator.is_main_process:
            self.checkpoint.save(self.state, self.whole, self.optimizer.optimizer, self.best)
        self.saved_at = time.monotonic()
        self.pause = max(_CHECKPOINT_SECONDS, (self.saved_at - started) / _SAVING_SHARE)


# How the word embedding's name ends, in the families of transformers and in the student.
_WORDS = ("word_embeddings.weight", "embeddings.word.weight")

# Parts of the names of a task head's weights, over the families of transformers and the student.
_HEADS = ("classifier", "pooler", "score.", "head.")


def _groups(whole: nn.ModuleList, spec: Training) -> list[dict[str, Any]]:
    """Parameters by owner, learning rate and decay, the model first.

    Only matrices decay: biases and norms are scales, not directions.
    """
    groups: dict[tuple[bool, bool, bool], dict[str, Any]] = {}
    for name, parameter in whole.named_parameters():
        if not parameter.requires_grad:
            continue
        beside = not name.startswith("0.")
        head, matrix = not beside and any(part in name for part in _HEADS), parameter.dim() > 1
        decay = spec.weight_decay if matrix else 0.0
        peak = spec.learning_rate * (spec.head_rate if head else 1.0)
        group = groups.setdefault((beside, head, matrix), {"params": [], "weight_decay": decay, "peak": peak})
        group["params"].append(parameter)
    return list(groups.values())


def _set_words(model: nn.Module, frozen: bool) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith(_WORDS):
            parameter.requires_grad_(not frozen)


def _set_dropout(model: nn.Module, share: float | None) -> None:
    if share is None:
        return
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
