"""Masked-LM training on the target text: what is hidden, that it helps, and that a killed run ends the same."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from edgekd.data.read import read_data
from edgekd.distill import loop
from edgekd.distill.adapt import MaskedObjective, adapt
from edgekd.distill.loop import held_out_loss
from edgekd.errors import UsageError
from edgekd.models.fill_in import load_masked_lm
from edgekd.models.identity import folder_id
from edgekd.models.teacher import load_body
from edgekd.runtime.tokenise import encode_texts, load_tokenizer
from edgekd.session import Session, teach_from
from edgekd.settings.distill import MaskedLM, Training
from edgekd.settings.profile import override
from edgekd.store import Store

MASK, SPECIAL = 4, (0, 1, 2, 3, 4)


def objective(ratio=0.15):
    return MaskedObjective(None, MASK, SPECIAL, 100, ratio)


def test_hides_a_share_of_the_words_and_never_a_special_token():
    torch.manual_seed(0)
    ids = torch.randint(5, 100, (200, 22))
    ids[:, 0], ids[:, 21] = 2, 3
    mask = torch.ones_like(ids)
    mask[:, 12:21] = 0
    shown, chosen = objective(0.3).hide(ids, mask, None)
    assert (chosen.sum(dim=1) == round(0.3 * 11)).all()
    assert not chosen[:, [0, *range(12, 22)]].any()
    assert (shown[~chosen] == ids[~chosen]).all()
    hidden = (shown[chosen] == MASK).float().mean()
    same = (shown[chosen] == ids[chosen]).float().mean()
    assert hidden == pytest.approx(0.8, abs=0.05)
    assert same == pytest.approx(0.1, abs=0.05)


def test_a_short_text_has_one_hidden_word_and_an_empty_one_none():
    ids = torch.tensor([[2, 7, 8, 3], [2, 3, 0, 0]])
    _, chosen = objective().hide(ids, (ids > 0).long(), None)
    assert chosen.sum(dim=1).tolist() == [1, 0]


def test_judging_hides_the_same_words_each_time(engine, tiny_encoder, data):
    found, tokens = load_masked_lm(tiny_encoder), encode_texts(load_tokenizer(tiny_encoder), data.test.texts)
    judge = MaskedObjective(None, found.mask, found.special, found.vocabulary, 0.15, fixed=True)
    losses = {held_out_loss(found.model, judge, tokens, engine) for _ in range(2)}
    assert len(losses) == 1
    plain = MaskedObjective(None, found.mask, found.special, found.vocabulary, 0.15)
    assert held_out_loss(found.model, plain, tokens, engine) not in losses


def spec(**changes):
    training = {"epochs": 6, "learning_rate": 3e-3, "precision": "fp32", "evaluations": 3}
    return MaskedLM(training=Training(**(training | changes)))


@pytest.fixture(scope="module")
def data(intent_data):
    return read_data(intent_data)


def adapted(store, engine, encoder, data, **changes):
    return adapt(store, engine, encoder, folder_id(encoder), data, 16, spec(**changes), 0)


def test_held_out_loss_falls_and_the_encoder_can_be_taught(tmp_path, engine, tiny_encoder, data, fast_profile):
    made = adapted(Store(tmp_path), engine, tiny_encoder, data)
    assert made.result["head"] == "new"
    assert made.result["held_out_after"] < 0.9 * made.result["held_out_before"]
    assert made.result["texts"] == 320
    before, after = load_body(tiny_encoder), load_body(made.path)
    assert not torch.equal(
        before.model.embeddings.word_embeddings.weight, after.model.embeddings.word_embeddings.weight
    )
    assert torch.equal(before.model.pooler.dense.weight, after.model.pooler.dense.weight)
    assert before.tokenizer.to_str() == after.tokenizer.to_str()
    assert json.loads((made.path / "config.json").read_text())["architectures"] == ["BertModel"]


def test_a_new_head_ends_in_the_word_embedding(tiny_encoder):
    found = load_masked_lm(tiny_encoder)
    assert found.new_head
    assert found.model.get_output_embeddings().weight is found.model.get_input_embeddings().weight
    assert found.mask == MASK
    assert set(found.special) == set(SPECIAL)


def test_a_checkpoints_own_head_is_used(tmp_path, engine, tiny_encoder, data):
    torch.manual_seed(3)
    shutil.copytree(tiny_encoder, tmp_path / "mlm")
    AutoModelForMaskedLM.from_pretrained(tiny_encoder).save_pretrained(tmp_path / "mlm")
    head = "cls.predictions.transform.dense.weight"
    assert head in load_file(tmp_path / "mlm" / "model.safetensors")
    first = adapted(Store(tmp_path / "s"), engine, tmp_path / "mlm", data, epochs=1)
    assert first.result["head"] == "own"
    torch.manual_seed(9)
    again = adapted(Store(tmp_path / "t"), engine, tmp_path / "mlm", data, epochs=1)
    assert first.result["held_out_before"] == again.result["held_out_before"]


def test_killed_run_goes_on_to_the_same_bytes(tmp_path, engine, tiny_encoder, data, monkeypatch):
    whole = adapted(Store(tmp_path / "whole"), engine, tiny_encoder, data, epochs=1)
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "_SAVING_SHARE", 1e9)
    step, steps = loop._Run._step, []

    def dying(run):
        if run.state.step == 5:
            raise KeyboardInterrupt
        step(run)

    monkeypatch.setattr(loop._Run, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        adapted(Store(tmp_path / "killed"), engine, tiny_encoder, data, epochs=1)
    monkeypatch.setattr(loop._Run, "_step", lambda run: (steps.append(run.state.step), step(run)))
    killed = adapted(Store(tmp_path / "killed"), engine, tiny_encoder, data, epochs=1)
    assert steps[0] == 5
    assert killed.result["held_out_after"] == whole.result["held_out_after"]
    assert (killed.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


def test_teach_takes_the_adapted_encoder_and_only_then_another_key(tmp_path, engine, tiny_encoder, data, fast_profile):
    session = Session(Store(tmp_path), engine)
    short = override(fast_profile, {"teach.training.epochs": 1})
    plain = teach_from(session, str(tiny_encoder), data, short)
    off = teach_from(session, str(tiny_encoder), data, override(short, {"teach.adapt": {"name": "none"}}))
    assert off.reused
    assert off.id == plain.id
    assert not (tmp_path / "adapt").exists()
    on = override(short, {"teach.adapt": spec(epochs=1).model_dump(mode="json")})
    assert teach_from(session, str(tiny_encoder), data, on).id != plain.id
    assert len(list((tmp_path / "adapt").glob("*/model.safetensors"))) == 1


def test_tokenizer_without_a_mask_is_refused(tmp_path, engine, tiny_encoder, data):
    shutil.copytree(tiny_encoder, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(UsageError, match="no mask token"):
        adapted(Store(tmp_path / "s"), engine, tmp_path / "bare", data)
