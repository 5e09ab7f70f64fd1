"""The machine's truth: what it is, and how much of it this process may use. Imports no torch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from edgekd.errors import UsageError
from edgekd.onnx_session import cpus_of_process

_ROOT = Path("/")
_FLAGS = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "avx512_vnni": ("avx512_vnni",),
    "amx": ("amx_int8", "amx_tile"),
    "neon": ("asimd", "neon"),
    "sve": ("sve",),
}


@dataclass(frozen=True)
class Machine:
    """One machine at one moment. JSON-able: `asdict` of it round-trips through `Machine(**...)`.

    Attributes:
        cpu_model: The CPU's name.
        architecture: Such as "x86_64" or "aarch64".
        instruction_sets: Those of avx2, avx512, avx512_vnni, amx, neon, sve that it has.
        physical_cores: Cores of the host, or None where unreadable.
        logical_cores: Hardware threads of the host.
        affinity: Hardware threads this process may be scheduled on.
        cpu_quota: The container's CPU limit in cores, or None without one.
        governor: Frequency governor of the first core, or None.
        frequency_mhz: Highest frequency of the first core, or None.
        memory_mb: Memory of the host, or the container's limit where that is less.
        container: What hints at a container, such as "docker" or "kubernetes".
        versions: Of python, numpy and onnxruntime (whichever build is installed).
        gpu: Name of the first NVIDIA GPU, or None.
        gpu_driver: Its driver, or None.
        load_average: Runnable processes over the last minute, or None.
    """

    cpu_model: str
    architecture: str
    instruction_sets: tuple[str, ...]
    physical_cores: int | None
    logical_cores: int
    affinity: int
    cpu_quota: float | None
    governor: str | None
    frequency_mhz: float | None
    memory_mb: float | None
    container: tuple[str, ...]
    versions: dict[str, str]
    gpu: str | None
    gpu_driver: str | None
    load_average: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain types only."""
        lists = {"instruction_sets": list(self.instruction_sets), "container": list(self.container)}
        return asdict(self) | lists

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Machine:
        """The inverse of `to_json`.

        Raises:
            UsageError: A field is missing or unknown.
        """
        try:
            tuples = {key: tuple(data[key]) for key in ("instruction_sets", "container")}
            return cls(**(data | tuples))
        except (KeyError, TypeError) as error:
            raise UsageError(f"the machine's description is not one this version writes: {error}") from error


def read_machine(root: Path = _ROOT) -> Machine:
    """Describe this machine.

    Args:
        root: Where /proc and /sys are read.
    """
    info = _cpuinfo(root)
    gpu, driver = _gpu()
    return Machine(
        cpu_model=_cpu_model(info),
        architecture=platform.machine(),
        instruction_sets=_instruction_sets(info),
        physical_cores=_physical_cores(info),
        logical_cores=os.cpu_count() or 1,
        affinity=cpus_of_process(),
        cpu_quota=cpu_quota(root),
        governor=_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        frequency_mhz=_frequency(root, info),
        memory_mb=_memory_mb(root),
        container=_container(root),
        versions=_versions(),
        gpu=gpu,
        gpu_driver=driver,
        load_average=_load_average(),
    )


def fingerprint(machine: Machine) -> str:
    """Sixteen hexadecimal digits: the same after a reboot, others where a latency table would not hold."""
    runtime = {name: version for name, version in machine.versions.items() if name.startswith("onnxruntime")}
    cpu = [machine.cpu_model, machine.architecture, sorted(machine.instruction_sets), machine.cpu_quota]
    return hashlib.sha256(json.dumps([*cpu, runtime, machine.gpu], sort_keys=True).encode()).hexdigest()[:16]


def usable_cpus() -> int:
    """CPUs this process may keep busy: its affinity, or its quota rounded down where that is less; >= 1."""
    quota = cpu_quota()
    return max(1, cpus_of_process() if quota is None else min(cpus_of_process(), math.floor(quota)))


def check_threads(threads: int) -> None:
    """Refuse more threads than may run at once: past its quota a container is stopped in mid-call.

    Raises:
        UsageError: More than `usable_cpus`, or less than 1.
    """
    usable = usable_cpus()
    if threads < 1:
        raise UsageError(f"--threads {threads}: ask for at least 1")
    if threads > usable:
        quota = cpu_quota()
        limit = "no CPU quota" if quota is None else f"CPU quota {quota:g}"
        raise UsageError(
            f"--threads {threads}: this process may use {usable} (affinity {cpus_of_process()}, {limit}): "
            f"ask for --threads {usable} or raise the limit"
        )


def detect_instruction_set() -> Literal["arm64", "avx2", "avx512", "avx512_vnni"]:
    """The INT8 quantiser's preset for this machine; "avx2" on any x86 without AVX-512."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    found = _instruction_sets(_cpuinfo(_ROOT))
    if "avx512_vnni" in found:
        return "avx512_vnni"
    return "avx512" if "avx512" in found else "avx2"


def cpu_quota(root: Path = _ROOT) -> float | None:
    """The least CPU limit, in cores, of this process's control group and those above it; None without one."""
    groups = _read(root / "proc/self/cgroup") or ""
    limits: list[float] = []
    for line in groups.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            limits += [_quota_v2(folder) for folder in _upwards(root / "sys/fs/cgroup", path)]
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", "cpu,cpuacct"):
                limits += [_quota_v1(folder) for folder in _upwards(root / "sys/fs/cgroup" / mount, path)]
    # Inside a container the path above is often the host's; its own limit then lies at the mount's root.
    limits += [_quota_v2(root / "sys/fs/cgroup"), _quota_v1(root / "sys/fs/cgroup/cpu")]
    least = min(limits)
    return None if math.isinf(least) else least


def _quota_v2(folder: Path) -> float:
    parts = (_read(folder / "cpu.max") or "max").split()
    return math.inf if parts[0] == "max" else int(parts[0]) / int(parts[1] if len(parts) > 1 else 100_000)


def _quota_v1(folder: Path) -> float:
    quota = int(_read(folder / "cpu.cfs_quota_us") or -1)
    period = int(_read(folder / "cpu.cfs_period_us") or 0)
    return quota / period if quota > 0 and period > 0 else math.inf


def _upwards(mount: Path, path: str) -> list[Path]:
    """The control group's folder and every folder above it, down to the mount."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [mount.joinpath(*parts[:i]) for i in range(len(parts), -1, -1)]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _cpuinfo(root: Path) -> list[dict[str, str]]:
    """One dictionary a hardware thread; empty where there is no /proc."""
    blocks = (_read(root / "proc/cpuinfo") or "").split("\n\n")
    pairs = [[line.partition(":") for line in block.splitlines() if ":" in line] for block in blocks]
    return [{key.strip(): value.strip() for key, _, value in block} for block in pairs if block]


def _cpu_model(info: list[dict[str, str]]) -> str:
    for key in ("model name", "Model", "Hardware", "cpu model"):
        for block in info:
            if block.get(key):
                return block[key]
    # ARM kernels name no model: implementer and part are what there is.
    part = " ".join(info[0][key] for key in ("CPU implementer", "CPU part") if key in info[0]) if info else ""
    return part or platform.processor() or platform.machine()


def _instruction_sets(info: list[dict[str, str]]) -> tuple[str, ...]:
    flags = set((info[0].get("flags") or info[0].get("Features") or "").split()) if info else set()
    if not info and platform.machine().lower() == "arm64":
        flags = {"neon"}
    return tuple(name for name, needs in _FLAGS.items() if flags.intersection(needs))


def _physical_cores(info: list[dict[str, str]]) -> int | None:
    cores = {(block.get("physical id"), block["core id"]) for block in info if "core id" in block}
    return len(cores) or None


def _frequency(root: Path, info: list[dict[str, str]]) -> float | None:
    khz = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if khz and khz.isdigit():
        return int(khz) / 1000.0
    return float(info[0]["cpu MHz"]) if info and "cpu MHz" in info[0] else None


def _memory_mb(root: Path) -> float | None:
    found: list[float] = []
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            found.append(int(line.split()[1]) / 1024.0)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _read(root / "sys/fs/cgroup" / name)
        if limit and limit.isdigit():
            found.append(int(limit) / 2**20)
    return round(min(found), 1) if found else None


def _container(root: Path) -> tuple[str, ...]:
    groups = (_read(root / "proc/1/cgroup") or "") + (_read(root / "proc/self/cgroup") or "")
    hints = {
        "docker": (root / ".dockerenv").exists() or "docker" in groups,
        "podman": (root / "run/.containerenv").exists(),
        "kubernetes": "KUBERNETES_SERVICE_HOST" in os.environ or "kubepods" in groups,
    }
    return tuple(name for name, found in hints.items() if found)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("numpy", "onnxruntime", "onnxruntime-gpu"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@cache
def _gpu() -> tuple[str | None, str | None]:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None, None
    name, _, driver = done.stdout.partition("\n")[0].partition(",")
    return name.strip() or None, driver.strip() or None


def _load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None
