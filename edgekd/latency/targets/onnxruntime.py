"""onnxruntime's CPU, CUDA and TensorRT providers: one class, the differences are data."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekd.errors import UnavailableError, require
from edgekd.latency.clocks import judged_clock
from edgekd.latency.machine import check_threads
from edgekd.latency.targets.base import check_local
from edgekd.settings.target import Clock, CpuTarget, CudaTarget, SessionSpec, TensorrtTarget

if TYPE_CHECKING:
    from edgekd.latency.interval import Floats
    from edgekd.latency.speed_log import SpeedLog
    from edgekd.latency.timer import Job, ProcessTimer

_BUILDS = ("onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class _Kind:
    providers: tuple[str, ...]
    extra: str
    needs: str


_KINDS = {
    "onnxruntime-cpu": _Kind(("CPUExecutionProvider",), "cpu", "pip install 'edgekd[cpu]'"),
    "onnxruntime-cuda": _Kind(
        ("CUDAExecutionProvider", "CPUExecutionProvider"),
        "gpu",
        "pip uninstall onnxruntime, then pip install 'edgekd[gpu]'; it also needs CUDA and cuDNN",
    ),
    "tensorrt": _Kind(
        ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
        "gpu",
        "pip uninstall onnxruntime, then pip install 'edgekd[gpu,tensorrt]'; it also needs CUDA",
    ),
}


class OnnxRuntimeTarget:
    """A target that onnxruntime serves on this machine."""

    def __init__(self, spec: CpuTarget | CudaTarget | TensorrtTarget, log: SpeedLog | None = None) -> None:
        self.spec, self._log = spec, log
        self._kind = _KINDS[spec.kind]

    @property
    def clock(self) -> Clock:
        """See `Target.clock`."""
        return judged_clock(self.spec.clock, self.spec.kind, self.spec.threads)

    def check(self) -> None:
        """See `Target.check`."""
        check_local(self.spec.device)
        self.clock  # noqa: B018 - refuses one that says nothing of this target
        builds = [name for name in _BUILDS if _installed(name)]
        if len(builds) > 1:
            raise UnavailableError(
                "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
                f"pip uninstall both, then pip install 'edgekd[{self._kind.extra}]'"
            )
        runtime = require("onnxruntime", self._kind.extra, "measure latency")
        wanted, found = self._kind.providers[0], list(runtime.get_available_providers())
        if wanted not in found:
            raise UnavailableError(
                f"the installed onnxruntime has no {wanted} (it has {', '.join(found)}): {self._kind.needs}"
            )
        check_threads(self.spec.threads)

    def session_spec(self) -> SessionSpec:
        """See `Target.session_spec`."""
        options: dict[str, str] = {}
        if self.spec.kind == "tensorrt" and "fp16" in self.spec.precisions:
            options["trt_fp16_enable"] = "True"
        providers = self._kind.providers
        return SessionSpec(providers=providers, provider_options=options, threads=self.spec.threads)

    def session_variants(self) -> tuple[SessionSpec, ...]:
        """See `Target.session_variants`: on a GPU there is nothing to choose from."""
        base = self.session_spec()
        if self.spec.kind != "onnxruntime-cpu":
            return (base,)
        changes: list[dict[str, Any]] = [{"arena": False}, {"graph_level": "extended"}]
        if base.threads > 1:
            # A thread that sleeps is slow to wake, one that spins takes its core from the others.
            changes.append({"spinning": False})
            # Small products gain nothing from many threads.
            changes += [{"threads": n} for n in sorted({1, base.threads // 2, base.threads - 1}) if n < base.threads]
        return (base, *(base.model_copy(update=change) for change in changes))

    def usual_speed(self) -> Floats | None:
        """See `Target.usual_speed`."""
        return None if self._log is None else self._log.looks()

    def timer(self, jobs: Sequence[Job], processes: int = 1) -> ProcessTimer:
        """See `Target.timer`."""
        from edgekd.latency.timer import ProcessTimer

        self.check()
        return ProcessTimer(jobs, self.session_spec().model_dump(mode="json"), processes, self._log)


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
