"""The unchanged teacher in a bundle against the same folder in transformers: logits and labels, family by family."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from edgekd.models.quiet import quiet_transformers
from edgekd.pipeline.compress import compress
from edgekd.runtime import load
from edgekd.settings.profile import parse
from edgekd.settings.request import Request
from edgekd.settings.task import TextClassification

from ..conftest import sentences

LABELS = ("lights", "music", "weather", "alarm")
LENGTH = 24
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 66,
}  # fmt: skip
FROM_PADDING = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}

# Family: its tokenizer, and its configuration beside the sizes that all have.
FAMILIES = {
    "bert": ("wordpiece", hf.BertConfig, SIZES),
    "electra": ("wordpiece", hf.ElectraConfig, SIZES | {"embedding_size": 16}),
    "distilbert": (
        "wordpiece", hf.DistilBertConfig,
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "max_position_embeddings": 66},
    ),
    "convbert": ("wordpiece", hf.ConvBertConfig, SIZES | {"embedding_size": 32, "conv_kernel_size": 3}),
    "roformer": ("wordpiece", hf.RoFormerConfig, SIZES | {"embedding_size": 32}),
    "squeezebert": ("wordpiece", hf.SqueezeBertConfig, SIZES | {"embedding_size": 32}),
    "mobilebert": (
        "wordpiece", hf.MobileBertConfig,
        SIZES | {"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32},
    ),
    "deberta": (
        "bpe", hf.DebertaConfig,
        SIZES | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "pad_token_id": 1, "type_vocab_size": 0},
    ),
    "roberta": ("bpe", hf.RobertaConfig, SIZES | FROM_PADDING | {"type_vocab_size": 1}),
    "mpnet": ("bpe", hf.MPNetConfig, SIZES | FROM_PADDING),
    "modernbert": (
        "wordpiece", hf.ModernBertConfig,
        SIZES | {"local_attention": 8, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
                 "sep_token_id": 3},
    ),
    "deberta-v2": (
        "unigram", hf.DebertaV2Config,
        SIZES | {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"], "pad_token_id": 1,
                 "type_vocab_size": 0, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    ),
    "xlm-roberta": ("unigram", hf.XLMRobertaConfig, SIZES | FROM_PADDING | {"type_vocab_size": 1}),
    "camembert": ("unigram", hf.CamembertConfig, SIZES | FROM_PADDING | {"type_vocab_size": 1}),
    "albert": ("unigram", hf.AlbertConfig, SIZES | {"embedding_size": 16, "pad_token_id": 1}),
}  # fmt: skip


def tokenizer_of(kind, lower):
    """A fast tokenizer of a kind, trained on the test's own sentences."""
    texts = [row["text"] for row in sentences(400, 1)] + ["Turn The LAMP On"]
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    steps = [normalizers.Lowercase()] if lower else []
    if kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(lowercase=lower)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    elif kind == "bpe":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )  # fmt: skip
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    if kind != "wordpiece":
        made.normalizer = normalizers.Sequence([normalizers.NFC(), *steps])
    made.train_from_iterator(texts, trainer)
    if kind == "wordpiece":
        ends = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
        )
        return hf.BertTokenizerFast(tokenizer_object=made, do_lower_case=lower)
    ends = [(name, made.token_to_id(name)) for name in ("<s>", "</s>")]
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, cls_token="<s>", sep_token="</s>", mask_token="<mask>", **names
    )


def save_teacher(folder, family, side, lower):
    kind, config_class, settings = FAMILIES[family]
    tokenizer = tokenizer_of(kind, lower)
    tokenizer.truncation_side = side
    torch.manual_seed(0)
    config = config_class(vocab_size=len(tokenizer), **settings)
    config.id2label, config.label2id = dict(enumerate(LABELS)), {name: i for i, name in enumerate(LABELS)}
    config.problem_type = "single_label_classification"
    with quiet_transformers():
        model = hf.AutoModelForSequenceClassification.from_config(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def write_data(folder, pair):
    folder.mkdir()
    rows = sentences(80, 2)
    for i, row in enumerate(rows):
        row["text"] = row["text"].title() if i % 3 else " ".join([row["text"]] * 4)
        if pair:
            row["text_pair"] = rows[(7 * i) % 80]["text"]
    for name, part in (("train", rows[:30]), ("validation", rows[30:50]), ("test", rows[50:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("pair", [False, True], ids=["text", "pair"])
@pytest.mark.parametrize("lower", [True, False], ids=["uncased", "cased"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_unchanged_teacher_answers_as_in_transformers(shared_session, tmp_path, family, side, lower, pair):
    save_teacher(tmp_path / "teacher", family, side, lower)
    rows = write_data(tmp_path / "data", pair)
    profile = parse(
        {
            "name": "fake", "budget": {"latency_ms": 1000}, "accept": {"min_retained": 0.01},
            "workload": {"max_length": LENGTH}, "target": {"kind": "fake", "precisions": ["fp32"]},
        },
        "test",
    )  # fmt: skip
    request = Request(
        teacher=str(tmp_path / "teacher"), data=str(tmp_path / "data"), profile=profile,
        task=TextClassification(pair=pair),
    )  # fmt: skip
    compress(shared_session, request, tmp_path / "bundle", with_baselines=False)
    with quiet_transformers():
        tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path / "teacher")
        model = hf.AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher").eval()
    bundle = load(tmp_path / "bundle")
    texts = [(row["text"], row["text_pair"]) if pair else row["text"] for row in rows]
    logits, answers = bundle.logits(texts), bundle.predict(texts)
    for text, found, answer in zip(texts, logits, answers, strict=True):
        given = tokenizer(*(text if pair else [text]), truncation=True, max_length=LENGTH, return_tensors="pt")
        takes = {name: value for name, value in given.items() if name in bundle._inputs}
        with torch.inference_mode():
            expected = model(**takes).logits[0].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
        assert answer["label"] == LABELS[expected.argmax()]
