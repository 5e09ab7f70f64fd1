"""What a masked LM says of hidden words as a lesson: its head read by itself, an equal student has nothing to learn."""

import shutil

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    RobertaConfig,
)

from edgekd.distill.agnostic import distill_encoder, student_frame
from edgekd.distill.batches import inputs_of
from edgekd.distill.objective import Batch
from edgekd.distill.vocabulary import _head, vocabulary_objective
from edgekd.errors import UsageError
from edgekd.models.identity import folder_id
from edgekd.models.shape_text import parse_shape
from edgekd.models.student import from_weights
from edgekd.models.teacher import load_body
from edgekd.runtime.tokenise import encode_texts
from edgekd.settings.distill import Agnostic
from edgekd.settings.losses import MlmLogits
from edgekd.store import Store
from tests.conftest import sentences

TEXTS = [row["text"] for row in sentences(120, 7, labelled=False)]
SMALL = {"vocab_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 24}
CONFIGS = [
    BertConfig(**SMALL, hidden_size=16, intermediate_size=32),
    RobertaConfig(**SMALL, hidden_size=16, intermediate_size=32, pad_token_id=1),
    ElectraConfig(**SMALL, embedding_size=8, hidden_size=16, intermediate_size=32),
    DistilBertConfig(vocab_size=40, dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=24),
]


@pytest.fixture(scope="module")
def masked_lm(tiny_encoder, tmp_path_factory):
    """The tiny encoder's shape as a masked LM with a head of its own."""
    folder = tmp_path_factory.mktemp("mlm")
    shutil.copytree(tiny_encoder, folder, dirs_exist_ok=True)
    torch.manual_seed(1)
    model = AutoModelForMaskedLM.from_config(BertConfig.from_pretrained(tiny_encoder))
    with torch.no_grad():  # BERT's first weights say nearly the same of every word
        for name, parameter in model.named_parameters():
            parameter.mul_(1.0 if "LayerNorm" in name else 8.0)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.model_type)
def test_head_by_itself_is_the_head(config):
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(config).eval()
    ids = torch.randint(5, 40, (2, 7))
    with torch.inference_mode():
        whole = model(input_ids=ids).logits
        apart = _head(model)(model.base_model(input_ids=ids).last_hidden_state)
    assert torch.allclose(whole, apart, atol=1e-6)


def batch_of(teacher):
    tokens = encode_texts(teacher.tokenizer, TEXTS[:16], max_length=24)
    rows = np.arange(16)
    return Batch(tokens, rows, inputs_of(tokens, rows, torch.device("cpu")))


def test_equal_student_has_nothing_to_learn_and_another_has(masked_lm):
    teacher = load_body(masked_lm)
    objective = vocabulary_objective(MlmLogits(), masked_lm, 32, 0, torch.device("cpu"))
    objective.module.eval()
    shape, weights = teacher.hosted
    equal = from_weights(shape, weights, (), dropout=0.0)
    assert abs(float(objective(equal, batch_of(teacher))["mlm_logits"].detach())) < 1e-5
    changed = {name: array * 1.5 if "ffn.up.weight" in name else array for name, array in weights.items()}
    other = objective(from_weights(shape, changed, (), dropout=0.0), batch_of(teacher))["mlm_logits"]
    assert float(other.detach()) > 1e-3
    other.backward()
    assert all(p.grad is None for p in objective.head.parameters())
    assert objective.module.weight.grad is not None


def test_loss_falls_for_a_narrower_student(masked_lm, engine, tmp_path):
    teacher = load_body(masked_lm)
    spec = Agnostic.model_validate(
        {
            "loss": {"name": "mlm_logits"},
            "training": {"epochs": 3, "learning_rate": 3e-3, "precision": "fp32", "evaluations": 3, "dropout": 0.0},
        }
    )
    shape = parse_shape("2x16x48h4", student_frame(teacher))
    made = distill_encoder(Store(tmp_path), engine, teacher, folder_id(masked_lm), TEXTS, 24, shape, spec)
    assert 0 < made.result["held_out_after"] < 0.95 * made.result["held_out_before"]


def test_encoder_without_a_head_is_refused(tiny_encoder):
    with pytest.raises(UsageError, match="no masked-LM head"):
        vocabulary_objective(MlmLogits(), tiny_encoder, 32, 0, torch.device("cpu"))
