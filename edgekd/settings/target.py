"""Targets by name: where and how a model runs. Imports neither torch nor onnxruntime."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from edgekd.errors import UsageError
from edgekd.settings.base import Spec

Precision = Literal["fp32", "int8", "fp16"]
GraphLevel = Literal["disabled", "basic", "extended", "all"]
Clock = Literal["service", "response"]
AskedClock = Literal["auto", "service", "response"]
InstructionSet = Literal["auto", "arm64", "avx2", "avx512", "avx512_vnni"]


class CpuTarget(Spec):
    """onnxruntime's CPU provider.

    Attributes:
        threads: Intra-op threads; the session is never sized to the host.
        precisions: What may be deployed there, in the order tried.
        instruction_set: Preset of the INT8 quantiser; "auto" is read off this machine.
        device: "local", or the name of a device that is elsewhere (then a probe is needed).
        clock: What latency is judged on; "auto" as `edgekd.latency.clocks.judged_clock` says.
    """

    kind: Literal["onnxruntime-cpu"] = "onnxruntime-cpu"
    threads: int = Field(default=1, ge=1)
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    instruction_set: InstructionSet = "auto"
    device: str = "local"
    clock: AskedClock = "auto"

    @field_validator("precisions")
    @classmethod
    def _of_a_cpu(cls, precisions: tuple[Precision, ...]) -> tuple[Precision, ...]:
        if "fp16" in precisions:
            raise ValueError("a CPU computes fp16 no faster than fp32: choose fp32 or int8, or a GPU's profile")
        return precisions


class CudaTarget(Spec):
    """onnxruntime's CUDA provider. A silent fall-back to the CPU is an error."""

    kind: Literal["onnxruntime-cuda"] = "onnxruntime-cuda"
    threads: int = Field(default=1, ge=1)
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    device: str = "local"
    clock: AskedClock = "auto"


class TensorrtTarget(Spec):
    """onnxruntime's TensorRT provider."""

    kind: Literal["tensorrt"] = "tensorrt"
    threads: int = Field(default=1, ge=1)
    precisions: tuple[Precision, ...] = ("fp16",)
    device: str = "local"
    clock: AskedClock = "auto"


class FakeTarget(Spec):
    """A target for tests: latency follows from FLOPs by a fixed formula, nothing is measured.

    Attributes:
        gflops: Speed in 1e9 FLOPs a second; INT8 counts as `int8_gain` times faster.
        noise: Relative spread of the pretended samples.
        bias: What the graphs written for a plan seem faster by than the exported file (1.0: none).
    """

    kind: Literal["fake"] = "fake"
    threads: int = Field(default=1, ge=1)
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    device: str = "local"
    clock: AskedClock = "auto"
    gflops: float = 10.0
    int8_gain: float = 2.0
    noise: float = 0.01
    bias: float = 1.0


TargetSpec = Annotated[CpuTarget | CudaTarget | TensorrtTarget | FakeTarget, Field(discriminator="kind")]


def planned_precisions(target: TargetSpec) -> tuple[Precision, ...]:
    """Precisions of the files that a plan for the target may choose from; TensorRT makes FP16 of the FP32 file itself.

    Raises:
        UsageError: There is none: FP16 is written beside a bundle's file, and no plan chooses it.
    """
    found = tuple(precision for precision in target.precisions if precision in ("fp32", "int8"))
    if not found and target.kind == "tensorrt":
        return ("fp32",)
    if not found:
        raise UsageError("--precision fp16: FP16 is an extra file, which no plan chooses: add fp32")
    return found


class SessionSpec(Spec):
    """Options of an onnxruntime session: what decides its latency beside the graph.

    Attributes:
        providers: Execution providers in order; the first must be the one that runs.
        provider_options: Options of the first provider.
        threads: Intra-op threads; inter-op is always 1.
        graph_level: Graph optimisations.
        spinning: Whether idle threads spin: faster next call, but they burn the container's quota meanwhile.
        arena: Whether the CPU allocator keeps an arena.
    """

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    provider_options: dict[str, str] = Field(default_factory=dict)
    threads: int = Field(default=1, ge=1)
    graph_level: GraphLevel = "all"
    spinning: bool = True
    arena: bool = True
