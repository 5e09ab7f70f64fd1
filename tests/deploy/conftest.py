"""A tiny bundle of a real student, with its `deploy/` folder."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from edgekd.bundle import Core, write_core
from edgekd.export.deploy import write_deploy
from edgekd.graph.quantize import quantize_dynamic
from edgekd.graph.writer import save_model, write_student
from edgekd.resources import resource
from edgekd.runtime import load
from edgekd.settings.shape import EncoderShape, HeadShape
from edgekd.settings.task import TextClassification

LABELS = ("alarm_set", "lights_on", "music_play", "weather_ask")
WORDS = [
    "please", "turn", "on", "the", "lamp", "light", "wake", "me", "at", "six", "play", "some", "jazz", "music", "will",
    "it", "rain", "tomorrow", "now", "a",
]  # fmt: skip
TEXTS = [
    "turn on the lamp", "Wake me at six", "play some jazz", "will it rain tomorrow", "please play music now",
    "the light", "rain", "turn turn turn on", "wake wake me please", "a jazz lamp tomorrow at six", "xyz",
    "please turn on the light at six and play some jazz music now will it rain tomorrow at six",
]  # fmt: skip
"""A dozen texts; the last is longer than the bundle's 16 tokens, and one has no known word."""


class Reader:
    """What `write_core` takes of a teacher: its configuration and its tokenizer."""

    def __init__(self, folder):
        self.folder, self.tokenizer = folder, Tokenizer.from_file(str(folder / "tokenizer.json"))

    def save_tokenizer(self, folder):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(self.folder / name, folder / name)


def write_teacher(folder):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(vocabulary[:5])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512} | names
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "pad_token_id": 0}))
    return len(vocabulary)


def write_bundle(work, folder, kind="sequence", task=None):
    """A two-layer INT8 student whose random weights give the texts different labels, by clear margins."""
    vocabulary = write_teacher(work)
    shape = EncoderShape(
        vocabulary=vocabulary, positions=64, token_types=2, embedding=32, hidden=32, head_size=8, heads=(4, 2),
        ffn=(64, 48), head=HeadShape(kind=kind, labels=len(LABELS), activation="tanh"),
    )  # fmt: skip
    rng, weights = np.random.default_rng(15), {}
    for name, size in shape.weight_shapes().items():
        # Biases stay small: they are what all texts share.
        spread = 0.05 if len(size) == 1 else 1 if name.startswith("embeddings.") else 3 * size[1] ** -0.5
        weights[name] = (rng.normal(0, spread, size) + name.endswith("norm.weight")).astype(np.float32)
    save_model(write_student(shape, weights), work / "model.onnx")
    quantize_dynamic(work / "model.onnx", work / "model_quantized.onnx", instruction_set="avx512_vnni")
    task = task or TextClassification()
    core = Core(work / "model_quantized.onnx", task, LABELS, Reader(work), shape, 16, {"threads": 1})
    write_core(folder, core)
    (folder / "onnx").mkdir()
    for name in ("model.onnx", "model_quantized.onnx"):
        shutil.copyfile(work / name, folder / "onnx" / name)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """The bundle; read only."""
    folder = tmp_path_factory.mktemp("made") / "intents"
    write_bundle(tmp_path_factory.mktemp("work"), folder)
    write_deploy(folder)
    return folder


@pytest.fixture(scope="session")
def expected(bundle):
    """edgekd.runtime's labels of TEXTS: several, and none by a hair, so that another kernel cannot flip one."""
    answers = load(bundle).predict(TEXTS, batch_size=1, all_scores=True)
    scores = np.sort([list(answer["scores"].values()) for answer in answers])
    assert (scores[:, -1] - scores[:, -2]).min() > 0.05
    labels = [answer["label"] for answer in answers]
    assert set(labels) == set(LABELS)
    return labels


def module(folder, name):
    """A script of `export/` as a module."""
    spec = importlib.util.spec_from_file_location(f"template_{name}", resource("export") / folder / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(bundle, *flags):
    """The server that the bundle itself brings, as a process; gives it and its port once it answers."""
    port = free_port()
    folder = bundle / "deploy" / "docker"
    command = [sys.executable, "-m", "edgekd.serving", str(bundle), "--port", str(port), *flags]
    running = subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert running.poll() is None
            time.sleep(0.05)
        yield running, port
    finally:
        running.kill()
        running.wait()


def command(*words, cwd=None, timeout=300):
    """A command's standard output; its last words are the failure."""
    run = subprocess.run([str(w) for w in words], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return run.stdout


def need(*tools):
    """Paths of the tools, or a skipped test."""
    paths = [shutil.which(tool) for tool in tools]
    for tool, path in zip(tools, paths, strict=True):
        if path is None:
            pytest.skip(f"{tool} is not installed")
    return paths


def npm_install(folder, *packages):
    """Install what package.json (or the caller) names; without a registry the test is skipped."""
    (npm,) = need("npm")
    flags = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    run = subprocess.run(
        [npm, "install", *flags, *packages], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    if run.returncode:
        pytest.skip(f"npm install failed: {run.stderr.strip()[-300:]}")


def environment(folder, *packages):
    """The Python of a new virtual environment with these packages; without an index the test is skipped."""
    command(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    run = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--no-compile", *packages],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    if run.returncode:
        pytest.skip(f"pip install failed: {run.stderr.strip()[-300:]}")
    return python
