"""What `deploy/` holds, and that nothing in it is a template any more."""

import json
import re
import runpy
import shutil
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import kubernetes_validate
import onnx
import pandas
import pytest
import yaml

from edgekd.cli import main
from edgekd.errors import EdgekdError, UsageError
from edgekd.export.deploy import triton_repository, write_deploy
from edgekd.resources import resource
from edgekd.runtime import load


def test_every_runtime_has_its_folder_and_no_placeholder_is_left(bundle):
    deploy = bundle / "deploy"
    folders = ["docker", "kubernetes", "mlflow", "node", "tensorrt", "triton", "web"]
    assert sorted(path.name for path in deploy.iterdir()) == folders
    files = [path for path in deploy.rglob("*") if path.is_file()]
    assert not [path for path in files if re.search(r"@[A-Z]+@", path.read_text(encoding="utf-8"))]
    assert not [path for path in files if path.suffix in (".onnx", ".pyc")]
    assert sum(path.stat().st_size for path in files) < 200_000


def test_write_deploy_replaces_what_was_there(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "deploy" / "old.txt").write_text("from an earlier try")
    write_deploy(copy)
    assert not (copy / "deploy" / "old.txt").exists()


def test_foreign_runtimes_learn_precision_and_length(bundle):
    config = json.loads((bundle / "config.json").read_text())
    assert config["transformers.js_config"] == {"dtype": "q8"}
    assert json.loads((bundle / "tokenizer_config.json").read_text())["model_max_length"] == 16


def test_the_image_pins_the_versions_that_proved_the_bundle(bundle):
    lines = (bundle / "deploy" / "docker" / "requirements.txt").read_text().splitlines()
    for name in ("numpy", "onnxruntime", "tokenizers"):
        assert f"{name}=={metadata.version(name)}" in lines
    constraints = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) == 7
    assert set(pins[3:]) <= set(constraints)
    dockerfile = (bundle / "deploy" / "docker" / "Dockerfile").read_text()
    assert f"python:{sys.version_info.major}.{sys.version_info.minor}-slim" in dockerfile


def test_kubernetes_gives_the_server_the_cpus_that_the_bundle_was_proven_with(bundle):
    deployment, service = yaml.safe_load_all((bundle / "deploy" / "kubernetes" / "deployment.yaml").read_text())
    pod = deployment["spec"]["template"]
    (server,) = pod["spec"]["containers"]
    assert server["resources"]["limits"]["cpu"] == server["resources"]["requests"]["cpu"] == "1"
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert service["spec"]["ports"][0]["targetPort"] == server["ports"][0]["name"]


@pytest.mark.parametrize("name", ["deployment", "job"])
def test_kubernetes_manifests_are_valid_and_locked_down(name):
    text = (resource("export") / "kubernetes" / f"{name}.yaml").read_text().replace("@THREADS@", "1")
    for document in yaml.safe_load_all(text):
        kubernetes_validate.validate(document, "1.33", strict=True)
        if "template" in document["spec"]:
            spec = document["spec"]["template"]["spec"]
            assert spec["securityContext"]["runAsNonRoot"]
            assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"]


def test_mlflow_answers_lists_and_tables(bundle, monkeypatch):
    made = []
    stub = types.ModuleType("mlflow")
    stub.pyfunc = types.SimpleNamespace(PythonModel=object)
    stub.models = types.SimpleNamespace(set_model=made.append)
    monkeypatch.setitem(sys.modules, "mlflow", stub)
    runpy.run_path(str(bundle / "deploy" / "mlflow" / "model.py"))
    (model,) = made
    model.load_context(types.SimpleNamespace(artifacts={"bundle": str(bundle)}))
    expected = load(bundle).predict(["rain", "turn on the lamp"])
    assert model.predict(None, ["rain", "turn on the lamp"]) == expected
    table = pandas.DataFrame({"id": [1, 2], "text": ["rain", "turn on the lamp"]})
    assert model.predict(None, table) == expected
    assert "scores" in model.predict(None, table, {"all_scores": True})[0]


def test_a_bundle_for_a_gpu_asks_for_its_onnxruntime(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["edgekd"]["session"]["providers"] = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    (copy / "config.json").write_text(json.dumps(config))
    deploy = write_deploy(copy)
    assert "\nonnxruntime-gpu==" in (deploy / "docker" / "requirements.txt").read_text()
    assert "kind: KIND_GPU" in (deploy / "triton" / "config.pbtxt").read_text()


def test_the_image_is_built_from_files_that_are_there_and_let_in(bundle):
    docker = bundle / "deploy" / "docker"
    let_in = [line[1:] for line in (docker / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"]
    copied = [
        name
        for line in (docker / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for name in line.split()[1:-1]
    ]
    assert {"model.onnx", "deploy/docker/edgekd"} <= set(copied)
    for name in copied:
        assert (bundle / name).exists()
        assert any(name == entry or name.startswith(f"{entry}/") for entry in let_in)


def test_the_served_copy_of_the_runtime_is_whole_and_light(bundle):
    """As in the image: only the copy beside its Dockerfile, which pulls in neither torch nor the rest."""
    code = (
        "import sys, edgekd, edgekd.serving.server; from pathlib import Path; from edgekd.runtime import load\n"
        f"print(Path(edgekd.__file__).parent, load({str(bundle)!r}).predict('rain')[0]['label'])\n"
        "print(*{n for n in sys.modules if n.partition('.')[0] in ('torch', 'transformers', 'onnx', 'yaml')})"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=bundle / "deploy" / "docker", capture_output=True, text=True, check=True,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    first, second = run.stdout.split("\n")[:2]
    assert first.startswith(str(bundle / "deploy" / "docker" / "edgekd"))
    assert second == ""


def test_a_triton_repository_is_written_by_the_command(bundle, tmp_path):
    arguments = ["export", "--triton", str(tmp_path / "models"), "--bundle", str(bundle)]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    model = tmp_path / "models" / "intents"
    assert (model / "1" / "model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()
    assert (model / "labels.txt").read_text().split() == ["alarm_set", "lights_on", "music_play", "weather_ask"]
    with pytest.raises(UsageError, match="has a model 'intents' already"):
        triton_repository(bundle, tmp_path / "models")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--triton", "x"], "--triton needs --bundle"),
        (["--bundle", "x"], "--bundle goes with --triton"),
        (["--triton", "x", "--bundle", "y", "--student", "z"], "leave out --student"),
        (["--triton", "x", "--bundle", "nowhere"], "--bundle nowhere: no such folder"),
    ],
)
def test_wrong_flags_are_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "edgekd", "export", *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert words in run.stderr


def test_a_graph_of_another_type_is_refused(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    model = onnx.load(copy / "model.onnx")
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    onnx.save(model, copy / "model.onnx")
    with pytest.raises(UsageError, match="logits is of type DOUBLE"):
        triton_repository(copy, tmp_path / "models")
    (copy / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes()[:1000])
    with pytest.raises(EdgekdError, match="not a whole ONNX model"):
        triton_repository(copy, tmp_path / "models")
    assert not (tmp_path / "models").exists()
