"""The TensorRT recipe without a GPU: its arguments, and what it refuses before it loads an engine."""

import hashlib
import json
import py_compile
import sys

import pytest

from .conftest import module

HERE = {"GPU": "NVIDIA L4", "compute capability": "8.9", "driver": "580.82.07", "TensorRT": "10.16.1.11"}


@pytest.fixture
def recipe(monkeypatch):
    loaded = module("tensorrt", "build")
    monkeypatch.setattr(loaded, "tensorrt", lambda: None)
    monkeypatch.setattr(loaded, "surroundings", lambda trt: HERE)
    return loaded


@pytest.fixture
def engine(tmp_path):
    """An engine's bytes and its facts, as `build` writes them."""
    path, graph = tmp_path / "model.engine", tmp_path / "graph.onnx"
    path.write_bytes(b"engine")
    graph.write_bytes(b"graph")
    facts = {
        "schema_version": 1,
        "built_with": HERE,
        "onnx_sha256": hashlib.sha256(b"graph").hexdigest(),
        "engine_sha256": hashlib.sha256(b"engine").hexdigest(),
    }
    (tmp_path / "model.engine.json").write_text(json.dumps(facts))
    return path


def test_the_rendered_recipe_compiles(bundle, tmp_path):
    py_compile.compile(str(bundle / "deploy/tensorrt/build.py"), cfile=str(tmp_path / "build.pyc"), doraise=True)
    assert (tmp_path / "build.pyc").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch", "1,8"], "give three numbers"),
        (["--batch", "8,1,32"], "in rising order"),
        (["--length", "0,8,16"], "from 1"),
        (["--workspace-mb", "0"], "less than 1"),
    ],
)
def test_wrong_shapes_are_usage_errors(recipe, capsys, arguments, words):
    with pytest.raises(SystemExit) as end:
        recipe.main(arguments)
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_lengths_come_from_the_bundle(recipe, bundle):
    assert recipe.usual_lengths(bundle / "config.json") == (8, 8, 16)


def test_a_graph_that_is_missing_is_named(recipe, tmp_path, capsys):
    assert recipe.main(["--onnx", str(tmp_path / "none.onnx")]) == 2
    assert "none.onnx: no such file" in capsys.readouterr().err


def test_without_tensorrt_or_a_gpu_it_ends_with_3(bundle, capsys, monkeypatch):
    recipe = module("tensorrt", "build")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert recipe.main(["--onnx", str(bundle / "onnx/model.onnx"), "--length", "8,16,16"]) == 3
    assert "tensorrt is missing: pip install" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    with pytest.raises(recipe.RecipeError, match="nvidia-smi names no GPU") as error:
        recipe.surroundings(None)
    assert error.value.code == 3


@pytest.mark.parametrize("name", HERE)
def test_an_engine_for_another_gpu_or_version_is_refused_before_it_is_loaded(recipe, engine, monkeypatch, name):
    monkeypatch.setattr(recipe, "surroundings", lambda trt: HERE | {name: "another"})
    with pytest.raises(recipe.RecipeError, match=f"built with {name} {HERE[name]}, here is another: build it again"):
        recipe.load_engine(engine)


def test_an_engine_that_changed_or_is_of_another_graph_is_refused(recipe, engine, capsys):
    assert recipe.main(["--check", str(engine.with_name("none.engine"))]) == 2
    assert "no such engine" in capsys.readouterr().err
    other = engine.with_name("other.onnx")
    other.write_bytes(b"another graph")
    with pytest.raises(recipe.RecipeError, match="built from another graph"):
        recipe.load_engine(engine, other)
    engine.write_bytes(b"half")
    with pytest.raises(recipe.RecipeError, match=r"not the file that model\.engine\.json describes"):
        recipe.load_engine(engine)
    (engine.parent / "model.engine.json").write_text('{"schema_version": 9}')
    with pytest.raises(recipe.RecipeError, match="schema version 9"):
        recipe.load_engine(engine)
    (engine.parent / "model.engine.json").unlink()
    with pytest.raises(recipe.RecipeError, match="missing or broken"):
        recipe.load_engine(engine)


def test_an_engine_of_this_place_is_loaded(recipe, engine, monkeypatch):
    class Runtime:
        def __init__(self, logger):
            pass

        def deserialize_cuda_engine(self, data):
            return data.decode()

    class Logger:
        WARNING = 0

        def __init__(self, level):
            pass

    fake = type("Fake", (), {"Runtime": Runtime, "Logger": Logger})
    monkeypatch.setattr(recipe, "tensorrt", lambda: fake)
    assert recipe.load_engine(engine, engine.with_name("graph.onnx")) == "engine"
