"""The documentation says what the code says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from edgekd import api
from edgekd.cli import COMMANDS

ROOT = Path(__file__).parents[1]


def test_each_message_of_the_troubleshooting_page_is_one_that_the_code_gives():
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "edgekd").rglob("*.py"))
    # Long messages are written as strings one after another.
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    messages = re.findall(r"\*\*`([^`]+)`", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"))
    assert len(messages) > 20
    assert not [message for message in messages if message not in code]


def test_every_page_is_in_the_contents():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = [page for part in nav for entries in part.values() for entry in entries for page in entry.values()]
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_site_is_built_without_a_warning_and_names_every_command_and_function(tmp_path):
    """--strict: a link to nowhere, or a function that is gone, is an error. Nothing is fetched."""
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    commands, functions = (
        (tmp_path / "site" / f"reference-{name}.html").read_text(encoding="utf-8") for name in ("cli", "python")
    )
    assert not [name for name in COMMANDS if f"edgekd {name} [OPTIONS]" not in commands]
    assert not [name for name in api.__all__ if f'id="edgekd.api.{name}"' not in functions]
    pages = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site").glob("*.html"))
    assert not re.findall(r'<(?:script|img)[^>]*src="https?:|<link[^>]*stylesheet[^>]*href="https?:', pages)


def test_the_readme_is_a_page_or_two():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
