"""The device that a plan is for: this machine, or one that is elsewhere and known by its probe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from edgekd.export.choice import GraphTarget
from edgekd.export.stage import ExportJob
from edgekd.inputs.gather import Inputs
from edgekd.latency.machine import detect_instruction_set, fingerprint, read_machine
from edgekd.latency.targets.base import Target
from edgekd.latency.targets.build import build_target
from edgekd.remote.devices import find_probe
from edgekd.remote.probe import Probe
from edgekd.session import Session
from edgekd.settings.target import CpuTarget, FakeTarget, TargetSpec
from edgekd.store import Store


@dataclass(frozen=True)
class Device:
    """The target, ready to be measured on.

    Attributes:
        fingerprint: The machine's.
        instruction_set: Preset of the INT8 quantiser; None where INT8 is not deployed.
        probe: What the device's probe said, where it is elsewhere.
    """

    target: Target
    fingerprint: str
    instruction_set: str | None
    probe: Probe | None = None

    @cached_property
    def here(self) -> Target:
        """The target, or this machine's CPU where the device is elsewhere: tokenising is measured on it."""
        return self.target if self.probe is None else build_target(CpuTarget())

    @staticmethod
    def of(target: Target, store: Store) -> Device:
        """Check the target and read the machine, or find the probe of a device that is elsewhere.

        Raises:
            UnavailableError: It cannot run here, and there is no probe of it.
        """
        spec, instruction_set = target.spec, None
        probe = find_probe(store, spec.device)
        if probe is not None:
            chosen = probe.instruction_set if "int8" in spec.precisions else None
            return Device(target, probe.fingerprint, chosen, probe)
        target.check()
        if "int8" in spec.precisions:
            asked = spec.instruction_set if isinstance(spec, CpuTarget) else "auto"
            instruction_set = detect_instruction_set() if asked == "auto" else asked
        machine = "fake" if isinstance(spec, FakeTarget) else fingerprint(read_machine())
        return Device(target, machine, instruction_set)


def device_of(session: Session, target: TargetSpec) -> Device:
    """The device that a request names, with this session's speed log and store.

    Raises:
        UnavailableError: See `Device.of`.
    """
    return Device.of(build_target(target, session.log), session.store)


def wanted_of(inputs: Inputs, device: Device) -> ExportJob:
    """The ONNX files that the profile asks for.

    Raises:
        UsageError: Forms of the graph are to be measured on a device that is elsewhere.
    """
    profile = inputs.profile
    batch_size = profile.workload.batch_size
    place = GraphTarget(device.here, device.fingerprint, inputs.max_length, batch_size, device.probe is not None)
    if profile.export.choose == "measured":
        place.check()
    return ExportJob(
        options=profile.export,
        quantize=device.instruction_set,
        max_drop=profile.accept.max_drop,
        batch_size=batch_size,
        texts=inputs.encodings,
        place=place,
        fp16="fp16" in profile.target.precisions,
    )
