"""Code that lies beside the user is not run: files named as modules, in the folder, the data and the bundle."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

# Of the standard library and of what EdgeKD imports; each may be asked for anew by a child, or late.
NAMES_TEXT = """
abc argparse ast base64 bisect calendar csv ctypes dataclasses datetime enum fractions glob gzip hashlib heapq
inspect io json logging math multiprocessing numbers operator pathlib pickle platform queue random re secrets
shutil signal socket statistics string struct subprocess tempfile threading token tokenize types typing uuid
zipfile accelerate click datasets filelock huggingface_hub matplotlib numpy onnx onnxruntime onnxscript
optimum pandas psutil pyarrow pydantic regex requests rich safetensors scipy sentencepiece sklearn tokenizers
torch tqdm transformers yaml fastapi uvicorn starlette prometheus_client httptools mlflow sitecustomize
usercustomize conftest setup edgekd
"""
NAMES = NAMES_TEXT.split()
TRAP = """
import os
open(os.environ["TRAP"], "a").write(__name__ + chr(10))
raise SystemExit("a trap was sprung: " + __name__)
"""


def lay(folder):
    for name in NAMES:
        (folder / f"{name}.py").write_text(TRAP)


def edgekd(folder, *words):
    """The command as pip installs it: the folder of the script comes first on its path, not the user's."""
    script = Path(sysconfig.get_path("scripts")) / "edgekd"
    start = [str(script)] if script.exists() else [sys.executable, "-P", "-m", "edgekd"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    source = Path(__file__).parents[2]
    return subprocess.Popen(
        [*start, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=clean | {"TRAP": str(folder / "sprung"), "PYTHONPATH": str(source), "EDGEKD_CACHE": str(folder / "cache")},
    )  # fmt: skip


@pytest.mark.slow
def test_no_command_runs_what_lies_beside_the_user(tmp_path, tiny_encoder, tiny_teacher, intent_data):
    for name, source in (("encoder", tiny_encoder), ("my-bert", tiny_teacher), ("data", intent_data)):
        shutil.copytree(source, tmp_path / name)
    for folder in (tmp_path, tmp_path / "my-bert", tmp_path / "encoder"):
        lay(folder)
    teacher = ("--teacher", "my-bert", "--data", "data")
    commands = [
        ("doctor",), ("profiles",), ("cache",), ("compress", "--dry-run", *teacher, "--latency-ms", "5"),
        ("compress", *teacher, "--latency-ms", "5", "--always-distill", "--out", "bundle"),
        ("teach", "--encoder", "encoder", "--data", "data", "--epochs", "1", "--out", "taught"),
        ("plan", *teacher, "--latency-ms", "5", "--out", "plan.json"),
        ("transfer", *teacher, "--out", "texts"),
        ("probe", "make", "kit.zip", "--teacher", "my-bert"),
        ("validate", "bundle"), ("validate", "."), ("report", "bundle"), ("predict", "bundle", "texts.txt"),
        ("export", "--triton", "models", "--bundle", "bundle"),
    ]  # fmt: skip
    (tmp_path / "texts.txt").write_text("turn the lights off\n")
    for words in commands:
        if words == ("validate", "bundle"):
            lay(tmp_path / "bundle")
        run = edgekd(tmp_path, *words)
        _, err = run.communicate(timeout=300)
        assert run.returncode in (0, 1, 2, 5), (words, err[-500:])
        assert not (tmp_path / "sprung").exists(), (words, (tmp_path / "sprung").read_text())
    for folder in (tmp_path, tmp_path / "bundle"):
        running = edgekd(folder, "serve", str(tmp_path / "bundle"), "--port", "0")
        assert "on http://" in running.stderr.readline()
        time.sleep(0.2)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
        assert not (folder / "sprung").exists()
