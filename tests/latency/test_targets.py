from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save_model

import edgekd
from edgekd.errors import UnavailableError, UsageError, require
from edgekd.latency import machine
from edgekd.latency.judge import judge_budget
from edgekd.latency.measure import compare
from edgekd.latency.targets import onnxruntime as module
from edgekd.latency.targets.build import build_target
from edgekd.latency.targets.fake import token_cost
from edgekd.latency.timer import BundleJob, GraphJob
from edgekd.settings.target import CpuTarget, CudaTarget, FakeTarget, SessionSpec, TensorrtTarget


def write_graph(path, weights, nodes):
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


@pytest.fixture
def plain(tmp_path):
    """A large embedding that costs nothing, and one product of 64 x 32: 4096 FLOPs a token."""
    weights = {"embedding": np.ones((500, 64), np.float32), "weight": np.ones((64, 32), np.float32)}
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "weight"], ["logits"]),
    ]
    return write_graph(tmp_path / "model.onnx", weights, nodes)


def test_token_cost_counts_products_and_not_embeddings(plain):
    assert token_cost(plain, int8_gain=2.0) == 2 * 64 * 32


def test_token_cost_of_int8_weights(tmp_path):
    weights = {
        "a": np.ones((8, 4), np.int8), "b": np.ones((4, 2), np.uint8), "scale": np.ones((), np.float32),
        "zero": np.zeros((), np.uint8),
    }  # fmt: skip
    nodes = [
        helper.make_node("MatMulInteger", ["x", "a"], ["y"]),
        helper.make_node("DequantizeLinear", ["b", "scale", "zero"], ["float_b"]),
        helper.make_node("MatMul", ["y", "float_b"], ["logits"]),
    ]
    assert token_cost(write_graph(tmp_path / "q.onnx", weights, nodes), int8_gain=4.0) == 2 * (32 + 8) / 4


def test_fake_latency_follows_the_formula(plain):
    spec = FakeTarget(gflops=0.001, noise=0.0, bias=1.25)
    found = compare([GraphJob("g", plain, batch_size=2, length=10)], build_target(spec), rounds=2, calls=3)
    # 4096 FLOPs x 20 tokens at 1e6 FLOPs a second, seen 1.25 times too fast
    assert found["g"].percentile(50, "service") == pytest.approx(4096 * 20 / 1e6 * 1e3 / 1.25)
    assert found["g"].waited_share == 0.0


def test_fake_bundle_costs_its_own_texts_without_bias(plain):
    spec = FakeTarget(gflops=0.001, noise=0.0, bias=1.25)
    job = BundleJob("b", plain.parent, ("one", "one two three"))
    with build_target(spec).timer([job]) as timer:
        sample = timer.round("b", 2)
    assert sample.wall_ms == pytest.approx((4.096 * 3, 4.096 * 5))
    assert [sum(part) for part in sample.parts_ms] == list(sample.wall_ms)


def test_fake_bundle_pads_its_batches_and_takes_pairs(plain):
    spec = FakeTarget(gflops=0.001, noise=0.0)
    job = BundleJob("b", plain.parent, ("one", ("one", "two three"), "one two"), batch_size=2)
    with build_target(spec).timer([job]) as timer:
        # texts of 3, 5, 4 tokens: batches (3, 5), (4, 3), (5, 4)
        assert timer.round("b", 4).wall_ms == pytest.approx([4.096 * n for n in (10, 8, 10, 10)])


def test_fake_bundle_counts_tokens_with_its_tokenizer(plain):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(plain.parent / "tokenizer.json"))
    spec = FakeTarget(gflops=0.001, noise=0.0)
    with build_target(spec).timer([BundleJob("b", plain.parent, ("aaaa",))]) as timer:
        assert timer.round("b", 1).wall_ms == pytest.approx((4.096 * 4,))


def test_fake_is_repeatable_and_noisy(plain):
    def samples():
        with build_target(FakeTarget(noise=0.05)).timer([GraphJob("g", plain)], 2) as timer:
            return [timer.round("g", 50) for _ in range(2)]

    first, again = samples(), samples()
    assert first == again
    assert [sample.process for sample in first] == [0, 1]
    assert 0.02 < np.std(np.log(first[0].wall_ms)) < 0.1


def test_judging_with_the_fake(plain):
    spec, job = FakeTarget(gflops=0.001), GraphJob("g", plain, length=10)
    assert judge_budget(job, build_target(spec), 4.096 * 10 * 1.1, 95, "service").outcome == "met"
    assert judge_budget(job, build_target(spec), 4.096 * 10 / 1.1, 95, "service").outcome == "missed"


def test_fake_names_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.onnx"):
        build_target(FakeTarget()).timer([GraphJob("g", tmp_path / "gone.onnx")])


@pytest.mark.parametrize("spec", [CpuTarget(device="raspberry-pi-5"), FakeTarget(device="raspberry-pi-5")])
def test_a_device_elsewhere_asks_for_a_probe(spec, tmp_path):
    target = build_target(spec)
    with pytest.raises(UnavailableError, match=r"raspberry-pi-5.*edgekd probe make"):
        target.check()
    with pytest.raises(UnavailableError, match="probe"):
        target.timer([GraphJob("g", tmp_path)])


def with_runtime(monkeypatch, providers, builds=("onnxruntime",)):
    fake = types.SimpleNamespace(get_available_providers=lambda: list(providers))
    monkeypatch.setattr(module, "require", lambda *_: fake)
    monkeypatch.setattr(module, "_installed", lambda name: name in builds)


def test_cpu_target_checks_out_here(monkeypatch):
    asked = []

    def required(name, *given):
        asked.append(name)
        return require(name, *given)

    monkeypatch.setattr(module, "require", required)
    build_target(CpuTarget()).check()
    assert "onnxruntime" in asked


@pytest.mark.parametrize(
    ("spec", "hint"), [(CudaTarget(), r"edgekd\[gpu\]"), (TensorrtTarget(), r"edgekd\[gpu,tensorrt\]")]
)
def test_a_missing_provider_says_what_to_install(monkeypatch, spec, hint):
    with_runtime(monkeypatch, ["CPUExecutionProvider"])
    with pytest.raises(UnavailableError, match=hint):
        build_target(spec).check()


def test_a_missing_runtime_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnavailableError, match=r"edgekd\[cpu\]"):
        build_target(CpuTarget()).check()


def test_both_builds_of_onnxruntime_are_refused(monkeypatch):
    with_runtime(monkeypatch, ["CPUExecutionProvider"], builds=("onnxruntime", "onnxruntime-gpu"))
    with pytest.raises(UnavailableError, match="overwrite each other"):
        build_target(CpuTarget()).check()


def test_too_many_threads(monkeypatch):
    monkeypatch.setattr(machine, "cpu_quota", lambda: 1.0)
    with pytest.raises(UsageError, match="--threads 2"):
        build_target(CpuTarget(threads=2)).check()


def test_session_specs():
    assert build_target(CpuTarget()).session_spec() == SessionSpec()
    cuda = build_target(CudaTarget(threads=2)).session_spec()
    assert (cuda.providers[0], cuda.threads) == ("CUDAExecutionProvider", 2)
    tensorrt = build_target(TensorrtTarget()).session_spec()
    assert tensorrt.providers[0] == "TensorrtExecutionProvider"
    assert tensorrt.provider_options == {"trt_fp16_enable": "True"}
    assert build_target(TensorrtTarget(precisions=("fp32",))).session_spec().provider_options == {}
    assert SessionSpec.model_validate_json(tensorrt.model_dump_json()) == tensorrt


def test_building_imports_neither_torch_nor_a_runtime():
    code = (
        "import sys; from edgekd.latency.targets.build import build_target; from edgekd.settings.target import *;"
        "[build_target(s()) for s in (CpuTarget, CudaTarget, TensorrtTarget, FakeTarget)];"
        "print(sorted({'torch', 'onnxruntime', 'onnx', 'transformers'} & set(sys.modules)))"
    )
    root = Path(edgekd.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
