"""Devices that are elsewhere: what their probes said, by name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from edgekd.errors import UsageError
from edgekd.profiles import available, load_profile
from edgekd.settings.profile import parse
from edgekd.store import Store

if TYPE_CHECKING:
    from edgekd.remote.probe import Probe
    from edgekd.settings.profile import Profile
    from edgekd.settings.target import Precision

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def add_device(store: Store, path: Path, name: str | None = None) -> Profile:
    """Keep a device.json under a name, with a profile that plans for that device.

    Args:
        path: What `python probe.py` wrote there.
        name: The device's; None makes one of its CPU's.

    Returns:
        The profile, which `edgekd.profiles.load_profile` finds by that name from now on.

    Raises:
        UsageError: The file was edited, is of another schema version, or the name cannot be a device's.
    """
    from edgekd.remote.probe import read_probe

    probe = read_probe(path)
    name = name or _name_of(probe)
    if not _NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}: letters, digits, '.', '_' and '-' only")
    shipped = available(store).get(name)
    taken = shipped is not None and shipped.parent != store.device_folder(name)
    if name == "local" or (taken and load_profile(name, store).target.device == "local"):
        raise UsageError(f"--name {name}: that is a profile of this machine; choose another name")
    content = _profile_of(probe, name)
    made = parse(content, f"the profile of {name}")
    folder = store.device_folder(name)
    work = folder.with_name(folder.name + ".work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    shutil.copyfile(path, work / "device.json")
    (work / "profile.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return made


def find_probe(store: Store, name: str) -> Probe | None:
    """The probe of a device; None if it was never added.

    Raises:
        UsageError: It was edited since.
    """
    path = store.device_folder(name) / "device.json"
    if name == "local" or not _NAME.fullmatch(name) or not path.is_file():
        return None
    from edgekd.remote.probe import read_probe

    return read_probe(path)


def check_probe(probe: Probe, profile: Profile, precisions: Sequence[Precision]) -> None:
    """Refuse to plan with a probe for what it did not measure.

    Raises:
        UsageError: Threads, batch size, precisions or graphs are others than the probe's.
    """
    from edgekd.graph.writer import WRITER_VERSION

    name, target = profile.target.device, profile.target
    if probe.writer != WRITER_VERSION:
        raise UsageError(f"the probe of {name} is of an older edgekd, whose graphs differ: make a kit and probe again")
    for flag, asked, found in (
        ("--threads", target.threads, probe.session.threads),
        ("--batch-size", profile.workload.batch_size, probe.batch_size),
    ):
        if asked != found:
            raise UsageError(
                f"{flag} {asked}: the probe of {name} measured {found}; leave the flag out, or probe again with {asked}"
            )
    missing = [precision for precision in precisions if precision not in probe.precisions]
    if missing:
        raise UsageError(f"--precision {missing[0]}: the probe of {name} measured {', '.join(probe.precisions)} only")
    if profile.export.graph != probe.graph_options:
        raise UsageError(f"the probe of {name} measured other graphs than the profile's `export` asks for: probe again")


def _profile_of(probe: Probe, name: str) -> dict[str, object]:
    kinds = {"CUDAExecutionProvider": "onnxruntime-cuda", "TensorrtExecutionProvider": "tensorrt"}
    kind = kinds.get(probe.session.providers[0], "onnxruntime-cpu")
    target: dict[str, object] = {
        "kind": kind,
        "threads": probe.session.threads,
        "precisions": list(probe.precisions),
        "device": name,
    }
    if kind == "onnxruntime-cpu":
        target["instruction_set"] = probe.instruction_set
    # A single length leaves no choice: it is the one to plan for.
    length: int | str = probe.lengths[0] if len(probe.lengths) == 1 else "auto"
    threads = "one thread" if probe.session.threads == 1 else f"{probe.session.threads} threads"
    return {
        "name": name,
        "description": f"{probe.machine['cpu_model']}, {threads}, batch {probe.batch_size}; "
        f"probed {probe.finished[:10]}.",
        "workload": {"batch_size": probe.batch_size, "max_length": length},
        "target": target,
        "export": probe.graph_options.model_dump(mode="json"),
    }


def _name_of(probe: Probe) -> str:
    words = re.findall(r"[a-z0-9]+", str(probe.machine["cpu_model"]).lower())
    name = "-".join(word for word in words if word not in ("r", "tm", "cpu", "processor"))
    return f"{name or 'device'}-{probe.session.threads}t"[:64]
