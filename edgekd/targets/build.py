"""From a target's specification to the target; the implementation is imported only when asked for."""

from __future__ import annotations

from edgekd.targets.base import Target
from edgekd.targets.spec import FakeTarget, TargetSpec


def build_target(spec: TargetSpec) -> Target:
    """Build the target that `spec` names. Checks nothing: see `Target.check`."""
    if isinstance(spec, FakeTarget):
        from edgekd.targets.fake import FakeTargetRuntime

        return FakeTargetRuntime(spec)
    from edgekd.targets.onnxruntime import OnnxRuntimeTarget

    return OnnxRuntimeTarget(spec)
