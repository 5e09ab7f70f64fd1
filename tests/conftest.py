"""What tests of several packages share: a tiny task, its data on disk, a tiny encoder, all made in code."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import textwrap

import pytest

from edgekd.progress import Progress

INTENTS = {
    "lights": ["turn", "the", "lamp", "light", "bright", "dark", "room"],
    "music": ["play", "song", "album", "loud", "band", "jazz"],
    "weather": ["rain", "sun", "cloud", "storm", "wind", "cold"],
    "alarm": ["wake", "clock", "early", "morning", "ring", "snooze"],
}
FILLERS = ["please", "now", "a", "my", "some", "today", "kindly", "very"]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def sentences(count, seed, labelled=True):
    """Sentences whose label is the intent that most of their words belong to."""
    rng, rows = random.Random(seed), []
    for i in range(count):
        label = list(INTENTS)[i % len(INTENTS)]
        words = rng.sample(INTENTS[label], 3) + rng.choices(FILLERS, k=rng.randint(1, 4))
        rng.shuffle(words)
        text = f"{' '.join(words)} {seed}{i}"
        rows.append({"text": text, "label": label} if labelled else {"text": text})
    return rows


def tagged(count, seed):
    """Sentences where each word of "music" is a B-music span and its follower, if also one, I-music."""
    rng, rows = random.Random(seed), []
    for i in range(count):
        words = rng.sample(INTENTS["music"], 2) + rng.choices(FILLERS, k=3)
        rng.shuffle(words)
        tags, inside = [], False
        for word in words:
            known = word in INTENTS["music"]
            tags.append(("I-music" if inside else "B-music") if known else "O")
            inside = known
        rows.append({"tokens": [*words, f"n{seed}{i}"], "tags": [*tags, "O"]})
    return rows


def run_light(code, *heavy):
    """Run code in a fresh interpreter, which fails if it exits with an error, or has imported one of `heavy`."""
    script = (
        f"import sys\ntry:\n{textwrap.indent(code, '    ')}\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"found = {set(heavy)!r} & set(sys.modules)\nsys.exit(f'imported {{found}}' if found else 0)"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


class Told(Progress):
    """Keeps the lines that were said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def own_folder(tmp_path_factory, monkeypatch):
    """No command of a test meets what stands in the folder that the tests are run in, such as a demo's ./bundle."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing that a test keeps reaches the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKD_CACHE", str(tmp_path_factory.mktemp("user")))
        yield


@pytest.fixture(scope="session")
def intent_data(tmp_path_factory):
    """A folder with train, validation, test and unlabeled of a four-intent task."""
    folder = tmp_path_factory.mktemp("intents")
    write_rows(folder / "train.jsonl", sentences(160, 1))
    write_rows(folder / "validation.jsonl", sentences(80, 2))
    write_rows(folder / "test.jsonl", sentences(120, 3))
    write_rows(folder / "unlabeled.jsonl", sentences(160, 4, labelled=False))
    return folder


@pytest.fixture(scope="session")
def tag_data(tmp_path_factory):
    """A folder with train, validation and test of a one-slot tagging task."""
    folder = tmp_path_factory.mktemp("tags")
    for name, count, seed in (("train", 160, 1), ("validation", 60, 2), ("test", 80, 3)):
        write_rows(folder / f"{name}.jsonl", tagged(count, seed))
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """A folder with a random three-layer BERT encoder and a word-level WordPiece tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    words = sorted(
        {w for ws in INTENTS.values() for w in ws} | set(FILLERS) | set("abcdefghijklmnopqrstuvwxyz0123456789")
    )
    pieces = SPECIALS + words + [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]", "unk_token": "[UNK]",
                    "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"})
    )  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def engine():
    """One CPU thread, silent."""
    from edgekd.distill.engine import Engine

    return Engine.detect(threads=1)


@pytest.fixture(scope="session")
def fast_profile():
    """A profile for the fake target with short training; the budget fits about half of the tiny teacher."""
    from edgekd.settings.profile import parse

    return parse(
        {
            "name": "fake",
            "budget": {"latency_ms": 0.03},
            "target": {"kind": "fake", "gflops": 10.0},
            "search": {"always_distill": True},
            "teach": {
                "min_steps": 1,
                "training": {"epochs": 12, "learning_rate": 3e-3, "precision": "fp32", "evaluations": 3},
            },
            "distill": {
                "stages": [{"training": {"epochs": 10, "learning_rate": 3e-3, "precision": "fp32", "evaluations": 2}}]
            },
            "accept": {"min_retained": 0.8, "max_drop": 5.0},
        },
        "test",
    )


@pytest.fixture(scope="session")
def brief():
    """Changes to a profile for tests that do not ask what a student has learned: one epoch, and no second try."""
    return {"distill.stages.0.training.epochs": 1, "accept.min_retained": 0.05}


@pytest.fixture(scope="session")
def shared_session(tmp_path_factory, engine):
    """A session whose store all tests share: a teacher is taught once."""
    from edgekd.session import Session
    from edgekd.store import Store

    return Session(Store(tmp_path_factory.mktemp("store")), engine)


@pytest.fixture(scope="session")
def tiny_teacher(shared_session, tiny_encoder, intent_data, fast_profile):
    """A teacher folder, fine-tuned on the four-intent task by the product itself."""
    from edgekd.data.read import read_data
    from edgekd.session import teach_from

    return teach_from(shared_session, str(tiny_encoder), read_data(intent_data), fast_profile).path
