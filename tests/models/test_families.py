from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf

from edgekd.models.families import host
from edgekd.models.student import from_weights

from .conftest import CONFIGS, SMALL, make_batch, make_teacher


def student_of(model):
    shape, weights = host(model)
    labels = [f"c{i}" for i in range(shape.head.labels)] if shape.head else []
    return from_weights(shape, weights, labels)


@torch.no_grad()
def gap(model, batch):
    """Largest difference on real tokens between a model's output and its hosted student's."""
    output, ours = model(**batch), student_of(model)(**batch)
    if "logits" in output and ours.logits is not None:
        theirs, mine = output.logits, ours.logits
    else:
        theirs, mine = model.base_model(**batch).last_hidden_state, ours.last_hidden_state
    assert theirs.shape == mine.shape
    difference = (theirs - mine).abs()
    if difference.ndim == 3:
        difference = difference[batch["attention_mask"].bool()]
    return float(difference.max())


@pytest.mark.parametrize("head", ["sequence", "token", "encoder", "masked"])
@pytest.mark.parametrize("family", CONFIGS)
def test_full_shape_equals_the_teacher(family, head):
    model = make_teacher(family, head)
    assert gap(model, make_batch(model)) < 1e-5


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_pairs(family):
    model = make_teacher(family)
    batch = make_batch(model, pairs=True)
    assert gap(model, batch) < 1e-5
    batch["token_type_ids"] = 1 - batch["token_type_ids"]
    assert gap(model, batch) < 1e-5


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python"])
def test_ffn_activations(activation):
    model = make_teacher(hidden_act=activation)
    assert gap(model, make_batch(model)) < 1e-5


def test_distilbert_reads_its_own_activation_field():
    model = make_teacher("distilbert", activation="relu")
    assert host(model)[0].activation == "relu"
    assert gap(model, make_batch(model)) < 1e-5


def test_one_label():
    model = make_teacher(labels=1)
    assert host(model)[0].head.labels == 1
    assert gap(model, make_batch(model)) < 1e-5


def test_left_over_positions_are_cut_off():
    shape, weights = host(make_teacher("roberta"))
    assert shape.positions == SMALL["max_position_embeddings"] - 2 == len(weights["embeddings.position.weight"])
    model = make_teacher("roberta")
    full = make_batch(model, batch=1, length=shape.positions)
    assert gap(model, full) < 1e-5


def test_one_token_type_becomes_none():
    assert host(make_teacher("roberta"))[0].inputs == ("input_ids", "attention_mask")
    model = make_teacher("bert", type_vocab_size=1)
    assert host(model)[0].token_types == 0
    assert gap(model, make_batch(model)) < 1e-5


def test_electra_without_projection():
    config = hf.ElectraConfig(**SMALL, embedding_size=SMALL["hidden_size"])
    model = hf.ElectraForSequenceClassification(config).eval()
    assert "embeddings.projection.weight" not in host(model)[1]
    assert gap(model, make_batch(model)) < 1e-5


def test_norm_epsilon_is_the_teachers():
    model = make_teacher(layer_norm_eps=0.3)
    assert host(model)[0].norm_eps == 0.3
    assert gap(model, make_batch(model)) < 1e-5


def test_half_precision_teacher_gives_float32():
    _, weights = host(make_teacher().half())
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}


def test_weights_are_read_only():
    _, weights = host(make_teacher())
    with pytest.raises(ValueError, match="read-only"):
        weights["head.output.bias"][0] = 1


def test_names_are_the_shapes():
    for family in CONFIGS:
        shape, weights = host(make_teacher(family))
        assert {name: array.shape for name, array in weights.items()} == shape.weight_shapes()


@pytest.mark.parametrize(
    "config",
    [
        hf.ModernBertConfig(**SMALL, pad_token_id=0),
        hf.DebertaV2Config(**SMALL),
        hf.MPNetConfig(**SMALL),
        hf.RobertaPreLayerNormConfig(**SMALL),
        hf.BertConfig(**SMALL, position_embedding_type="relative_key"),
        hf.BertConfig(**SMALL, hidden_act="silu"),
        hf.BertConfig(**SMALL, is_decoder=True),
    ],
    ids=lambda config: config.model_type,
)
def test_what_cannot_be_hosted(config):
    assert host(hf.AutoModelForSequenceClassification.from_config(config)) is None


def test_a_model_with_more_weights_is_not_hosted():
    model = make_teacher()
    model.bert.encoder.layer[1].adapter = torch.nn.Linear(32, 32)
    assert host(model) is None
