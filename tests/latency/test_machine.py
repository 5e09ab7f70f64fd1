from __future__ import annotations

import dataclasses
import json

import pytest

from edgekd.errors import UsageError
from edgekd.latency import machine as module
from edgekd.latency.machine import Machine, check_threads, cpu_quota, fingerprint, read_machine, usable_cpus


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_reads_this_machine_and_round_trips():
    machine = read_machine()
    assert machine.cpu_model
    assert machine.logical_cores >= machine.affinity >= 1
    assert "python" in machine.versions
    assert "numpy" in machine.versions
    assert Machine.from_json(json.loads(json.dumps(machine.to_json()))) == machine


def test_from_json_refuses_another_schema():
    with pytest.raises(UsageError, match="description"):
        Machine.from_json({"cpu_model": "x"})
    with pytest.raises(UsageError, match="colour"):
        Machine.from_json(read_machine().to_json() | {"colour": "red"})


def test_reads_an_intel_server(tmp_path):
    cpu = "model name : Xeon\nflags : fpu avx2 avx512f avx512_vnni amx_int8\nphysical id : 0\ncore id : {}\n"
    root = write(
        tmp_path,
        {
            "proc/cpuinfo": "\n".join(cpu.format(core) for core in (0, 0, 1, 1)),
            "proc/meminfo": "MemTotal:  4194304 kB\n",
            "sys/fs/cgroup/memory.max": str(2**30),
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3500000\n",
            ".dockerenv": "",
        },
    )
    machine = read_machine(root)
    assert machine.cpu_model == "Xeon"
    assert machine.instruction_sets == ("avx2", "avx512", "avx512_vnni", "amx")
    assert machine.physical_cores == 2
    assert (machine.memory_mb, machine.governor, machine.frequency_mhz) == (1024.0, "powersave", 3500.0)
    assert "docker" in machine.container


def test_reads_a_raspberry_pi(tmp_path):
    root = write(
        tmp_path,
        {"proc/cpuinfo": "processor : 0\nFeatures : fp asimd asimddp\n\nModel : Raspberry Pi 5 Model B\n"},
    )
    machine = read_machine(root)
    assert machine.cpu_model == "Raspberry Pi 5 Model B"
    assert machine.instruction_sets == ("neon",)
    assert machine.cpu_quota is None
    assert machine.memory_mb is None


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        # a limit on the way up counts as well as its own
        (
            {
                "proc/self/cgroup": "0::/pod/task\n",
                "sys/fs/cgroup/pod/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/pod/task/cpu.max": "400000 100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n",
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            2.0,
        ),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_cpu_quota(tmp_path, files, quota):
    assert cpu_quota(write(tmp_path, files)) == quota


@pytest.mark.parametrize(("affinity", "quota", "usable"), [(8, None, 8), (8, 2.5, 2), (8, 0.5, 1), (2, 16.0, 2)])
def test_usable_cpus_and_threads(monkeypatch, affinity, quota, usable):
    monkeypatch.setattr(module, "cpus_of_process", lambda: affinity)
    monkeypatch.setattr(module, "cpu_quota", lambda: quota)
    assert usable_cpus() == usable
    check_threads(usable)
    with pytest.raises(UsageError, match=f"--threads {usable + 1}.*quota.*--threads {usable}"):
        check_threads(usable + 1)
    with pytest.raises(UsageError, match="at least 1"):
        check_threads(0)


def test_fingerprint_changes_only_with_what_decides_latency():
    machine = read_machine()
    same = dataclasses.replace(machine, load_average=99.0, frequency_mhz=1.0, memory_mb=1.0, governor="x")
    assert fingerprint(same) == fingerprint(machine)
    for change in (
        {"cpu_model": "other"},
        {"cpu_quota": 0.5},
        {"instruction_sets": ()},
        {"versions": {"onnxruntime": "0.0"}},
        {"gpu": "H100"},
    ):
        assert fingerprint(dataclasses.replace(machine, **change)) != fingerprint(machine)


@pytest.mark.parametrize(
    ("architecture", "flags", "preset"),
    [
        ("aarch64", "asimd", "arm64"),
        ("x86_64", "avx2", "avx2"),
        ("x86_64", "avx2 avx512f", "avx512"),
        ("x86_64", "avx2 avx512f avx512_vnni", "avx512_vnni"),
    ],
)
def test_detect_instruction_set(monkeypatch, architecture, flags, preset):
    monkeypatch.setattr(module.platform, "machine", lambda: architecture)
    monkeypatch.setattr(module, "_cpuinfo", lambda _: [{"flags": flags}])
    assert module.detect_instruction_set() == preset
