"""The speed log: kept by machine, whole or begun anew, and never the run's own load."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from edgekd.errors import EdgekdError
from edgekd.latency import speed_log as speed
from edgekd.latency.speed_log import SpeedLog


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves; the process computes for `own` of each second."""

    class Clock:
        now, own = 100.0, 0.0

    state = Clock()
    monkeypatch.setattr(speed.time, "monotonic", lambda: state.now)
    monkeypatch.setattr(speed.time, "process_time", lambda: state.now * state.own)
    return state


def add(log, clock, times):
    for ms in times:
        clock.now += 2.0
        log.add(ms, ms)


def test_looks_are_kept_for_the_next_run(tmp_path, clock):
    path = tmp_path / "speed" / "m.jsonl"
    first = SpeedLog(path, "m")
    add(first, clock, [1.0, 1.0, 1.0])
    again = SpeedLog(path, "m")
    assert again.note == ""
    assert again.looks()[:, 1].tolist() == [1.0, 1.0, 1.0]
    add(again, clock, [2.0])
    assert again.looks(this_run=True)[:, 1].tolist() == [2.0]
    assert again.speeds() == pytest.approx([0.5])
    assert again.summary() == pytest.approx((0.5, 0.5))


def test_a_look_every_two_seconds(clock):
    log = SpeedLog()
    for _ in range(10):
        clock.now += 0.5
        log.add(1.0, 1.0)
    assert len(log.looks()) == 3


def test_the_runs_own_load_is_no_speed_of_the_machine(clock):
    log = SpeedLog()
    add(log, clock, [1.0])
    clock.own = 1.5
    add(log, clock, [3.0])
    clock.own = 0.0
    assert log.looks()[:, 1].tolist() == [1.0]


def test_another_machines_log_is_begun_anew(tmp_path, clock):
    path = tmp_path / "m.jsonl"
    add(SpeedLog(path, "other"), clock, [1.0])
    log = SpeedLog(path, "m")
    assert "another machine or version" in log.note
    assert len(log.looks()) == 0
    add(log, clock, [2.0])
    assert SpeedLog(path, "m").looks()[:, 1].tolist() == [2.0]


@pytest.mark.parametrize("content", [b"", b"no json\n", b"\xff\xfe", b"[1, 2]\n"])
def test_a_damaged_log_is_begun_anew(tmp_path, clock, content):
    path = tmp_path / "m.jsonl"
    path.write_bytes(content)
    log = SpeedLog(path, "m")
    assert log.note
    add(log, clock, [1.0])
    assert len(SpeedLog(path, "m").looks()) == 1


def test_a_log_of_another_version_is_begun_anew(tmp_path, clock):
    path = tmp_path / "m.jsonl"
    add(SpeedLog(path, "m"), clock, [1.0])
    lines = path.read_text().splitlines()
    path.write_text(json.dumps(json.loads(lines[0]) | {"schema_version": 99}) + "\n" + lines[1] + "\n")
    assert "version" in SpeedLog(path, "m").note


def test_a_line_that_was_cut_off_is_left_out(tmp_path, clock):
    path = tmp_path / "m.jsonl"
    add(SpeedLog(path, "m"), clock, [1.0, 2.0])
    path.write_text(path.read_text() + "[3.0, 1.0\n[1, 2, NaN, 0]\n[1, 0, 1, 0]\n")
    assert SpeedLog(path, "m").looks()[:, 1].tolist() == [1.0, 2.0]


def test_a_long_log_forgets_its_older_half(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(speed, "_MOST", 10)
    path = tmp_path / "m.jsonl"
    add(SpeedLog(path, "m"), clock, np.arange(1.0, 13.0))
    assert SpeedLog(path, "m").looks()[:, 1].tolist() == [8.0, 9.0, 10.0, 11.0, 12.0]
    assert len(path.read_text().splitlines()) == 6


def test_a_folder_that_cannot_be_written_keeps_it_in_memory(tmp_path, clock):
    blocked = tmp_path / "file"
    blocked.write_text("")
    log = SpeedLog(blocked / "m.jsonl", "m")
    add(log, clock, [1.0])
    assert len(log.looks()) == 1


def test_sampling_runs_the_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "EVERY_SECONDS", 0.2)
    log = SpeedLog(tmp_path / "m.jsonl", "m")
    with log.sampling():
        until = time.monotonic() + 20.0
        while len(log.looks()) < 2 and time.monotonic() < until:
            time.sleep(0.05)
    found = log.looks()
    assert len(found) >= 2
    assert (found[:, 1:] > 0).all()


def test_no_looks_no_summary():
    assert SpeedLog().summary() is None


def test_a_look_that_no_neighbour_explains_is_left_out(clock):
    log = SpeedLog()
    add(log, clock, [1.0, 1.1, 50.0, 0.9])
    assert log.looks()[:, 1].tolist() == [1.0, 1.1, 0.9]


def test_after_a_torn_line_the_next_look_stands_on_its_own(tmp_path, clock):
    path = tmp_path / "m.jsonl"
    add(SpeedLog(path, "m"), clock, [1.0, 1.0])
    path.write_text(path.read_text()[:-5])
    add(SpeedLog(path, "m"), clock, [1.0])
    assert len(SpeedLog(path, "m").looks()) == 2


def test_a_sampler_that_cannot_start_stops_no_run(monkeypatch):
    def refuse(timeout):
        raise EdgekdError("no process")

    monkeypatch.setattr("edgekd.latency.timer.ChildProcess", refuse)
    with SpeedLog().sampling():
        pass
