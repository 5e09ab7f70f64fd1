"""The real child process; each test starts one or two, and shares them where it can."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from edgekd.errors import EdgekdError, UnavailableError, UsageError
from edgekd.latency import timer as module
from edgekd.latency.measure import compare
from edgekd.latency.targets.build import build_target
from edgekd.latency.timer import BundleJob, GraphJob, ProcessTimer
from edgekd.settings.target import CpuTarget, SessionSpec

from .scripted import write_graph

CPU = SessionSpec().model_dump(mode="json")


def test_rounds_go_round_the_processes(graph):
    with ProcessTimer([GraphJob("tiny", graph, 2, 8, vocabulary=50)], CPU, processes=2) as timer:
        samples = [timer.round("tiny", 7) for _ in range(3)]
        reports = timer.load_reports("tiny")
        children = [child._process for child in timer._children]
    assert [sample.process for sample in samples] == [0, 1, 0]
    assert all(len(times) == 7 and min(times) > 0 for s in samples for times in (s.wall_ms, s.cpu_ms))
    assert all(sample.product_ms > 0 and sample.walk_ms > 0 for sample in samples)
    assert samples[0].at < samples[1].at < samples[2].at
    assert samples[0].parts_ms == ()
    assert [report.process for report in reports] == [0, 1]
    assert {report.provider for report in reports} == {"CPUExecutionProvider"}
    assert all(report.load_ms > 0 and report.first_call_ms > 0 for report in reports)
    # numpy and onnxruntime, but no torch and nothing of this process
    assert all(20 < report.peak_memory_mb < 250 for report in reports)
    assert all(child.poll() is not None for child in children)


def test_compare_through_the_cpu_target(tmp_path):
    jobs = [
        GraphJob("small", write_graph(tmp_path / "a.onnx", width=16), length=16, vocabulary=50),
        GraphJob("large", write_graph(tmp_path / "b.onnx", width=4096), length=256, vocabulary=50),
    ]
    found = compare(jobs, build_target(CpuTarget()), processes=1, rounds=2, calls=5)
    assert found["small"].percentile(50, "service") < found["large"].percentile(50, "service")
    assert found["small"].calls == 10


def test_errors_of_the_child_keep_their_class_and_leave_it_alive(tmp_path, graph):
    odd = write_graph(tmp_path / "odd.onnx", inputs=("input_ids", "pixels"))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a graph")
    jobs = [GraphJob("gone", tmp_path / "gone.onnx"), GraphJob("odd", odd), GraphJob("broken", broken)]
    jobs.append(GraphJob("good", graph, vocabulary=50))
    with ProcessTimer(jobs, CPU) as timer:
        with pytest.raises(UsageError, match=r"gone\.onnx: no such file"):
            timer.round("gone", 1)
        with pytest.raises(UsageError, match="input pixels"):
            timer.round("odd", 1)
        with pytest.raises(EdgekdError, match="broken") as caught:
            timer.round("broken", 1)
        assert "\n" not in str(caught.value)
        assert timer.round("good", 1).wall_ms


def test_a_silent_fall_back_is_an_error(graph):
    asked = CPU | {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
    with (
        ProcessTimer([GraphJob("tiny", graph, vocabulary=50)], asked) as timer,
        pytest.raises(UnavailableError, match="asked for CUDAExecutionProvider"),
    ):
        timer.round("tiny", 1)


def test_a_killed_child_says_so_and_the_rest_is_ended(graph):
    with ProcessTimer([GraphJob("tiny", graph, vocabulary=50)], CPU) as timer:
        timer.round("tiny", 1)
        process = timer._children[0]._process
        threading.Timer(0.3, process.kill).start()
        with pytest.raises(EdgekdError, match="signal 9"):
            timer.round("tiny", 10_000_000)


def test_a_child_that_cannot_start_shows_its_last_words(tmp_path, graph, monkeypatch):
    monkeypatch.setattr(module, "_PACKAGE_PARENT", str(tmp_path))
    package = tmp_path / "edgekd"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('numpy is broken')")
    monkeypatch.chdir(tmp_path)
    with (
        ProcessTimer([GraphJob("tiny", graph)], CPU) as timer,
        pytest.raises(EdgekdError, match="numpy is broken"),
    ):
        timer.round("tiny", 1)


def test_no_module_of_the_current_folder_is_run(tmp_path, graph, monkeypatch):
    for name in ("random", "json", "struct", "numpy", "onnxruntime", "tokenizers", "edgekd", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the trap {name} was run')")
    monkeypatch.chdir(tmp_path)
    # What a shell's `PYTHONPATH=$PYTHONPATH:/more` leaves where there was none.
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    with ProcessTimer([GraphJob("tiny", graph, vocabulary=50)], CPU) as timer:
        assert timer.round("tiny", 1).wall_ms


def test_a_child_that_hangs_is_given_up(graph):
    with (
        ProcessTimer([GraphJob("tiny", graph, vocabulary=50)], CPU, timeout=2.0) as timer,
        pytest.raises(EdgekdError, match="over time"),
    ):
        timer.round("tiny", 100_000_000)


def test_ctrl_c_ends_the_children(graph):
    # A run in the background begins with SIGINT ignored, and Python then leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = ProcessTimer([GraphJob("tiny", graph, vocabulary=50)], CPU)
    process = timer._children[0]._process
    try:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt), timer:
            timer.round("tiny", 100_000_000)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.poll() is not None


FAKE_RUNTIME = """
import sys, time
class Model:
    provider = "CPUExecutionProvider"
    def timed_predict(self, texts):
        assert "torch" not in sys.modules
        if isinstance(texts[0], tuple):
            return [1, 1], *(float(len(pair)) for pair in texts), 0.0
        print("noise on stdout")
        seconds = float(texts[0])
        time.sleep(seconds)
        return [1], 0.001, seconds, 0.002
def load(folder, threads=1):
    if not folder.endswith("good"):
        raise FileNotFoundError(folder + " has no model.onnx")
    return Model()
"""


@pytest.fixture
def own_runtime(tmp_path, monkeypatch):
    """The package with a runtime of the test's own: what is tested is the protocol."""
    package, source = tmp_path / "edgekd", Path(module._PACKAGE_PARENT) / "edgekd"
    package.mkdir()
    for name in ("errors.py", "onnx_session.py", "latency"):
        (package / name).symlink_to(source / name)
    (package / "__init__.py").touch()
    (package / "runtime.py").write_text(FAKE_RUNTIME)
    monkeypatch.setattr(module, "_PACKAGE_PARENT", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_a_bundle_is_timed_by_parts_one_text_a_call(tmp_path, own_runtime):
    jobs = [BundleJob("b", tmp_path / "good", ("0.001", "0.01")), BundleJob("bad", tmp_path / "bad", ("0",))]
    with ProcessTimer(jobs, CPU) as timer:
        sample = timer.round("b", 4)
        with pytest.raises(EdgekdError, match=r"has no model\.onnx"):
            timer.round("bad", 1)
    model_ms = [part[1] for part in sample.parts_ms]
    assert model_ms in ([1.0, 10.0, 1.0, 10.0], [10.0, 1.0, 10.0, 1.0])
    assert all(total >= ms for total, ms in zip(sample.wall_ms, model_ms, strict=True))
    assert {(part[0], part[2]) for part in sample.parts_ms} == {(1.0, 2.0)}


def test_a_bundle_is_served_pairs_in_batches(tmp_path, own_runtime):
    pairs = (("a", "b"), ("a", "b"), ("a", "b"))
    with ProcessTimer([BundleJob("b", tmp_path / "good", pairs, batch_size=2)], CPU) as timer:
        assert timer.round("b", 3).parts_ms == ((2000.0, 2000.0, 0.0),) * 3


def test_jobs_are_checked_before_anything_starts(tmp_path):
    with pytest.raises(UsageError, match="no texts"):
        BundleJob("b", tmp_path, ())
    with pytest.raises(UsageError, match="different names"):
        ProcessTimer([GraphJob("a", tmp_path), GraphJob("a", tmp_path)], CPU)


def test_the_child_module_imports_nothing_heavy():
    import subprocess

    heavy = {"torch", "pydantic", "onnx", "click", "scipy"}
    code = f"import sys, edgekd.latency.child; print(sorted({heavy} & set(sys.modules)))"
    env = dict(os.environ) | {"PYTHONPATH": module._PACKAGE_PARENT}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("bad", [1, 2, 100])
def test_a_round_in_which_a_clock_stood_still_is_taken_again(graph, monkeypatch, bad):
    with ProcessTimer([GraphJob("tiny", graph, vocabulary=50)], CPU) as timer:
        timer.round("tiny", 1)
        still = {"wall_ns": [5, 0], "cpu_ns": [5, 1], "parts_ns": [], "product_ns": 1.0, "walk_ns": 1.0}
        answers = iter([still] * bad + [still | {"wall_ns": [5, 6]}])
        monkeypatch.setattr(timer._children[0], "ask", lambda _: next(answers))
        if bad < 3:
            assert timer.round("tiny", 2).wall_ms == (5e-6, 6e-6)
        else:
            with pytest.raises(EdgekdError, match="zero or less, time and again"):
                timer.round("tiny", 2)
