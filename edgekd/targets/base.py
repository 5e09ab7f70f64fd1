"""What a target is: a place where a model runs, that can be checked and timed. Imports no runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import Field

from edgekd.errors import UnavailableError
from edgekd.models.spec import Spec

if TYPE_CHECKING:
    from edgekd.latency.clocks import Clock
    from edgekd.latency.estimate import Floats
    from edgekd.latency.timer import Job, Timer
    from edgekd.targets.spec import TargetSpec

GraphLevel = Literal["disabled", "basic", "extended", "all"]


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


class Target(Protocol):
    """One way to run a model on a device."""

    @property
    def spec(self) -> TargetSpec:
        """The specification it was built from."""

    def check(self) -> None:
        """Make sure that it can run here.

        Raises:
            UnavailableError: A library, a provider or the device is missing.
            UsageError: More threads than this process may use.
        """

    @property
    def clock(self) -> Clock:
        """What its latency is judged on.

        Raises:
            UsageError: The specification asks for one that says nothing of this target.
        """

    def session_spec(self) -> SessionSpec:
        """The session options it runs with, unless a plan found better ones."""

    def session_variants(self) -> tuple[SessionSpec, ...]:
        """Session options worth measuring, `session_spec` first."""

    def usual_speed(self) -> Floats | None:
        """What the speed log of its machine holds, see `SpeedLog.looks`; None where none is kept."""

    def timer(self, jobs: Sequence[Job], processes: int = 1) -> Timer:
        """A timer of these jobs, or of none, each loaded in `processes` fresh processes. Use it in a `with`."""


def check_local(device: str) -> None:
    """Refuse to measure here what is meant for a device that is elsewhere.

    Raises:
        UnavailableError: The device is not this machine.
    """
    if device != "local":
        raise UnavailableError(
            f"device {device!r} is not this machine: run `edgekd probe make plan-kit.zip` here, "
            "the kit there, and `edgekd probe add device.json` here"
        )
