"""config.pbtxt, read by tritonclient's own protobuf in an environment of its own: it wants an older protobuf."""

import json

import pytest

from edgekd.export.deploy import triton_repository
from edgekd.settings.task import TokenClassification

from .conftest import LABELS, command, environment, write_bundle

PARSE = """
import json, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
config = text_format.Parse(open(sys.argv[1]).read(), model_config_pb2.ModelConfig())
print(json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True)))
"""


def test_inputs_outputs_and_threads_are_the_graphs(bundle):
    text = (bundle / "deploy" / "triton" / "config.pbtxt").read_text()
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert f'input [ {{ name: "{name}" data_type: TYPE_INT64 dims: [ -1 ] }} ]' in text
    assert 'output [ { name: "logits" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" } ]' in text
    assert "kind: KIND_CPU" in text
    assert text.count("{") == text.count("}")


def test_the_logits_of_a_token_task_have_an_axis_of_tokens(tmp_path):
    (tmp_path / "work").mkdir()
    write_bundle(tmp_path / "work", tmp_path / "tags", "token", TokenClassification())
    model = triton_repository(tmp_path / "tags", tmp_path / "models")
    assert 'name: "logits" data_type: TYPE_FP32 dims: [ -1, 4 ]' in (model / "config.pbtxt").read_text()


@pytest.mark.slow
def test_tritons_own_protobuf_reads_it(bundle, tmp_path):
    python = environment(tmp_path / "venv", "tritonclient[grpc]>=2.60", "grpcio", "protobuf")
    model = triton_repository(bundle, tmp_path / "models")
    (tmp_path / "parse.py").write_text(PARSE)
    config = json.loads(command(python, tmp_path / "parse.py", model / "config.pbtxt"))
    assert config["backend"] == "onnxruntime"
    assert config["max_batch_size"] == 32
    assert [tensor["name"] for tensor in config["input"]] == ["input_ids", "attention_mask", "token_type_ids"]
    assert {(tensor["data_type"], *tensor["dims"]) for tensor in config["input"]} == {("TYPE_INT64", "-1")}
    assert config["output"] == [
        {"name": "logits", "data_type": "TYPE_FP32", "dims": [str(len(LABELS))], "label_filename": "labels.txt"}
    ]
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": "500"}
    assert config["instance_group"] == [{"kind": "KIND_CPU", "count": 1}]
    assert config["parameters"]["intra_op_thread_count"] == {"string_value": "1"}
