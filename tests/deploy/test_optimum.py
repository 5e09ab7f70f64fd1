"""The bundle in optimum.onnxruntime, in an environment of its own: optimum-onnx wants a transformers of last year."""

import json
import re
from pathlib import Path

import pytest

from .conftest import TEXTS, command, environment

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"

ANSWER = """
import json, sys
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline
bundle, texts = sys.argv[1], json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(bundle)
said = {}
for file in ("model.onnx", "onnx/model.onnx"):
    folder, _, name = file.rpartition("/")
    model = ORTModelForSequenceClassification.from_pretrained(bundle, subfolder=folder, file_name=name)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
    said[file] = [answer["label"] for answer in classify(texts, truncation=True)]
print(json.dumps(said))
"""


@pytest.mark.slow
def test_optimum_loads_the_bundle_and_gives_the_runtimes_labels(bundle, expected, tmp_path):
    # The pinned torch: another one may bring gigabytes of CUDA.
    pins = re.findall(r"^(?:torch|onnxruntime|onnx)==.+$", CONSTRAINTS.read_text(), re.MULTILINE)
    assert len(pins) == 3
    python = environment(tmp_path / "venv", *pins, "optimum-onnx==0.1.0", "transformers<4.58")
    (tmp_path / "answer.py").write_text(ANSWER)
    said = json.loads(command(python, tmp_path / "answer.py", bundle, json.dumps(TEXTS)).splitlines()[-1])
    assert said["model.onnx"] == expected
    assert len(said["onnx/model.onnx"]) == len(TEXTS)
