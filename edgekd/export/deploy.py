"""What a bundle brings for other runtimes: recipes and clients in `deploy/`, and a Triton model repository."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import edgekd
from edgekd.errors import UsageError
from edgekd.graph.check import read_model
from edgekd.resources import ANSWERING, resource
from edgekd.runtime.config import BundleConfig, read_config
from edgekd.runtime.model import CPU

FOLDER = "deploy"

# What the server needs of this package: the runtime, and what a container may use of its host.
_SERVING = (
    "__init__.py", "errors.py", *ANSWERING, "latency/__init__.py", "latency/machine.py", "serving/__init__.py",
    "serving/__main__.py", "serving/connections.py", "serving/limits.py", "serving/schema.py", "serving/server.py",
    "serving/turns.py",
)  # fmt: skip
_AS_THEY_ARE = ("mlflow", "node", "tensorrt", "web")
_TRITON_TYPES = {"INT64": "TYPE_INT64", "INT32": "TYPE_INT32", "FLOAT": "TYPE_FP32", "FLOAT16": "TYPE_FP16"}
_TRITON_BATCH = 32
# Their answers hang on words, which only the whole runtime finds: Triton's client leaves them out.
_WORD_TASKS = ("token-classification", "joint-intent-slots")


def write_deploy(bundle: Path) -> Path:
    """Write `deploy/` into a bundle: small files for each runtime, no second copy of the model.

    Args:
        bundle: A bundle with at least model.onnx and config.json.

    Returns:
        The folder, replaced if it was there.

    Raises:
        UsageError: The bundle's configuration is missing or broken.
        EdgekdError: Its graph is broken.
    """
    config, out = read_config(bundle / "config.json"), bundle / FOLDER
    shutil.rmtree(out, ignore_errors=True)
    for name in _AS_THEY_ARE:
        shutil.copytree(resource("export") / name, out / name, ignore=shutil.ignore_patterns("__pycache__"))
    _write_docker(out / "docker", config)
    _write_kubernetes(out / "kubernetes", config)
    _write_triton(out / "triton", bundle / "model.onnx", config)
    return out


def triton_repository(bundle: Path, out: Path) -> Path:
    """Write a model repository for Triton's onnxruntime backend: `tritonserver --model-repository OUT`.

    Args:
        bundle: The bundle; its folder's name becomes the model's.
        out: The repository; other models in it stay.

    Returns:
        The model's folder in it: config.pbtxt, labels.txt, 1/model.onnx, and a client with its tokenizer where the
        task is on whole texts.

    Raises:
        UsageError: The bundle is missing or broken, or the repository has such a model.
        EdgekdError: Its graph is broken.
    """
    if not bundle.is_dir():
        raise UsageError(f"--bundle {bundle}: no such folder")
    config = read_config(bundle / "config.json")
    if not (bundle / "tokenizer.json").is_file():
        raise UsageError(f"{bundle / 'tokenizer.json'}: missing; is this an edgekd bundle?")
    model = out / bundle.resolve().name
    if model.exists():
        raise UsageError(f"--triton {out}: it has a model {model.name!r} already: remove it, or name another folder")
    _write_triton(model, bundle / "model.onnx", config)
    (model / "1").mkdir()
    shutil.copyfile(bundle / "model.onnx", model / "1" / "model.onnx")
    if config.task not in _WORD_TASKS:
        for name in ("config.json", "tokenizer.json"):
            shutil.copyfile(bundle / name, model / name)
    return model


def _write_docker(out: Path, config: BundleConfig) -> None:
    """The serving image: its own copy of the runtime, so that it answers as the bundle did when it was proven."""
    gpu = _provider(config) != CPU
    values = {
        "PYTHON": f"{sys.version_info.major}.{sys.version_info.minor}",
        "NUMPY": metadata.version("numpy"),
        "TOKENIZERS": metadata.version("tokenizers"),
        "ONNXRUNTIME": f"onnxruntime{'-gpu' if gpu else ''}=={_runtime_version()}",
        "TASK": config.task,
        "VERSION": edgekd.__version__,
    }
    out.mkdir(parents=True)
    for source in sorted(path for path in (resource("export") / "docker").iterdir() if path.is_file()):
        (out / source.name).write_text(_fill(source, values), encoding="utf-8")
    package = Path(edgekd.__file__).parent
    for name in _SERVING:
        target = out / "edgekd" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / name, target)


def _write_kubernetes(out: Path, config: BundleConfig) -> None:
    out.mkdir()
    text = _fill(resource("export") / "kubernetes" / "deployment.yaml", {"THREADS": str(config.threads)})
    (out / "deployment.yaml").write_text(text, encoding="utf-8")


def _write_triton(out: Path, model: Path, config: BundleConfig) -> None:
    """config.pbtxt and labels.txt, with inputs and outputs read from the graph; and the client."""
    graph = read_model(model).graph
    values = {
        "BATCH": str(_TRITON_BATCH),
        "INPUTS": _tensors("input", graph.input, model),
        "OUTPUTS": _tensors("output", graph.output, model),
        "KIND": "KIND_CPU" if _provider(config) == CPU else "KIND_GPU",
        "THREADS": str(config.threads),
    }
    templates = resource("export") / "triton"
    text = _fill(templates / "config.pbtxt", values)
    out.mkdir(parents=True)
    if config.task not in _WORD_TASKS:
        shutil.copyfile(templates / "client.py", out / "client.py")
    (out / "config.pbtxt").write_text(text, encoding="utf-8")
    (out / "labels.txt").write_text("".join(f"{' '.join(name.split())}\n" for name in config.labels), encoding="utf-8")


def _tensors(field: str, tensors: Any, model: Path) -> str:
    """A graph's inputs or outputs in Triton's words: the batch is implied, a named axis is -1."""
    from onnx import TensorProto

    blocks = []
    for tensor in tensors:
        kind = TensorProto.DataType.Name(tensor.type.tensor_type.elem_type)
        if kind not in _TRITON_TYPES:
            raise UsageError(f"{model}: {tensor.name} is of type {kind}, which this export does not know")
        axes = tensor.type.tensor_type.shape.dim[1:]
        dims = ", ".join(str(axis.dim_value) if axis.HasField("dim_value") else "-1" for axis in axes)
        labels = ' label_filename: "labels.txt"' if tensor.name == "logits" else ""
        blocks.append(
            f'{field} [ {{ name: "{tensor.name}" data_type: {_TRITON_TYPES[kind]} dims: [ {dims} ]{labels} }} ]'
        )
    return "\n".join(blocks)


def _fill(template: Path, values: Mapping[str, str]) -> str:
    text = template.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _provider(config: BundleConfig) -> str:
    return str((config.session.get("providers") or [CPU])[0])


def _runtime_version() -> str:
    """Version of the installed onnxruntime, whichever of its two packages it came in."""
    import onnxruntime

    return str(onnxruntime.__version__)
