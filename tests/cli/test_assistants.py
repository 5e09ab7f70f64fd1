"""--assistants, and what it makes of a profile."""

import json

import pytest

from tests.cli.test_cli import refused, run


def asked(capsys, *arguments):
    code, out, err = run(capsys, "compress", "--demo", "--latency-ms", "5", "--dry-run", "--json", *arguments)
    assert code == 0, err
    return json.loads(out)["request"]["profile"]["distill"]["assistants"]


def test_flag_is_the_profiles_field(capsys):
    assert asked(capsys)["name"] == "auto"
    assert asked(capsys, "--assistants", "lambda") == {"name": "lambda", "tradeoff": 0.2, "shapes": []}


def test_flag_replaces_a_fixed_chain(capsys, tmp_path):
    fixed = "{name: fixed, shapes: [{layers: [0, 1], heads: [4, 4], ffn: [64, 64]}]}"
    (tmp_path / "p.yaml").write_text(f"name: p\ndistill: {{assistants: {fixed}}}\n")
    assert len(asked(capsys, "--profile", str(tmp_path / "p.yaml"))["shapes"]) == 1
    replaced = asked(capsys, "--profile", str(tmp_path / "p.yaml"), "--assistants", "none")
    assert (replaced["name"], replaced["shapes"]) == ("none", [])


@pytest.mark.parametrize(
    ("distill", "line"),
    [
        ("{assistants: {name: lambda, tradeoff: 2}}", "distill.assistants.tradeoff"),
        ("{assistants: {name: ratio}, init: {name: random}}", "assistants ratio: the student is cut out of its"),
    ],
)
def test_wrong_profile_is_one_line(capsys, tmp_path, distill, line):
    (tmp_path / "p.yaml").write_text(f"name: p\ndistill: {distill}\n")
    arguments = ("compress", "--demo", "--latency-ms", "5", "--dry-run", "--profile", str(tmp_path / "p.yaml"))
    assert line in refused(capsys, *arguments)
    (tmp_path / "p.yaml").write_text("name: p\ndistill: {init: {name: random}}\n")
    assert "--assistants ratio" in refused(capsys, *arguments, "--assistants", "ratio")
