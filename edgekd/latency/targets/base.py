"""What a target is: a place where a model runs, that can be checked and timed. Imports no runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from edgekd.errors import UnavailableError
from edgekd.settings.target import SessionSpec

if TYPE_CHECKING:
    from edgekd.latency.interval import Floats
    from edgekd.latency.timer import Job, Timer
    from edgekd.settings.target import Clock, TargetSpec


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
