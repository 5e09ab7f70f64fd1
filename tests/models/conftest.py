"""Tiny teachers of every hosted family, made in code."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
CONFIGS = {
    "bert": lambda **k: hf.BertConfig(**SMALL, **k),
    "roberta": lambda **k: hf.RobertaConfig(**SMALL, type_vocab_size=1, pad_token_id=1, **k),
    "xlm-roberta": lambda **k: hf.XLMRobertaConfig(**SMALL, type_vocab_size=1, pad_token_id=1, **k),
    "camembert": lambda **k: hf.CamembertConfig(**SMALL, type_vocab_size=1, pad_token_id=1, **k),
    "electra": lambda **k: hf.ElectraConfig(**SMALL, embedding_size=20, **k),
    "distilbert": lambda **k: hf.DistilBertConfig(
        vocab_size=60, dim=32, n_layers=3, n_heads=4, hidden_dim=48, max_position_embeddings=40, **k
    ),
}
HEADS = {
    "sequence": hf.AutoModelForSequenceClassification,
    "token": hf.AutoModelForTokenClassification,
    "encoder": hf.AutoModel,
    "masked": hf.AutoModelForMaskedLM,
}


def perturb(model, seed=1):
    """Give every weight, biases and norms included, a value that would show if it were lost."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def make_teacher(family="bert", head="sequence", labels=5, **settings):
    torch.manual_seed(0)
    config = CONFIGS[family](num_labels=labels, **settings)
    return perturb(HEADS[head].from_config(config))


def make_batch(model, batch=3, length=11, pairs=False, seed=2):
    """Right-padded texts; the real tokens never are the padding token."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, model.config.get_text_config().vocab_size, (batch, length), generator=generator)
    mask = torch.ones(batch, length, dtype=torch.long)
    for row in range(1, batch):
        mask[row, length - 2 * row :] = 0
    ids[mask == 0] = model.config.pad_token_id
    inputs = {"input_ids": ids, "attention_mask": mask}
    if pairs:
        inputs["token_type_ids"] = (torch.arange(length) > length // 3).long().expand(batch, -1).contiguous()
    return inputs


@pytest.fixture
def teacher():
    return make_teacher()
