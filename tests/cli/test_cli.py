"""The command line from outside: exit codes, one-line errors, and what is never imported."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edgekd import cli, store
from edgekd.cli import COMMANDS, main
from edgekd.cli.doctor import _speed_words
from edgekd.latency.speed_log import SpeedLog
from tests.conftest import run_light


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return caught.value.code, out, err


def refused(capsys, *arguments, code=2):
    """The one line of an error."""
    found, out, err = run(capsys, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert found == code, err
    assert len(lines) == 1
    assert "Traceback" not in err
    assert out == ""
    return lines[0]


def test_help_imports_nothing_heavy():
    found = run_light(
        "from edgekd.cli import main\nmain(['--help'])",
        "torch", "transformers", "onnxruntime", "onnx", "datasets", "matplotlib", "numpy", "rich",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "compress" in found.stdout


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_and_the_group_knows_it(capsys, name):
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    assert "--help" in out


def test_no_arguments_shows_help(capsys):
    code, out, err = run(capsys)
    assert code == 2 or "compress" in out + err


def test_unknown_command_did_you_mean(capsys):
    assert "did you mean 'compress'" in refused(capsys, "compres")


def test_unknown_flag(capsys):
    assert "--latencyms" in refused(capsys, "compress", "--latencyms", "10")


@pytest.mark.parametrize("budget", ["0", "-3", "nan", "inf"])
def test_impossible_budget(capsys, budget):
    assert "--latency-ms" in refused(capsys, "compress", f"--latency-ms={budget}", "--dry-run")


def test_budget_that_is_no_number(capsys):
    assert "'ten'" in refused(capsys, "compress", "--latency-ms", "ten")


def test_missing_budget(capsys):
    assert "--latency-ms is missing" in refused(capsys, "compress", "--dry-run")


@pytest.mark.parametrize("flag", ["--teacher", "--data"])
def test_empty_teacher_or_data_is_never_the_demo(capsys, flag):
    assert f"{flag} is empty" in refused(capsys, "compress", flag, "", "--latency-ms", "10")


@pytest.mark.parametrize(("flag", "missing"), [("--teacher", "--data"), ("--data", "--teacher")])
def test_one_alone_is_refused(capsys, flag, missing):
    assert f"{missing} is missing" in refused(capsys, "compress", flag, "x", "--latency-ms", "10")


def test_json_demo_needs_the_flag(capsys):
    assert "--demo" in refused(capsys, "compress", "--latency-ms", "10", "--json")


def test_unknown_profile(capsys):
    line = refused(capsys, "compress", "--latency-ms", "10", "--profile", "cpu4t")
    assert "did you mean 'cpu-4t'" in line


def test_more_threads_than_there_are(capsys):
    assert "--threads 4096" in refused(capsys, "compress", "--latency-ms", "10", "--threads", "4096")


def test_device_elsewhere_asks_for_a_probe(capsys):
    line = refused(capsys, "compress", "--latency-ms", "10", "--profile", "raspberry-pi-5", code=3)
    assert "raspberry-pi-5" in line
    assert "probe" in line


def test_missing_library_names_the_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    line = refused(capsys, "compress", "--latency-ms", "10", code=3)
    assert "edgekd[cpu]" in line


def test_missing_teacher_folder(capsys, intent_data, tmp_path):
    line = refused(
        capsys, "compress", "--teacher", tmp_path / "none", "--data", intent_data, "--latency-ms", "10",
        "--out", tmp_path / "b",
    )  # fmt: skip
    assert "none" in line


def test_dry_run_prints_the_request_and_measures_nothing(capsys, tmp_path):
    out = tmp_path / "bundle"
    code, stdout, _ = run(capsys, "compress", "--latency-ms", "7", "--threads", "1", "--out", out, "--dry-run")
    assert code == 0
    assert "latency_ms: 7.0" in stdout
    assert "plan: not measured yet" in stdout
    assert not out.exists()


def test_a_dry_run_imports_no_torch():
    found = run_light(
        "from edgekd.cli import main\nmain(['compress', '--latency-ms', '7', '--dry-run'])",
        "torch", "transformers", "datasets", "matplotlib", "pyarrow",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("flag", ["-q", "--verbose"])
def test_how_much_is_said_may_be_asked_for_anywhere(capsys, flag, place):
    arguments = ["compress", "--latency-ms", "7", "--dry-run"]
    assert run(capsys, *arguments[:place], flag, *arguments[place:])[0] == 0


def test_the_shell_completes_commands():
    found = subprocess.run(
        [sys.executable, "-m", "edgekd"], capture_output=True, text=True,
        env=os.environ | {"_EDGEKD_COMPLETE": "bash_complete", "COMP_WORDS": "edgekd com", "COMP_CWORD": "1"},
    )  # fmt: skip
    assert found.stdout.split() == ["plain,compress"], found.stderr


def test_dry_run_json_is_a_request_that_runs_again(capsys):
    code, out, _ = run(capsys, "compress", "--latency-ms", "7", "--dry-run", "--json", "--demo")
    assert code == 0
    assert json.loads(out)["request"]["profile"]["budget"]["latency_ms"] == 7.0


def test_profiles_lists_and_shows(capsys):
    code, out, _ = run(capsys, "profiles")
    assert code == 0
    assert "raspberry-pi-5" in out
    assert "needs a probe" in out
    code, out, _ = run(capsys, "profiles", "cpu", "--json")
    assert json.loads(out)["target"]["threads"] == 1
    code, out, _ = run(capsys, "profiles", "--schema")
    assert json.loads(out)["title"] == "Profile"


def test_cache_shows_and_clears(capsys, tmp_path):
    from edgekd.store import Store

    Store(tmp_path).make("stage", 1, {}, lambda work: (work / "x").write_bytes(b"0" * 5000) and None)
    _, out, _ = run(capsys, "cache", "--cache-dir", tmp_path)
    assert "stage" in out
    _, out, _ = run(capsys, "cache", "--cache-dir", tmp_path, "--clear", "--json")
    assert json.loads(out)["freed_bytes"] >= 5000


@pytest.fixture
def brief_look(monkeypatch):
    monkeypatch.setattr("edgekd.cli.doctor._LOOK_SECONDS", 1.0)
    monkeypatch.setattr("edgekd.latency.speed_log.EVERY_SECONDS", 0.2)


def test_doctor_names_two_runtimes(capsys, monkeypatch, brief_look):
    monkeypatch.setattr("edgekd.cli.doctor._installed", lambda name: True)
    code, out, _ = run(capsys, "doctor")
    assert code == 3
    assert "overwrite each other" in out


def test_doctor_is_content_here(capsys, brief_look, tmp_path):
    code, out, _ = run(capsys, "doctor", "--json", "--cache-dir", tmp_path)
    found = json.loads(out)
    assert (code, found["problems"]) == (0, [])
    low, middle, high = found["speed"]["now"]
    assert 0 < low <= middle <= high
    code, out, _ = run(capsys, "doctor", "--cache-dir", tmp_path)
    assert "speed: no history yet" in out
    assert f"({found['speed']['looks']} looks" not in out  # this look is in it as well


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (1.0, (1.0, 1.0), "steady, so a verdict takes 30 s"),
        (1.0, (1.0, 1.5), "it changes its speed"),
        (1.4, (1.0, 1.0), "slower than usual now"),
    ],
)
def test_doctor_says_what_the_speed_means(now, before, said):
    log = SpeedLog()
    log._rows = [(float(i), before[i % 2], before[i % 2], 0.0) for i in range(100)]
    log._before = len(log._rows)
    log._rows += [(200.0, now, now, 0.0)] * 3
    assert said in _speed_words(log)


def test_doctor_tells_what_became_of_a_damaged_log(capsys, brief_look, tmp_path):
    run(capsys, "doctor", "--cache-dir", tmp_path)
    (path,) = (tmp_path / "speed").iterdir()
    path.write_text("no log")
    _, out, _ = run(capsys, "doctor", "--cache-dir", tmp_path)
    assert "damaged: begun anew" in out


def test_service_time_of_a_gpu_is_refused(capsys, tmp_path):
    line = refused(
        capsys, "compress", "--demo", "--dry-run", "--profile", "cuda", "--latency-ms", "5", "--clock", "service",
        "--out", tmp_path / "b",
    )  # fmt: skip
    assert "--clock service: a GPU's work" in line
    line = refused(
        capsys, "compress", "--demo", "--dry-run", "--threads", "2", "--latency-ms", "5", "--clock", "service",
        "--out", tmp_path / "b",
    )  # fmt: skip
    assert "with 2 threads" in line


def test_uncaught_exception_is_exit_four_in_one_line(capsys, monkeypatch):
    def explode(*_, **__):
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("edgekd.profiles.available", explode)
    line = refused(capsys, "profiles", code=4)
    assert "ZeroDivisionError" in line
    assert "--debug" in line


def test_debug_shows_the_traceback(capsys):
    code, _, err = run(capsys, "--debug", "profiles", "nonsense")
    assert code == 2
    assert "Traceback" in err


def test_no_space_left(capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "/cache/x")

    monkeypatch.setattr("edgekd.profiles.available", full)
    assert "no space left" in refused(capsys, "profiles", code=4)


def test_ctrl_c_is_130(capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgekd.profiles.available", stop)
    code, _, err = run(capsys, "profiles")
    assert code == 130
    assert "run the same command again" in err


@pytest.mark.parametrize(
    ("flag", "value", "why"),
    [("latency-ms", "0", "greater than 0"), ("latency-ms", "nan", "finite"), ("threads", "0", "greater than or equal"),
     ("percentile", "0.95", "greater than or equal to 1"), ("min-retained", "97", "less than or equal to 1"),
     ("batch-size", "0", "greater than or equal to 1")],
)  # fmt: skip
def test_wrong_values_name_the_flag(capsys, flag, value, why):
    line = refused(capsys, "compress", "--dry-run", *([] if flag == "latency-ms" else ["--latency-ms", "5"]),
                   f"--{flag}", value)  # fmt: skip
    assert f"--{flag} {value}" in line.replace(f"{value}.0", value)
    assert why in line


def resolved(capsys, *arguments):
    code, out, _ = run(capsys, "compress", "--dry-run", "--json", *arguments)
    assert code == 0
    return json.loads(out)["request"]


def test_flags_win_over_the_file(capsys, tmp_path):
    for name in ("t", "t2", "d"):
        (tmp_path / name).mkdir()
    given = ["--teacher", tmp_path / "t", "--data", tmp_path / "d", "--latency-ms", "10", "--text-column", "q"]
    first = resolved(capsys, *given, "--threads", "1", "--task", "text-classification", "--seed", "3")
    (tmp_path / "edgekd.yaml").write_text(json.dumps(first))
    again = ("-c", tmp_path / "edgekd.yaml")
    assert resolved(capsys, *again) == first
    changed = resolved(
        capsys, *again, "--latency-ms", "5", "--teacher", tmp_path / "t2", "--label-column", "y", "--bundle-texts"
    )
    assert changed["profile"]["budget"]["latency_ms"] == 5
    assert changed["profile"]["distill"]["seed"] == 3
    assert (changed["teacher"], changed["data"]) == (str(tmp_path / "t2"), str(tmp_path / "d"))
    assert changed["columns"] == first["columns"] | {"label": "y"}
    assert changed["task"] == first["task"]
    assert changed["bundle_texts"]
    profile = resolved(capsys, *again, "--profile", "cpu-4t", "--latency-ms", "4", "--threads", "1")["profile"]
    assert (profile["name"], profile["distill"]["seed"]) == ("cpu-4t", first["profile"]["distill"]["seed"] - 3)


def test_what_is_named_replaces_the_demo_of_the_file(capsys, tmp_path):
    demo = resolved(capsys, "--demo", "--latency-ms", "7")
    (tmp_path / "edgekd.yaml").write_text(json.dumps(demo))
    assert resolved(capsys, "-c", tmp_path / "edgekd.yaml", "--latency-ms", "6")["demo"]
    assert "--data is missing" in refused(
        capsys, "compress", "--dry-run", "-c", tmp_path / "edgekd.yaml", "--teacher", tmp_path
    )


def test_a_model_of_the_hub_has_an_owner(capsys, tmp_path):
    line = refused(
        capsys, "compress", "--dry-run", "--latency-ms", "5", "--teacher", "bert-base-uncased", "--data", tmp_path
    )
    assert "--teacher bert-base-uncased: no such file or folder" in line


def test_dry_run_misses_a_plan(capsys, tmp_path):
    line = refused(
        capsys, "compress", "--dry-run", "--demo", "--latency-ms", "5", "--plan", str(tmp_path / "none.json")
    )
    assert "--plan" in line
    assert "cannot be read" in line


def test_dry_run_says_what_would_come_from_the_hub(capsys, tmp_path):
    arguments = ("--teacher", "org/teacher", "--data", str(tmp_path), "--out", str(tmp_path / "b"))
    _, stdout, _ = run(capsys, "compress", "--dry-run", "--latency-ms", "5", *arguments)
    assert "taken from the hub: --teacher org/teacher" in stdout
    line = refused(capsys, "compress", "--dry-run", "--latency-ms", "5", "--teacher", "org/t", "--data", "nope")
    assert "--data nope: no such file or folder" in line


@pytest.mark.parametrize("flag", ["teacher", "data"])
def test_dry_run_misses_a_folder(capsys, flag, tmp_path):
    there = {"teacher": tmp_path, "data": tmp_path} | {flag: tmp_path / "nope"}
    words = [word for name, folder in there.items() for word in (f"--{name}", str(folder))]
    line = refused(capsys, "compress", "--dry-run", "--latency-ms", "5", *words)
    assert f"--{flag} {tmp_path / 'nope'}: no such file or folder" in line


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "weights"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError("4096 requested and 17 written"),
        shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]),
    ],
    ids=["os", "safetensors", "numpy", "shutil"],
)
def test_a_full_disk_is_told_as_one_whoever_finds_it(error):
    try:
        raise ValueError("while saving") from error
    except ValueError as outer:
        code, line = cli._explain(outer)
    assert code == 4
    assert line.startswith("error: no space left on the device")


def test_sigterm_ends_as_an_interrupt():
    code = (
        "import os, signal, sys, threading, time\n"
        "from edgekd import cli\n"
        "cli.group.main = lambda **_: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(5))\n"
        "cli.main(['doctor'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (
        130, "interrupted: finished steps are kept; run the same command again"
    )  # fmt: skip


def test_a_guest_without_a_home_has_a_store(tmp_path):
    code = (
        "import pathlib, pwd\n"
        "pwd.getpwuid = lambda uid: (_ for _ in ()).throw(KeyError(uid))\n"
        "from edgekd import store\n"
        "store.settle_home()\n"
        "import getpass, os; print(getpass.getuser(), os.environ['HOME'], store.default_root())"
    )
    package = Path(store.__file__).parents[1]
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "PYTHONPATH": str(package)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    name, home, root = done.stdout.split()
    assert name == "edgekd"
    assert Path(home).parent == tmp_path
    assert Path(root).is_relative_to(home)


def test_a_home_that_cannot_be_written_is_passed_over(tmp_path, monkeypatch):
    for name in ("EDGEKD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).startswith("/proc"))
    assert store.default_root().is_relative_to(tmp_path)


def test_onnxruntime_is_told_to_send_nothing():
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    code = "import edgekd.errors, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_a_name_that_is_no_utf_8_is_refused_at_once(capsys):
    line = refused(capsys, "compress", "--latency-ms", "5", "--out", "caf\udce9")
    assert "'caf\\udce9': not UTF-8; rename the file or folder" in line
