"""A bundle in plain onnxruntime with the tokenizers library alone: the same labels as PyTorch on real sentences."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer

from edgekd.bundle import Core, write_core
from edgekd.data.demo.generate import demo_encoder, generate_demo
from edgekd.errors import UnavailableError
from edgekd.graph.writer import save_model, write_student
from edgekd.models.importance import Importance
from edgekd.models.initialize import slice_weights
from edgekd.models.student import from_weights
from edgekd.models.teacher import load_encoder, load_teacher
from edgekd.settings.shape import Slice
from edgekd.settings.task import TextClassification

SHARED = Path(__file__).parents[3] / "shared" / "data" / "clinc150" / "test.jsonl"
LABELS = tuple(f"class-{i}" for i in range(12))


@pytest.fixture(scope="module")
def real_sentences(tmp_path_factory):
    """200 sentences of clinc150 where the shared data are at hand, else of the demo."""
    path = SHARED
    if not path.is_file():
        folder = tmp_path_factory.mktemp("demo")
        generate_demo(folder)
        path = folder / "test.jsonl"
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()[:200]]


@pytest.fixture(scope="module")
def bundle_and_student(tmp_path_factory):
    """A three-layer slice of MiniLM with a new head, as a bundle and in PyTorch."""
    try:
        encoder = demo_encoder()
    except UnavailableError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("teacher")
    model = load_encoder(encoder, LABELS, "sequence")
    with torch.no_grad():
        model.classifier.weight.mul_(40)  # a new head's logits are nearly equal; a trained one's are not
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((encoder / "tokenizer.json").read_bytes())
    teacher = load_teacher(folder)
    shape, weights = teacher.hosted
    flat = Importance([np.ones(h) for h in shape.heads], [np.ones(f) for f in shape.ffn], np.ones(shape.depth))
    shape, weights = slice_weights(
        shape, weights, flat, Slice(layers=(0, 2, 5), heads=(12, 6, 9), ffn=(1536, 512, 768))
    )
    out = tmp_path_factory.mktemp("bundle")
    save_model(write_student(shape, weights), out / "graph.onnx")
    write_core(out, Core(out / "graph.onnx", TextClassification(), LABELS, teacher, shape, 64, {"threads": 1}))
    return out, from_weights(shape, weights, LABELS)


def test_same_labels_as_pytorch(bundle_and_student, real_sentences):
    folder, student = bundle_and_student
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(64)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    assert len(real_sentences) == 200
    seen = set()
    for text in real_sentences:
        encoding = tokenizer.encode(text)
        feeds = {
            "input_ids": np.array([encoding.ids]),
            "attention_mask": np.array([encoding.attention_mask]),
            "token_type_ids": np.array([encoding.type_ids]),
        }
        (logits,) = session.run(["logits"], feeds)
        with torch.inference_mode():
            expected = student(**{name: torch.from_numpy(array) for name, array in feeds.items()}).logits
        assert int(logits.argmax()) == int(expected.argmax())
        assert np.abs(logits - expected.numpy()).max() < 1e-3
        seen.add(int(expected.argmax()))
    assert len(seen) > 3
