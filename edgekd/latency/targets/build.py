"""From a target's specification to the target; the implementation is imported only when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.latency.targets.base import Target
from edgekd.settings.target import FakeTarget, TargetSpec

if TYPE_CHECKING:
    from edgekd.latency.speed_log import SpeedLog


def build_target(spec: TargetSpec, log: SpeedLog | None = None) -> Target:
    """Build the target that `spec` names. Checks nothing: see `Target.check`.

    Args:
        log: Speed log of this machine, which measurements are added to and judged beside.
    """
    if isinstance(spec, FakeTarget):
        from edgekd.latency.targets.fake import FakeTargetRuntime

        return FakeTargetRuntime(spec)
    from edgekd.latency.targets.onnxruntime import OnnxRuntimeTarget

    return OnnxRuntimeTarget(spec, log)
