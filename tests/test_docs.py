"""The documentation says what the code says."""

import re
from pathlib import Path

import yaml

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
    named = {page for entry in nav for page in entry.values()}
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_the_readme_is_a_page_or_two():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
