from __future__ import annotations

import pytest

from edgekd.errors import UsageError
from edgekd.latency import clocks, machine
from edgekd.latency.clocks import judged_clock


@pytest.fixture(autouse=True)
def unlimited(monkeypatch):
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)


def test_one_cpu_thread_is_judged_on_what_it_needs():
    assert judged_clock("auto", "onnxruntime-cpu", 1) == "service"
    assert judged_clock("response", "onnxruntime-cpu", 1) == "response"


@pytest.mark.parametrize(
    ("kind", "threads", "why"),
    [("onnxruntime-cuda", 1, "GPU"), ("tensorrt", 1, "GPU"), ("onnxruntime-cpu", 2, "2 threads")],
)
def test_where_cpu_time_leaves_out_the_work(kind, threads, why):
    assert judged_clock("auto", kind, threads) == "response"
    with pytest.raises(UsageError, match=f"--clock service: .*{why}"):
        judged_clock("service", kind, threads)


def test_throttling_is_part_of_the_device(monkeypatch):
    monkeypatch.setattr(machine, "cpu_quota", lambda: 0.5)
    assert judged_clock("auto", "onnxruntime-cpu", 1) == "response"
    assert judged_clock("service", "onnxruntime-cpu", 1) == "service"


def test_a_system_without_the_clock(monkeypatch):
    monkeypatch.delattr(clocks.time, "thread_time_ns")
    assert judged_clock("auto", "onnxruntime-cpu", 1) == "response"
    with pytest.raises(UsageError, match="no clock of a thread"):
        judged_clock("service", "onnxruntime-cpu", 1)


def test_windows(monkeypatch):
    monkeypatch.setattr(clocks.platform, "system", lambda: "Windows")
    assert judged_clock("auto", "onnxruntime-cpu", 1) == "response"
