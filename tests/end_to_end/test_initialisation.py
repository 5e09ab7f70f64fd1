"""The whole road on the fake target, with students that are not cut out of the teacher."""

import json
import shutil
from pathlib import Path

import pytest

from edgekd.data.read import read_data
from edgekd.errors import UsageError
from edgekd.pipeline.compress import compress
from edgekd.progress import Progress
from edgekd.proof.validate import CheckOptions, validate
from edgekd.runtime import load
from edgekd.session import teach_from
from edgekd.settings.profile import override
from edgekd.settings.request import Request
from tests.conftest import SPECIALS


@pytest.fixture(scope="module")
def request_(tiny_teacher, intent_data, fast_profile):
    return Request(teacher=str(tiny_teacher), data=str(intent_data), profile=fast_profile)


def with_init(request, changes=(), **init):
    changes = {"distill.init": init} | dict(changes)
    return request.model_copy(update={"profile": override(request.profile, changes)})


def test_random_student_learns_from_nothing(shared_session, request_, tmp_path):
    asked = with_init(request_, {"accept.min_retained": 0.3}, name="random")
    result = compress(shared_session, asked, tmp_path / "b")
    untrained = result.row("student from random weights, untrained").score
    assert untrained < 0.6  # four classes
    assert result.row("student FP32").score > untrained + 0.2
    assert result.row("student after slicing, untrained") is None


def save_encoder(folder, tokenizer_from=None, pieces=None, **sizes):
    """A small random BERT: with the tokenizer of a folder, or one that knows `pieces` alone."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder.mkdir()
    if tokenizer_from is not None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer_from / name, folder / name)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(1)
    settings = {
        "vocab_size": tokenizer.get_vocab_size(), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 64,
    }  # fmt: skip
    BertModel(BertConfig(**settings | sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def spelling(tmp_path_factory):
    """An encoder whose tokenizer spells letter by letter."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    return save_encoder(
        tmp_path_factory.mktemp("own") / "spelling", pieces=[*SPECIALS, *letters, *(f"##{c}" for c in letters)]
    )


def test_checkpoint_with_the_teachers_tokenizer(shared_session, request_, tiny_encoder, tmp_path):
    folder = save_encoder(tmp_path / "small", tiny_encoder)
    asked = with_init(request_, name="checkpoint", folder=str(folder))
    stages = [{"loss": {"name": "hidden_mse"}, "training": {"epochs": 1, "learning_rate": 1e-3, "precision": "fp32"}}]
    stages += [stage.model_dump(mode="json") for stage in asked.profile.distill.stages]
    changes = {"distill.stages": stages, "budget.latency_ms": 0.05, "accept.min_retained": 0.3}
    profile = override(asked.profile, changes)
    result = compress(shared_session, asked.model_copy(update={"profile": profile}), tmp_path / "b")
    assert result.chosen.shape_words == "2 layers x 16, heads 2, FFN 32"
    assert result.chosen.measured_ms <= 0.05
    untrained = result.row("student from a checkpoint, untrained").score
    assert result.row("student FP32").score > untrained + 0.2
    assert json.loads((tmp_path / "b" / "config.json").read_text())["edgekd"]["shape"]["hidden"] == 16


def test_checkpoint_with_its_own_tokenizer(shared_session, request_, spelling, tiny_teacher, tmp_path):
    asked = with_init(request_, name="checkpoint", folder=str(spelling))
    changes = {"budget.latency_ms": 1, "distill.stages.0.training.epochs": 20, "accept.min_retained": 0.3}
    profile = override(asked.profile, changes)
    result = compress(shared_session, asked.model_copy(update={"profile": profile}), tmp_path / "b")
    student, untrained = (result.row(n).score for n in ("student FP32", "student from a checkpoint, untrained"))
    assert student > untrained + 0.1
    assert (tmp_path / "b" / "tokenizer.json").read_bytes() != (tiny_teacher / "tokenizer.json").read_bytes()
    bundle = load(tmp_path / "b")
    assert bundle.config.max_length > 32  # letters: more than the teacher's words
    rows = [json.loads(line) for line in (Path(request_.data) / "test.jsonl").read_text().splitlines()]
    answers = [answer["label"] for answer in bundle.predict([row["text"] for row in rows])]
    right = sum(answer == row["label"] for answer, row in zip(answers, rows, strict=True)) / len(rows)
    shipped = next(row for row in result.quality if row.shipped)
    assert right == pytest.approx(shipped.score, abs=0.01)
    assert validate(tmp_path / "b", CheckOptions(only="answers"), Progress()).exit_code == 0


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        ({"loss": {"name": "minilmv2"}}, r"distill\.stages\.0\.loss minilmv2: the tokenizer of .*spelling is not"),
        ({"loss": {"name": "pkd"}}, r"distill\.stages\.0\.loss pkd"),
        ({"mixup": {}}, r"distill\.stages\.0\.mixup: the tokenizer of"),
        ({"on_the_fly": {"name": "swap_tokens"}}, r"distill\.stages\.0\.on_the_fly: the tokenizer of"),
    ],
)
def test_other_tokens_leave_only_logits(shared_session, request_, spelling, tmp_path, stage, line):
    asked = with_init(request_, name="checkpoint", folder=str(spelling))
    asked = asked.model_copy(update={"profile": override(asked.profile, {"distill.stages": [stage]})})
    with pytest.raises(UsageError, match=line):
        compress(shared_session, asked, tmp_path / "b")


def test_other_tokens_cannot_be_tagged(shared_session, tiny_encoder, tag_data, fast_profile, spelling, tmp_path):
    teacher = teach_from(shared_session, str(tiny_encoder), read_data(tag_data), fast_profile).path
    request = Request(teacher=str(teacher), data=str(tag_data), profile=fast_profile)
    with pytest.raises(UsageError, match="for token-classification take an encoder with the teacher's tokenizer"):
        compress(shared_session, with_init(request, name="checkpoint", folder=str(spelling)), tmp_path / "b")


def test_checkpoint_that_is_none(shared_session, request_, tiny_encoder, tmp_path):
    def refused(folder, line):
        with pytest.raises(UsageError, match=line):
            compress(shared_session, with_init(request_, name="checkpoint", folder=str(folder)), tmp_path / "b")

    refused(tmp_path / "none", r"distill\.init\.folder: .*none: there is no such folder")
    pickled = save_encoder(tmp_path / "pickled", tiny_encoder)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    refused(pickled, "only as pickle")
    short = save_encoder(tmp_path / "short", tiny_encoder, max_position_embeddings=8)
    refused(short, r"takes at most 8 tokens, the texts have \d+: give --max-length 8")
    relative = save_encoder(tmp_path / "decoder", tiny_encoder, is_decoder=True)
    refused(relative, "a bert cannot be a student")


def test_checkpoint_over_the_budget_is_tried_and_missed(shared_session, request_, brief, tiny_encoder, tmp_path):
    asked = with_init(request_, brief | {"budget.latency_ms": 0.005}, name="checkpoint", folder=str(tiny_encoder))
    result = compress(shared_session, asked, tmp_path / "b")
    assert result.exit_code == 1
    assert result.row("student from a checkpoint, untrained") is not None
    assert {c.shape_words for c in result.candidates} == {"unchanged", "3 layers x 32, heads 4, FFN 64"}


def test_plan_of_another_initialisation_is_refused(shared_session, request_, brief, tiny_encoder, tmp_path):
    short = request_.model_copy(update={"profile": override(request_.profile, brief)})
    sliced = compress(shared_session, short, tmp_path / "sliced")
    assert sliced.row("student after slicing, untrained") is not None
    small = save_encoder(tmp_path / "small", tiny_encoder)
    plan = str(tmp_path / "sliced" / "plan.json")
    pinned = with_init(request_, name="checkpoint", folder=str(small)).model_copy(update={"plan": plan})
    with pytest.raises(UsageError, match=r"the plan's student is not .*small of distill\.init"):
        compress(shared_session, pinned, tmp_path / "b")
