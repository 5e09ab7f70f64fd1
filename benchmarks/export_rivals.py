"""The rival files of benchmarks/export.py: the same weights through optimum-onnx and OpenVINO with NNCF.

Runs in an environment of its own, since optimum-onnx pins transformers below 4.58:

    python -m venv rivals
    rivals/bin/pip install 'torch==2.13.0' 'optimum-onnx[onnxruntime]==0.1.0' 'transformers<4.58' openvino nncf
    rivals/bin/python benchmarks/export_rivals.py --teacher ./my-bert --data ./data --out ./rival-files

The teacher is a fine-tuned BERT for text classification. Students with a stock shape, which is all that a stock
BertConfig can express, are its first layers: one folder each, with the weights as `model/`, which benchmarks/export.py
writes with this product's own writer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

LENGTH = 128
CALIBRATION_TEXTS = 300


def slice_model(teacher: Path, layers: int, out: Path) -> None:
    """Save the teacher's first `layers` layers with its head as a stock model, and its tokenizer."""
    from transformers import AutoTokenizer, BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(teacher)
    model.bert.encoder.layer = model.bert.encoder.layer[:layers]
    model.config.num_hidden_layers = layers
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(teacher).save_pretrained(out)


def optimum_files(model: Path, out: Path) -> None:
    """o0.onnx to o3.onnx, and int8_avx512_vnni.onnx from the unoptimised one, as optimum's guide makes them."""
    from optimum.exporters.onnx import main_export
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTOptimizer, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoOptimizationConfig, AutoQuantizationConfig

    plain = out / "o0"
    main_export(str(model), output=plain, task="text-classification", device="cpu", do_validation=False)
    for level in ("O1", "O2", "O3"):
        optimizer = ORTOptimizer.from_pretrained(ORTModelForSequenceClassification.from_pretrained(plain))
        optimizer.optimize(
            save_dir=out / level.lower(), optimization_config=getattr(AutoOptimizationConfig, level)(), file_suffix=None
        )
    quantizer = ORTQuantizer.from_pretrained(plain)
    config = AutoQuantizationConfig.avx512_vnni(is_static=False)
    quantizer.quantize(save_dir=out / "int8", quantization_config=config, file_suffix=None)
    for name in ("o0", "o1", "o2", "o3", "int8"):
        shutil.copyfile(out / name / "model.onnx", out / f"{name}.onnx")
        shutil.rmtree(out / name)
    (out / "int8.onnx").rename(out / "int8_avx512_vnni.onnx")


def openvino_file(model: Path, texts: list[str], out: Path) -> None:
    """openvino_int8.xml: post-training quantisation by NNCF, calibrated on texts, weights and activations INT8."""
    import nncf
    import openvino
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = openvino.convert_model(out / "o0.onnx")
    names = [node.get_any_name() for node in network.inputs]

    def inputs(text: str) -> dict[str, Any]:
        encoded = tokenizer(text, truncation=True, max_length=LENGTH, return_tensors="np")
        return {name: encoded[name] for name in names}

    quantised = nncf.quantize(
        network,
        nncf.Dataset(texts, inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(texts),
    )
    openvino.save_model(quantised, out / "openvino_int8.xml", compress_to_fp16=False)


def serve(path: Path, length: int) -> None:
    """Time an OpenVINO model for a parent: each line of the input is a number of calls, each answer their ms."""
    import numpy as np
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    ids = np.random.default_rng(0).integers(0, 1000, (1, length))
    known = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    feeds = {node.get_any_name(): known[node.get_any_name()] for node in compiled.inputs}
    request = compiled.create_infer_request()
    for line in sys.stdin:
        taken = []
        for call in range(int(line) + 2):
            start = time.perf_counter_ns()
            request.infer(feeds)
            if call >= 2:  # the first ones find cold caches
                taken.append((time.perf_counter_ns() - start) / 1e6)
        print(json.dumps(taken), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, help="fine-tuned BERT for text classification")
    parser.add_argument("--data", type=Path, help="folder whose train.jsonl has the texts to calibrate on")
    parser.add_argument("--layers", nargs="+", type=int, default=[6, 3])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", type=Path, help="time this OpenVINO model for benchmarks/export.py")
    parser.add_argument("--length", type=int, default=LENGTH)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve, options.length)
        return
    with (options.data / "train.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for _, line in zip(range(CALIBRATION_TEXTS), lines, strict=False)]
    for layers in options.layers:
        out = options.out / f"{layers}-layers"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        slice_model(options.teacher, layers, out / "model")
        optimum_files(out / "model", out)
        openvino_file(out / "model", texts, out)
        print("made:", out)
    names = ("optimum", "optimum-onnx", "onnxruntime", "openvino", "nncf", "torch", "transformers")
    (options.out / "versions.json").write_text(json.dumps({name: metadata.version(name) for name in names}, indent=1))


if __name__ == "__main__":
    main()
