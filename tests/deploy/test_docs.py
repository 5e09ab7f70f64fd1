"""docs/deploy.md says what is there: files, flags, limits, and code that runs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from edgekd.serving.limits import Limits
from edgekd.serving.server import create_app

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_file_it_names_is_in_the_bundle(bundle):
    named = set(re.findall(r"(?:bundle/)?(deploy/[\w./-]*\w)", PAGE))
    assert {"deploy/docker/Dockerfile", "deploy/node/client.mjs", "deploy/tensorrt/build.py", "deploy/web"} <= named
    assert not [name for name in named if not (bundle / name).exists()]


@pytest.mark.parametrize(
    ("script", "section"), [(["-m", "edgekd.serving"], "## HTTP"), (["tensorrt/build.py"], "## TensorRT")]
)
def test_every_flag_of_a_script_exists(bundle, script, section):
    run = subprocess.run(
        [sys.executable, *script, "--help"], cwd=bundle / "deploy", capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    start = PAGE.index(section)
    section = PAGE[start : PAGE.find("\n## ", start + 5)]
    flags = set(re.findall(r"--[a-z][a-z0-9-]+", section)) - {"--rm", "--cpus", "--bundle"}
    assert len(flags) > 3
    assert not [flag for flag in flags if flag not in run.stdout]


def test_the_limits_it_states_are_the_defaults():
    limits = Limits()
    stated = re.search(r"([\d,]+) MiB `--max-body-bytes`, ([\d,]+) `--max-texts`, ([\d,]+) `--max-characters`", PAGE)
    mib, texts, characters = (int(number.replace(",", "")) for number in stated.groups())
    assert (mib * 2**20, texts, characters) == (limits.body_bytes, limits.texts, limits.characters)
    assert f"{limits.waiting} `--max-waiting`" in PAGE
    assert f"longer than {limits.body_seconds:g} s" in PAGE
    assert f"{limits.seconds:g} s `--max-seconds`" in PAGE


def test_its_metrics_are_those_of_the_server(bundle):
    registry = create_app(bundle).state.server.metrics.registry
    exported = generate_latest(registry).decode()
    named = set(re.findall(r"`((?:edgekd|process)_\w+)", PAGE))
    assert len(named) >= 8
    assert not [name for name in named if name not in exported]


def test_python_and_the_command_run_as_they_stand(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    code = next(block for block in blocks("python") if "edgekd.runtime" in block)
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "'label'" in run.stdout
    (tmp_path / "texts.csv").write_text("message\nwill it rain\n")
    lines = [
        line
        for block in blocks("bash")
        for line in block.splitlines()
        if re.match("edgekd (export --triton|predict)", line)
    ]
    assert len(lines) == 2
    for line in lines:
        command = line.partition(" > ")[0]
        run = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert command == line or "'label'" in str(json.loads(run.stdout))
    for name in ("config.pbtxt", "labels.txt", "1/model.onnx"):
        assert (tmp_path / "models" / "bundle" / name).is_file()
