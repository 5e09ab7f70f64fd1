"""Splits and tiny random models that the tests of augmentation share."""

from __future__ import annotations

import pytest

from edgekd.data.split import Split
from tests.conftest import FILLERS, INTENTS

VOCABULARY = sorted({word for words in INTENTS.values() for word in words} | set(FILLERS))


def texts(count=40, seed=1):
    from tests.conftest import sentences

    rows = sentences(count, seed)
    return Split("train", [row["text"] for row in rows], labels=[row["label"] for row in rows])


def tags(count=40, seed=1):
    from tests.conftest import tagged

    rows = tagged(count, seed)
    words = [row["tokens"] for row in rows]
    return Split("train", [" ".join(row) for row in words], words=words, tags=[row["tags"] for row in rows])


def legal(tags):
    return all(tag[0] != "I" or last[2:] == tag[2:] for last, tag in zip(["O", *tags], tags, strict=False))


@pytest.fixture(scope="session")
def masked_lm(tiny_encoder, tmp_path_factory):
    """A folder with a random BERT masked LM over the tiny encoder's WordPiece vocabulary."""
    import shutil

    import torch
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("masked")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_encoder / name, folder / name)
    torch.manual_seed(0)
    config = BertConfig.from_pretrained(tiny_encoder, hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def marian(tmp_path_factory):
    """A folder with a random Marian model; a word-level tokenizer.json takes the place of sentencepiece files."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("marian")
    pieces = ["</s>", "<unk>", *VOCABULARY, "<pad>"]
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    ).save_pretrained(folder)
    pad = len(pieces) - 1
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=len(pieces), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32,
        pad_token_id=pad, decoder_start_token_id=pad, eos_token_id=0, forced_eos_token_id=0,
    )  # fmt: skip
    MarianMTModel(config).save_pretrained(folder)
    return folder
