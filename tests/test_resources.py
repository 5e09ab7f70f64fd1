"""`edgekd.resources`: the shipped folders, in a checkout and in an installed wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgekd
from edgekd.resources import resource

PACKAGE = Path(edgekd.__file__).resolve().parent
ASK = "import sys; from edgekd.resources import resource; print(resource(sys.argv[1]))"


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A folder like site-packages, with the least of the package in it and both folders under `_data`."""
    package = tmp_path / "site" / "edgekd"
    package.mkdir(parents=True)
    for name in ("__init__.py", "resources.py"):
        shutil.copy(PACKAGE / name, package / name)
    for folder in ("profiles", "export"):
        (package / "_data" / folder).mkdir(parents=True)
    return package.parent


def ask(site: Path, folder: str) -> subprocess.CompletedProcess[str]:
    """Ask a fresh interpreter, started in `site`, whose only edgekd is the one there."""
    command = [sys.executable, "-S", "-c", ASK, folder]
    return subprocess.run(command, cwd=site, env={}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("folder", ["profiles", "export"])
def test_a_checkout_is_read_in_place(folder: str) -> None:
    if not (PACKAGE.parent / "pyproject.toml").is_file():
        pytest.skip("edgekd is not imported from a checkout")
    assert resource(folder) == PACKAGE.parent / folder


@pytest.mark.parametrize("folder", ["profiles", "export"])
def test_an_installation_carries_its_own_copy(installation: Path, folder: str) -> None:
    result = ask(installation, folder)
    assert result.stderr == ""
    assert Path(result.stdout.strip()) == (installation / "edgekd" / "_data" / folder).resolve()


@pytest.mark.parametrize("folder", ["profiles", "export"])
def test_a_checkout_wins_over_data_left_by_a_build(installation: Path, folder: str) -> None:
    (installation / "pyproject.toml").touch()
    (installation / folder).mkdir()
    assert Path(ask(installation, folder).stdout.strip()) == (installation / folder).resolve()


def test_folders_of_the_same_names_beside_an_installation_are_not_ours(installation: Path) -> None:
    (installation / "profiles").mkdir()
    assert Path(ask(installation, "profiles").stdout.strip()).parent.name == "_data"


def test_an_incomplete_installation_says_what_is_missing(installation: Path) -> None:
    shutil.rmtree(installation / "edgekd" / "_data" / "export")
    result = ask(installation, "export")
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert "this installation of edgekd has no folder 'export'" in last
    assert str(Path("edgekd", "_data", "export")) in last
