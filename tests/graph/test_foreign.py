from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import transformers as hf
from onnx import numpy_helper

from edgekd.errors import EdgekdError, UsageError
from edgekd.graph import foreign
from edgekd.graph.foreign import export_foreign
from edgekd.graph.parity import compare_logits, run_onnx
from edgekd.graph.quantize import quantize_dynamic

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_labels": 5,
}


def modernbert():
    special = {f"{name}_token_id": i for i, name in enumerate(("pad", "bos", "eos", "cls", "sep"))}
    config = hf.ModernBertConfig(**SMALL, **special, num_hidden_layers=2, local_attention=8)
    return hf.ModernBertForSequenceClassification(config)


def deberta():
    config = hf.DebertaV2Config(
        **SMALL,
        num_hidden_layers=1,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=16,
        share_att_key=True,
        position_biased_input=False,
        type_vocab_size=0,
    )
    return hf.DebertaV2ForTokenClassification(config)


def make(build):
    torch.manual_seed(0)
    return build()


@pytest.mark.parametrize("build", [deberta, pytest.param(modernbert, marks=pytest.mark.slow)])
def test_exported_runs_and_quantises(tmp_path, build, capfd):
    model = make(build).train()
    path = tmp_path / "model.onnx"
    export_foreign(model, ["input_ids", "attention_mask"], path)
    assert model.training
    assert capfd.readouterr().out == ""

    graph = onnx.load(path).graph
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    tokens = ["batch_size", "sequence_length"]
    token_head = build is deberta
    assert axes == {"input_ids": tokens, "attention_mask": tokens, "logits": [*tokens[: 1 + token_head], 5]}
    assert not graph.value_info

    quantize_dynamic(path, tmp_path / "int8.onnx", instruction_set="avx512_vnni")
    integers = [n for n in onnx.load(tmp_path / "int8.onnx").graph.node if n.op_type == "MatMulInteger"]
    # Every linear layer but the classifier.
    assert len(integers) == sum(isinstance(m, torch.nn.Linear) for m in model.modules()) - 1

    model.eval()
    ids = torch.randint(5, 60, (3, 23))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).logits.flatten(0, -2).numpy()
    batch = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    plain, integer = (run_onnx(tmp_path / name, [batch])[0].reshape(-1, 5) for name in ("model.onnx", "int8.onnx"))
    assert compare_logits(expected, plain).max_abs_gap < 1e-5
    assert compare_logits(expected, integer).max_abs_gap < 0.1


def test_weights_used_transposed_become_constants(tmp_path):
    """As the exporter leaves those of DeBERTa, which serve two products."""
    graph = onnx.parser.parse_graph(
        """g (float[n, 2] x) => (float[n, 2] y)
        { t = Transpose<perm = [1, 0]>(w)  a = MatMul(x, t)  b = MatMul(a, t)  y = Transpose<perm = [0, 1]>(b) }"""
    )
    weight = np.array([[1, 2], [3, 4]], np.float32)
    graph.initializer.append(numpy_helper.from_array(weight, "w"))
    foreign._fold_transposes(graph)
    assert [node.op_type for node in graph.node] == ["MatMul", "MatMul", "Transpose"]
    assert [tensor.name for tensor in graph.initializer] == ["t"]
    assert (numpy_helper.to_array(graph.initializer[0]) == weight.T).all()


class Toy(torch.nn.Module):
    """The least that answers as a transformers model does."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.config = hf.PreTrainedConfig(vocab_size=20)
        self.embedding = torch.nn.Embedding(20, 1200, dtype=dtype)
        self.shared = torch.nn.Linear(1200, 1200, dtype=dtype)
        self.output = torch.nn.Linear(1200, 3, dtype=dtype)

    def forward(self, input_ids, attention_mask, return_dict=True):
        x = self.shared(self.shared(self.embedding(input_ids)))
        logits = self.output((x * attention_mask[..., None]).sum(1))
        return hf.modeling_outputs.SequenceClassifierOutput(logits=logits)


def test_a_file_that_answers_otherwise_is_refused(tmp_path, monkeypatch):
    export = foreign._export

    def broken(*arguments):
        proto = export(*arguments)
        proto.graph.initializer[0].raw_data = bytes(len(proto.graph.initializer[0].raw_data))
        return proto

    export_foreign(Toy(), ["input_ids", "attention_mask"], tmp_path / "good.onnx")
    # The one weight of two products is a constant of both.
    assert "Transpose" not in {node.op_type for node in onnx.load(tmp_path / "good.onnx").graph.node}
    monkeypatch.setattr(foreign, "_export", broken)
    with pytest.raises(EdgekdError, match=r"bad\.onnx: the exported Toy is off by .* on texts of 1 x 7 tokens"):
        export_foreign(Toy(), ["input_ids", "attention_mask"], tmp_path / "bad.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["good.onnx"]


def test_a_model_that_torch_cannot_export(tmp_path):
    class Dictator(Toy):
        def forward(self, input_ids, attention_mask, return_dict=True):
            raise RuntimeError("not today\nnor tomorrow")

    with pytest.raises(EdgekdError, match=r"torch cannot export Dictator to ONNX.* \(not today\): use") as caught:
        export_foreign(Dictator(), ["input_ids", "attention_mask"], tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)


def test_texts_that_must_end(tmp_path):
    """BART reads its answer off the token that ends a text, and off none where there is none."""
    config = hf.BartConfig(
        vocab_size=60, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=40, num_labels=5,
    )  # fmt: skip
    torch.manual_seed(0)
    export_foreign(hf.BartForSequenceClassification(config), ["input_ids", "attention_mask"], tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").is_file()


def test_bad_requests(tmp_path):
    with pytest.raises(UsageError, match="cannot export the input 'pixel_values'"):
        export_foreign(Toy(), ["pixel_values"], tmp_path / "x.onnx")
    with pytest.raises(EdgekdError, match=r"torch\.bfloat16: load the model in float32"):
        export_foreign(Toy(torch.bfloat16), ["input_ids", "attention_mask"], tmp_path / "x.onnx")
