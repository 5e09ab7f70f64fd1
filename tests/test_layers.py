"""The layers of the house: a package imports only what stands before it here, so that data flows one way."""

import ast
from pathlib import Path

import edgekd

# From the ground up. A package may import those before it, and itself.
LAYERS = (
    "errors", "visible", "reading", "store", "output", "progress", "resources", "onnx_session", "settings",
    "profiles", "records", "runtime", "models", "graph", "bundle", "data", "latency", "tasks", "distill", "proof",
    "export", "inputs", "session", "remote", "plan", "assistants", "report", "pipeline", "serving", "api", "cli",
    "__main__",
)  # fmt: skip

PACKAGE = Path(edgekd.__file__).parent


def imports(path):
    """Top-level packages of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "edgekd":
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            named = [alias.name for alias in node.names if alias.name.split(".")[0] == "edgekd"]
        else:
            continue
        for name in named:
            parts = name.split(".")
            if len(parts) > 1 and parts[1] in LAYERS:
                yield node.lineno, parts[1]


def against_the_order(package):
    """Each import of what stands higher, as a line that names both files."""
    found = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        own = inside.parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        found += [
            f"edgekd/{inside}:{line} imports edgekd.{name}, which stands above edgekd.{own}"
            for line, name in imports(path)
            if LAYERS.index(name) > LAYERS.index(own)
        ]
    return found


def test_every_package_has_its_layer():
    there = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert there - {"__init__", "__pycache__", "_data", "py.typed"} == set(LAYERS)


def test_nothing_imports_what_stands_above_it():
    assert against_the_order(PACKAGE) == []


def test_an_import_against_the_order_names_both(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "wrong.py").write_text("def f():\n    from edgekd.plan import make\n")
    (line,) = against_the_order(tmp_path)
    assert line == "edgekd/models/wrong.py:2 imports edgekd.plan, which stands above edgekd.models"


def test_no_function_is_longer_than_a_screen():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60:
                found[f"{path.relative_to(PACKAGE)}:{node.name}"] = node.end_lineno - node.lineno + 1
    assert found == {}


def test_no_file_swallows_an_axis():
    lines = {path.relative_to(PACKAGE): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): count for path, count in lines.items() if count > 500} == {}
