import numpy as np
import pytest
import torch
from transformers import AutoModel

from edgekd.models.families import host
from edgekd.models.initialize import random_initial
from edgekd.models.stock import save_stock, stock_bert
from edgekd.models.student import from_weights
from edgekd.settings.shape import EncoderShape
from tests.models.conftest import make_batch

SHAPE = EncoderShape(
    vocabulary=60, positions=40, token_types=2, embedding=24, hidden=24, head_size=8, heads=(3, 3), ffn=(40, 40),
    activation="gelu_tanh", norm_eps=1e-7,
)  # fmt: skip


def loud_weights(shape, seed=0):
    rng = np.random.default_rng(seed)
    return {n: a + 0.2 * rng.standard_normal(a.shape).astype(np.float32) for n, a in random_initial(shape, 0).items()}


@pytest.mark.parametrize("changes", [{}, {"token_types": 0, "activation": "relu"}])
def test_auto_model_computes_the_same(tmp_path, changes):
    shape = SHAPE.model_copy(update=changes)
    weights = loud_weights(shape)
    save_stock(tmp_path, shape, weights, 5)
    model, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model).__name__ == "BertModel"
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.pad_token_id == 5
    student = from_weights(shape, weights, ())
    inputs = make_batch(model.eval(), pairs=bool(shape.token_types))
    real = inputs["attention_mask"].bool()
    with torch.inference_mode():
        theirs = model(**inputs, output_hidden_states=True).hidden_states
        ours = student(**inputs, output_hidden_states=True).hidden_states
    assert len(theirs) == len(ours) == 3
    for a, b in zip(theirs, ours, strict=True):
        assert (a[real] - b[real]).abs().max() < 1e-5


def test_hosting_it_gives_the_student_back():
    weights = loud_weights(SHAPE)
    shape, back = host(stock_bert(SHAPE, weights))
    assert shape == SHAPE
    assert all(np.array_equal(back[name], weights[name]) for name in weights)


def test_two_saves_are_equal_byte_by_byte(tmp_path):
    """No random number goes in, not even for the pooler that a student does not have."""
    for name in ("a", "b"):
        save_stock(tmp_path / name, SHAPE, loud_weights(SHAPE), 0)
        torch.rand(1)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("changes", [{"heads": (3, 2)}, {"ffn": (40, 32)}, {"heads": (2, 2)}, {"embedding": 16}])
def test_shapes_that_no_bert_has(changes):
    shape = SHAPE.model_copy(update=changes)
    with pytest.raises(ValueError, match="no stock BERT"):
        stock_bert(shape, random_initial(shape, 0))
