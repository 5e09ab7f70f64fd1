"""Training state on disk: safetensors and JSON, whole or not there."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_STATE = "state.json"


@dataclass
class State:
    """Where a training run is.

    Attributes:
        step: Optimiser steps done.
        best_score: Best validation score so far.
        best_step: The step it was seen at.
        looks_since_best: Looks at validation since then.
        loss_sum: Sum of the losses since the last look.
        loss_count: Their number.
        points: The curve so far.
        seconds: Time spent training, over all sittings.
        done: True once the run has ended.
    """

    step: int = 0
    best_score: float = float("-inf")
    best_step: int = 0
    looks_since_best: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    points: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    done: bool = False


class Checkpoint:
    """The one checkpoint of a run, `folder/step-<n>`; older ones are deleted after the new one is whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: State, model: nn.Module, optimizer: torch.optim.Optimizer, best: dict[str, Tensor]) -> None:
        """Write everything to a temporary folder, then rename it: a kill leaves the old checkpoint or the new one."""
        final = self.folder / f"step-{state.step:08d}{'-done' if state.done else ''}"
        temporary = self.folder / "writing"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        save_file(_contiguous(model.state_dict()), temporary / "model.safetensors")
        save_file(_moments(optimizer), temporary / "optimizer.safetensors")
        if best:
            save_file(best, temporary / "best.safetensors")
        values = state.__dict__ | {"best_score": state.best_score if best else None}
        (temporary / _STATE).write_text(json.dumps(values))
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        for older in self.folder.glob("step-*"):
            if older != final:
                shutil.rmtree(older)

    def keep(self, best: dict[str, Tensor]) -> Path:
        """Write the best weights beside the checkpoints, for somebody to look at; returns the file."""
        path = self.folder / "best.safetensors"
        save_file(best, path)
        return path

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[State, dict[str, Tensor]] | None:
        """Restore the newest whole checkpoint into model and optimiser; None if there is none.

        One is not whole where a kill came while it was being removed.
        """
        for folder in sorted(self.folder.glob("step-*"), reverse=True):
            try:
                values = json.loads((folder / _STATE).read_text())
                weights, moments = (load_file(folder / f"{name}.safetensors") for name in ("model", "optimizer"))
                best = {} if values["best_score"] is None else load_file(folder / "best.safetensors")
            except (OSError, ValueError, SafetensorError):
                continue
            if values["best_score"] is None:
                values["best_score"] = float("-inf")
            model.load_state_dict(weights)
            _restore_moments(optimizer, moments)
            return State(**values), best
        return None


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's weights on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in _contiguous(model.state_dict()).items()}


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses two names for one storage (tied weights): each gets its own copy.
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": torch.as_tensor(value) for i, entry in state.items() for key, value in entry.items()}


def _restore_moments(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    content = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    content["state"] = state
    optimizer.load_state_dict(content)
