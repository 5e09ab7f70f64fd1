"""What README and docs tell people to type runs as it stands, on the tiny encoder and the tiny task."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Pages whose commands this machine can run, in the order they are read; another device has tests of its own.
PAGES = ["README.md", "docs/index.md", "docs/distill.md", "docs/teachers.md"]


def commands(page):
    """Lines of a page's code blocks that call edgekd and are whole."""
    found = re.findall(r"^(?:    |\$ )(edgekd [a-z].*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    return [line for line in found if "..." not in line]


def test_every_page_has_commands():
    assert all(commands(page) for page in PAGES)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_commands_run_as_they_stand(page, tiny_encoder, tiny_teacher, intent_data, tmp_path):
    for name, source in (("MiniLM-L6", tiny_encoder), ("encoder", tiny_encoder), ("my-bert", tiny_teacher)):
        shutil.copytree(source, tmp_path / name)
    shutil.copytree(intent_data, tmp_path / "data")
    texts = [line for line in (intent_data / "unlabeled.jsonl").read_text(encoding="utf-8").splitlines() if line]
    (tmp_path / "text.txt").write_text("\n".join(line.split('"')[3] for line in texts), encoding="utf-8")
    shutil.copyfile(intent_data / "train.jsonl", tmp_path / "outputs.jsonl")
    (tmp_path / "texts.csv").write_text("text\nturn the lights off\n")
    for line in commands(page):
        # The tiny encoder is 32 wide.
        words = ["2x32x64h4" if word.startswith("6x384") else word for word in shlex.split(line, comments=True)[1:]]
        if words[0] == "serve":
            continue  # until it is told to end: tests/serving
        if words[0] != "predict":
            words += ["--cache-dir", str(tmp_path / "cache")]
        run = subprocess.run(
            [sys.executable, "-m", "edgekd", *words, *quick(words)],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        # The tiny teacher learned a tiny task: quality is not what is tested.
        assert run.returncode in ((0, 1, 5) if words[0] == "compress" else (0,)), (line, run.stderr)
        assert "Traceback" not in run.stderr
        assert words[0] == "predict" or (tmp_path / words[words.index("--out") + 1]).is_dir()


def quick(words):
    """A documented run takes as long as it takes; a test trains for less."""
    return ["--max-steps", "5"] if "--task-agnostic" in words else ["--epochs", "1"] if words[0] == "teach" else []
