"""Build a TensorRT engine from the bundle's FP32 graph, or check one before it is loaded.

    python build.py [--batch 1,8,32] [--length 8,64,128] [--fp32] [--out model.engine]
    python build.py --check model.engine

An engine only runs on the GPU, the TensorRT and the driver's CUDA that it was built with, and only for the graph that
it was built from. So `model.engine.json` says what these were, and `load_engine` refuses everything else in one line.
It needs an NVIDIA GPU and `pip install "tensorrt>=10,<11"`. Exit codes: 0 done, 2 wrong usage or another engine,
3 no GPU or no TensorRT.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

BUNDLE = Path(__file__).resolve().parents[2]
SCHEMA_VERSION = 1


class RecipeError(Exception):
    """One line for the user, and the exit code."""

    def __init__(self, reason, code=2):
        super().__init__(reason)
        self.code = code


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Build a TensorRT engine, or check one before it is loaded.")
    parser.add_argument("--onnx", type=Path, default=BUNDLE / "onnx" / "model.onnx", help="the FP32 graph")
    parser.add_argument("--batch", type=triple, default=(1, 8, 32), help="least, usual and most texts: 1,8,32")
    parser.add_argument("--length", type=triple, help="least, usual and most tokens; the bundle's maximum is the most")
    parser.add_argument("--fp32", action="store_true", help="keep FP32 instead of FP16")
    parser.add_argument("--workspace-mb", type=positive, default=1024)
    parser.add_argument("--out", type=Path, default=Path("model.engine"))
    parser.add_argument("--check", type=Path, metavar="ENGINE", help="only check and load this engine")
    options = parser.parse_args(arguments)
    try:
        if options.check is not None:
            engine = load_engine(options.check, options.onnx)
            print(f"{options.check}: loads here, {engine.num_io_tensors} inputs and outputs")
        else:
            build(options)
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


def positive(text):
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def triple(text):
    """Three rising numbers, such as 1,8,32, for argparse."""
    try:
        least, usual, most = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give three numbers such as 1,8,32") from None
    if not 1 <= least <= usual <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: give them in rising order, from 1")
    return least, usual, most


def build(options):
    """Write the engine and, beside it, what it was built with."""
    if not options.onnx.is_file():
        raise RecipeError(f"{options.onnx}: no such file; name the graph with --onnx")
    lengths = options.length or usual_lengths(BUNDLE / "config.json")
    trt = tensorrt()
    built_with = surroundings(trt)
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(options.onnx)):
        raise RecipeError(f"{options.onnx}: TensorRT cannot read it: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb * 2**20)
    if not options.fp32:
        config.set_flag(trt.BuilderFlag.FP16)
    profile = builder.create_optimization_profile()
    shapes = list(zip(options.batch, lengths, strict=True))
    for i in range(network.num_inputs):
        profile.set_shape(network.get_input(i).name, *shapes)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RecipeError(f"{options.onnx}: TensorRT built no engine; its messages above say why")
    facts = {
        "schema_version": SCHEMA_VERSION,
        "built_with": built_with,
        "onnx_sha256": sha256(options.onnx),
        "precision": "fp32" if options.fp32 else "fp16",
        "shapes": {"min": shapes[0], "opt": shapes[1], "max": shapes[2]},
    }
    data = bytes(engine)
    options.out.write_bytes(data)
    facts["engine_sha256"] = hashlib.sha256(data).hexdigest()
    facts_of(options.out).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{options.out}: {facts['precision']}, batches {options.batch}, lengths {lengths}")


def load_engine(path, onnx=None):
    """Return a TensorRT engine, once everything that it was built with is what is here.

    Args:
        path: The engine; its facts lie beside it as `<name>.json`.
        onnx: The graph that it must have been built from, if that matters.
    """
    facts = read_facts(path)
    if sha256(path) != facts["engine_sha256"]:
        raise RecipeError(f"{path}: not the file that {facts_of(path).name} describes: build it again")
    if onnx is not None and onnx.is_file() and sha256(onnx) != facts["onnx_sha256"]:
        raise RecipeError(f"{path}: built from another graph than {onnx}: build it again")
    trt = tensorrt()
    here = surroundings(trt)
    for name, then in facts["built_with"].items():
        if here.get(name) != then:
            raise RecipeError(f"{path}: built with {name} {then}, here is {here.get(name)}: build it again")
    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise RecipeError(f"{path}: TensorRT cannot load it: build it again")
    return engine


def read_facts(path):
    """What an engine was built with."""
    if not path.is_file():
        raise RecipeError(f"{path}: no such engine; build it with `python build.py --out {path}`")
    try:
        facts = json.loads(facts_of(path).read_text(encoding="utf-8"))
        version = facts["schema_version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RecipeError(f"{facts_of(path)}: missing or broken: build the engine again") from None
    if version != SCHEMA_VERSION:
        raise RecipeError(f"{facts_of(path)}: schema version {version}, this script reads {SCHEMA_VERSION}")
    return facts


def facts_of(path):
    return path.with_name(path.name + ".json")


def usual_lengths(config):
    """Least, usual and most tokens for a bundle: its texts are cut at max_length."""
    try:
        most = int(json.loads(config.read_text(encoding="utf-8"))["edgekd"]["max_length"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RecipeError(f"{config}: no bundle's configuration; name the lengths with --length 8,64,128") from None
    return min(8, most), max(min(8, most), most // 2), most


def tensorrt():
    try:
        import tensorrt
    except ModuleNotFoundError:
        raise RecipeError('tensorrt is missing: pip install "tensorrt>=10,<11"', 3) from None
    return tensorrt


def surroundings(trt):
    """What an engine depends on: GPU, its compute capability, the driver and TensorRT."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
        name, capability, driver = (part.strip() for part in lines[0].split(","))
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        raise RecipeError("nvidia-smi names no GPU here: run this on the machine that will serve", 3) from None
    return {"GPU": name, "compute capability": capability, "driver": driver, "TensorRT": trt.__version__}


def sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
