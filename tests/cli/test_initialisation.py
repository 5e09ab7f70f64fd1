"""The stage commands with a student that starts from an encoder with another tokenizer."""

import json

import yaml

from edgekd.settings.profile import override
from tests.cli.test_cli import refused, run
from tests.end_to_end.test_initialisation import save_encoder, spelling

__all__ = ["spelling"]  # a fixture


def test_the_road_on_foot(capsys, tmp_path, fast_profile, tiny_teacher, tiny_encoder, intent_data, spelling):
    def asked(folder):
        changes = {"distill.init": {"name": "checkpoint", "folder": str(folder)}, "budget.latency_ms": 1}
        file = tmp_path / f"{folder.name}.yaml"
        file.write_text(yaml.safe_dump(override(fast_profile, changes).model_dump(mode="json")))
        return ("--teacher", tiny_teacher, "--data", intent_data, "--profile", file, "--cache-dir", tmp_path / "cache")

    def step(*arguments):
        code, out, err = run(capsys, *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    work = asked(spelling)
    plan = step("plan", *work, "--out", tmp_path / "plan.json")
    assert plan["candidates"][plan["chosen"]]["shape"]["hidden"] == 16
    assert plan["max_length"] > 32  # letters
    student = step("distill", *work, "--plan", tmp_path / "plan.json", "--out", tmp_path / "student")
    assert student["validation"] > student["untrained"]
    theirs, mine = spelling / "tokenizer.json", tmp_path / "student" / "tokenizer.json"
    assert json.loads(mine.read_text())["model"]["vocab"] == json.loads(theirs.read_text())["model"]["vocab"]
    exported = step("export", *work, "--student", tmp_path / "student", "--out", tmp_path / "onnx")
    assert exported["parity"]["max_abs_gap"] < 1e-4
    other = save_encoder(tmp_path / "other", tiny_encoder)
    line = refused(
        capsys, "distill", *asked(other), "--plan", tmp_path / "plan.json", "--out", tmp_path / "student2"
    )  # fmt: skip
    assert "plan again" in line
