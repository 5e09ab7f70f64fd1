"""Where training runs. Nothing here may change a result except `precision`, which is part of every key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from accelerate import Accelerator
from torch import nn

from edgekd.progress import Progress
from edgekd.settings.distill import Training


@dataclass(frozen=True)
class Engine:
    """Device, threads and progress of a run.

    Attributes:
        device: "cuda" or "cpu".
        threads: Torch's intra-op threads on CPU.
    """

    device: str
    threads: int
    progress: Progress = field(default_factory=Progress)

    @staticmethod
    def detect(threads: int, progress: Progress | None = None) -> Engine:
        """Use the GPU if there is one, else `threads` CPU threads (set here, for the whole process)."""
        torch.set_num_threads(threads)
        return Engine("cuda" if torch.cuda.is_available() else "cpu", threads, progress or Progress())

    def accelerator(self) -> Accelerator:
        """The distributed engine: device placement, DDP under torchrun, gradient synchronisation."""
        return Accelerator(cpu=self.device == "cpu")

    def resolve(self, spec: Training) -> Training:
        """Replace precision "auto" by what this device computes natively."""
        return spec if spec.precision != "auto" else spec.model_copy(update={"precision": self.native_precision})

    @property
    def native_precision(self) -> Literal["bf16", "fp32"]:
        """The narrower of the two that this device computes in hardware."""
        native = torch.cuda.is_bf16_supported() if self.device == "cuda" else _cpu_has_bf16()
        return "bf16" if native else "fp32"

    def to_device(self, model: nn.Module) -> nn.Module:
        """Move a model to this engine's device."""
        return model.to(torch.device(self.device))

    @contextmanager
    def autocast(self, precision: str) -> Iterator[None]:
        """Compute in bf16 inside the block where asked; weights and gradients stay FP32, so no scaler is needed."""
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=precision == "bf16"):
            yield


def _cpu_has_bf16() -> bool:
    # Emulated bf16 is slower than FP32; only AVX512-BF16 and AMX compute it in hardware.
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe()) if probe is not None else False
