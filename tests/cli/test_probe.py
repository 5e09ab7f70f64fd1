"""`edgekd probe`, and the whole road to a device that is elsewhere."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgekd.latency.machine import usable_cpus
from tests.cli.test_cli import refused, run
from tests.remote.test_probe import device

ROOT = Path(__file__).parents[2]


def test_make_writes_a_kit(capsys, tmp_path, tiny_teacher):
    code, out, err = run(
        capsys, "probe", "make", tmp_path / "k.zip", "--teacher", tiny_teacher, "--length", "16", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["bytes"] == (tmp_path / "k.zip").stat().st_size
    with zipfile.ZipFile(tmp_path / "k.zip") as kit:
        content = json.loads(kit.read("kit.json"))
    assert content["lengths"] == [16]
    assert {graph["shape"]["hidden"] for graph in content["graphs"]} == {32}


def test_make_refuses(capsys, tmp_path, tiny_teacher):
    teacher = ("--teacher", tiny_teacher)
    assert "--length 2" in refused(capsys, "probe", "make", tmp_path / "k.zip", *teacher, "--length", "2")
    assert "--length 4096" in refused(capsys, "probe", "make", tmp_path / "k.zip", *teacher, "--length", "4096")
    assert "no folder" in refused(capsys, "probe", "make", tmp_path / "no" / "k.zip", *teacher, "--length", "16")
    assert not list(tmp_path.glob("*.zip"))


def test_add_and_profiles(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    code, out, err = run(capsys, "probe", "add", device(tmp_path / "device.json"), "--name", "box", "--json")
    assert code == 0, err
    assert json.loads(out)["name"] == "box"
    code, out, _ = run(capsys, "profiles")
    line = next(line for line in out.splitlines() if line.startswith("box"))
    assert "needs a probe" not in line
    code, out, _ = run(capsys, "profiles", "box", "--json")
    assert json.loads(out)["target"]["device"] == "box"


def test_add_refuses_an_edited_device(capsys, tmp_path):
    path = device(tmp_path / "device.json")
    path.write_text(path.read_text().replace('"batch_size": 1', '"batch_size": 2'))
    line = refused(capsys, "probe", "add", path, "--name", "box", "--cache-dir", tmp_path / "cache")
    assert "edited" in line
    assert "probe.py again" in line


def test_compress_for_a_device_without_a_probe(capsys, tmp_path, tiny_teacher, intent_data):
    line = refused(
        capsys, "compress", "--teacher", tiny_teacher, "--data", intent_data, "--profile", "raspberry-pi-5",
        "--latency-ms", "10", "--out", tmp_path / "b", "--cache-dir", tmp_path / "cache", code=3,
    )  # fmt: skip
    assert "edgekd probe make" in line


@pytest.mark.parametrize("flag", [("--judge-here",), ("--only", "answers"), ("--max-regression", "1.2")])
def test_measured_goes_without_what_measures_here(capsys, tmp_path, flag):
    line = refused(capsys, "validate", tmp_path, "--measured", tmp_path / "r.json", *flag)
    assert "--measured" in line
    assert flag[0] in line


@pytest.mark.parametrize("flag", [("--percentile", "200"), ("--percentile", "0.95"), ("--latency-ms", "nan")])
@pytest.mark.parametrize("measured", [(), ("--measured", "r.json")])
def test_validate_refuses_a_budget_that_is_none(capsys, tmp_path, flag, measured):
    """In the same line, whichever device it is that is judged."""
    line = refused(capsys, "validate", tmp_path, *measured, *flag)
    assert line.startswith(f"error: {flag[0]} {flag[1]}: ")


def test_make_finds_out_first_that_it_cannot_write(capsys, tmp_path, tiny_teacher, monkeypatch):
    monkeypatch.setattr("edgekd.remote.probe._write_graphs", lambda *_: pytest.fail("graphs were written first"))
    line = refused(capsys, "probe", "make", tmp_path / "no" / "k.zip", "--teacher", tiny_teacher, "--length", "16")
    assert "there is no folder" in line


@pytest.mark.slow
def test_two_environments(capsys, tmp_path, tiny_teacher, intent_data, monkeypatch):
    """The device is a bare environment from pip: no torch, no edgekd, another number of threads."""
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, "numpy", "onnxruntime", "tokenizers"], check=True)
    lacks = "import importlib.util as u, sys; sys.exit(any(u.find_spec(n) for n in ('torch', 'edgekd', 'onnx')))"
    subprocess.run([python, "-c", lacks], check=True, cwd=tmp_path)

    def there(archive, folder, *arguments):
        with zipfile.ZipFile(archive) as kit:
            kit.extractall(tmp_path / folder)
        subprocess.run([python, *map(str, arguments)], cwd=tmp_path / folder, check=True, env={"PATH": "/usr/bin:/bin"})

    def here(*arguments, codes=(0,)):
        code, out, err = run(capsys, *arguments, "--json")
        assert code in codes, err
        return json.loads(out)

    threads = min(2, usable_cpus())
    here("probe", "make", tmp_path / "plan-kit.zip", "--teacher", tiny_teacher, "--length", "16", "--length", "32")
    there(tmp_path / "plan-kit.zip", "plan", "probe.py", "--threads", threads)
    added = here("probe", "add", tmp_path / "plan" / "device.json", "--name", "box")
    assert added["profile"]["target"]["threads"] == threads
    bundle = tmp_path / "bundle"
    verdict = here(
        "compress", "--teacher", tiny_teacher, "--data", intent_data, "--profile", "box", "--latency-ms", "1000",
        "--min-retained", "0.5", "--out", bundle, codes=(6,),
    )  # fmt: skip
    assert verdict["outcome"] == "unmeasured"
    here("validate", bundle, codes=(6,))
    there(bundle / "verify-kit.zip", "verify", "verify.py")
    judged = here("validate", bundle, "--measured", tmp_path / "verify" / "result.json", codes=(0, 5))
    assert {c["kind"]: c["outcome"] for c in judged["criteria"]}["quality"] == "met"
    assert judged["judged"] == "absolute"
