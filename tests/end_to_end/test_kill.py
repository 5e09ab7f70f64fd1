"""Kill -9 in the middle of whatever stage is running, again and again: the same bundle comes out in the end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from edgekd.settings.profile import override

# Seconds into a sitting at which it is killed; the sittings get longer, so the run moves on through all stages.
KILLED_AFTER = (4, 6, 7, 8, 9, 10, 11, 12, 14)


@pytest.mark.slow
def test_killed_and_resumed_compress_gives_the_same_student(tmp_path, tiny_teacher, intent_data, fast_profile):
    profile = override(fast_profile, {"distill.stages.0.training.epochs": 60, "distill.stages.0.training.patience": 99})
    (tmp_path / "fake.yaml").write_text(yaml.safe_dump(profile.model_dump(mode="json")))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}

    def command(name, *more):
        return [
            sys.executable, "-m", "edgekd", "compress", "--teacher", str(tiny_teacher), "--data", str(intent_data),
            "--profile", str(tmp_path / "fake.yaml"), "--cache-dir", str(tmp_path / f"cache-{name}"),
            "--out", str(tmp_path / name), *more,
        ]  # fmt: skip

    subprocess.run(command("whole"), env=environment, check=True, capture_output=True)
    plan = ("--plan", str(tmp_path / "whole" / "plan.json"))
    kills = 0
    for seconds in (*KILLED_AFTER, 600):
        process = subprocess.Popen(command("cut", *plan), env=environment, stderr=subprocess.PIPE, text=True)
        started = time.monotonic()
        while process.poll() is None and time.monotonic() - started < seconds:
            time.sleep(0.1)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
        assert not (tmp_path / "cut" / "verdict.json").exists()
    assert process.wait() == 0, process.stderr.read()
    process.communicate()
    assert kills >= 2
    sums = [json.loads((tmp_path / name / "verdict.json").read_text())["files"] for name in ("whole", "cut")]
    assert sums[0]["student/model.safetensors"] == sums[1]["student/model.safetensors"]
    assert sums[0]["model.onnx"] == sums[1]["model.onnx"]
