"""A WordPiece tokenizer and a tiny ONNX model, made in code."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "play",
    "##ing",
    "jazz",
    "in",
    "paris",
    ".",
    "bad",
    "good",
    "'",
    "s",
]


def wordpiece(vocabulary: list[str] = VOCABULARY) -> Tokenizer:
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


@pytest.fixture
def tokenizer() -> Tokenizer:
    return wordpiece()


def write_model(file: Path, table: np.ndarray, head: str) -> None:
    """Each token looks its logits up in `table` (vocabulary, labels); a sequence head sums them."""
    axes = ["batch_size", "sequence_length"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, axes) for n in ("input_ids", "attention_mask")]
    labels = table.shape[1]
    table_value = numpy_helper.from_array(table.astype(np.float32), "table")
    if head == "token":
        nodes = [helper.make_node("Gather", ["table", "input_ids"], ["logits"])]
        shape = [*axes, labels]
        initializers = [table_value]
    else:
        nodes = [
            helper.make_node("Gather", ["table", "input_ids"], ["each"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            helper.make_node("Mul", ["each", "column"], ["real"]),
            helper.make_node("ReduceSum", ["real", "middle"], ["logits"], keepdims=0),
        ]
        shape = [axes[0], labels]
        initializers = [
            table_value,
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1]), "middle"),
        ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "tiny", inputs, [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, file)


def write_config(folder: Path, labels: list[str], task: dict, **own) -> None:
    edgekd = {"schema_version": 1, "task": task, "max_length": 8, "threads": 1} | own
    config = {"model_type": "bert", "id2label": dict(enumerate(labels)), "edgekd": edgekd}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def sentiment(tmp_path: Path) -> Path:
    """Text classification: "bad" votes for the first label, "good" for the second."""
    table = np.zeros((len(VOCABULARY), 2))
    table[VOCABULARY.index("bad"), 0] = table[VOCABULARY.index("good"), 1] = 2.0
    write_model(tmp_path / "model.onnx", table, "sequence")
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    write_config(tmp_path, ["negative", "positive"], {"name": "text-classification", "pair": False})
    return tmp_path


@pytest.fixture
def slots(tmp_path: Path) -> Path:
    """Token classification: "jazz" begins a genre, "in" goes on with it, "paris" is a stray I-city."""
    tags = ["O", "B-genre", "I-genre", "I-city"]
    table = np.zeros((len(VOCABULARY), 4))
    table[:, 0] = 3.0
    for word, tag in (("jazz", 1), ("in", 2), ("paris", 3)):
        table[VOCABULARY.index(word), tag] = 9.0
    write_model(tmp_path / "model.onnx", table, "token")
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    write_config(tmp_path, tags, {"name": "token-classification"})
    return tmp_path
