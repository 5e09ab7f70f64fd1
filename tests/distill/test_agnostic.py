import numpy as np
import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel, DebertaV2Config, DebertaV2Model

from edgekd.distill import agnostic
from edgekd.distill.agnostic import distill_encoder, first_encoder, hold_out_texts, spread, student_frame
from edgekd.errors import DataError, EdgekdError, UsageError
from edgekd.models.families import host
from edgekd.models.identity import folder_id
from edgekd.models.shape_text import parse_shape
from edgekd.models.student import from_weights
from edgekd.models.teacher import load_body
from edgekd.settings.distill import Agnostic
from edgekd.store import Store
from tests.conftest import sentences

TEXTS = [row["text"] for row in sentences(200, 7, labelled=False)]


def spec(**changes):
    training = {"epochs": 2, "learning_rate": 3e-3, "precision": "fp32", "evaluations": 3, "dropout": 0.0}
    return Agnostic.model_validate({"training": training | changes.pop("training", {}), **changes})


def distil(store, engine, folder, shape="2x16x48h4", texts=TEXTS, **changes):
    teacher = load_body(folder)
    asked = parse_shape(shape, student_frame(teacher))
    return distill_encoder(store, engine, teacher, folder_id(folder), texts, 32, asked, spec(**changes))


@pytest.mark.parametrize("loss", ["minilmv2", "hidden_mse", "mi"])
def test_stock_bert_comes_out_and_the_loss_falls(tmp_path, engine, tiny_encoder, loss):
    made = distil(Store(tmp_path), engine, tiny_encoder, loss={"name": loss})
    assert made.result["held_out_after"] < made.result["held_out_before"]
    assert made.result["held_out_after"] == min(point["score"] for point in made.result["points"])
    if loss != "mi":  # a negated bound
        assert made.result["held_out_after"] > 0
    model, report = AutoModel.from_pretrained(made.path, output_loading_info=True)
    assert not report["missing_keys"]
    assert (model.config.hidden_size, model.config.num_hidden_layers, model.config.intermediate_size) == (16, 2, 48)
    assert sum(p.numel() for n, p in model.named_parameters() if "pooler" not in n) == made.result["parameters"]
    body = load_body(made.path)
    assert body.tokenizer.get_vocab() == load_body(tiny_encoder).tokenizer.get_vocab()
    inputs = {"input_ids": torch.tensor([[2, 7, 9, 11, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
    student = from_weights(*body.hosted, ())
    with torch.inference_mode():
        gap = model.eval()(**inputs).last_hidden_state - student(**inputs).last_hidden_state
    assert gap.abs().max() < 1e-5
    assert not (made.path / "state").exists()


def test_it_is_made_once_and_anew_for_another_seed(tmp_path, engine, tiny_encoder):
    store = Store(tmp_path)
    first = distil(store, engine, tiny_encoder, max_steps=3)
    assert distil(store, engine, tiny_encoder, max_steps=3).reused
    other = distil(store, engine, tiny_encoder, max_steps=3, seed=1)
    assert not other.reused
    assert other.id != first.id
    again = distil(Store(tmp_path / "new"), engine, tiny_encoder, max_steps=3)
    weights = [(made.path / "model.safetensors").read_bytes() for made in (first, again, other)]
    assert weights[0] == weights[1] != weights[2]


def test_killed_run_goes_on_to_the_same_bytes(tmp_path, engine, tiny_encoder, monkeypatch):
    from edgekd.distill import loop

    whole = distil(Store(tmp_path / "whole"), engine, tiny_encoder)
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "_SAVING_SHARE", 1e9)
    step = loop._Run._step

    def dying(run):
        if run.state.step == 5:
            raise KeyboardInterrupt
        step(run)

    monkeypatch.setattr(loop._Run, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        distil(Store(tmp_path / "killed"), engine, tiny_encoder)
    steps = []
    monkeypatch.setattr(loop._Run, "_step", lambda run: (steps.append(run.state.step), step(run)))
    killed = distil(Store(tmp_path / "killed"), engine, tiny_encoder)
    assert steps[0] == 5
    assert (killed.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    assert killed.result["held_out_before"] == whole.result["held_out_before"]


def make_hosted():
    torch.manual_seed(0)
    return host(
        BertModel(
            BertConfig(
                vocab_size=50, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64,
                max_position_embeddings=20,
            )
        )
    )  # fmt: skip


STATES = np.random.default_rng(0).standard_normal((500, 32)).astype(np.float32)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("4x32x64h4", "slice"),
        ("2x32x32", "slice"),
        ("2x16x64", "slice"),
        ("2x16h4", "embeddings"),  # heads of 4, the teacher's are of 8
        ("5x16", "embeddings"),
        ("2x32x65", "embeddings"),
        ("2x40", "random"),
    ],
)
def test_as_much_of_the_teacher_as_fits(text, origin):
    hosted = make_hosted()
    shape = parse_shape(text, hosted[0])
    weights, found = first_encoder(hosted, shape, STATES, 0)
    assert found == origin
    assert {name: array.shape for name, array in weights.items()} == shape.weight_shapes()
    word, theirs = weights["embeddings.word.weight"], hosted[1]["embeddings.word.weight"]
    if origin != "random" and shape.hidden == 32:
        assert np.array_equal(word, theirs)
    if origin != "random" and shape.hidden == 16:  # what is projected keeps most of its energy
        assert np.linalg.norm(word) > 0.5 * np.linalg.norm(theirs)
    if text == "4x32x64h4":
        assert all(np.array_equal(weights[name], array) for name, array in hosted[1].items())
    random, _ = first_encoder(None, shape, None, 0)
    same = np.array_equal(weights["layers.0.ffn.up.weight"], random["layers.0.ffn.up.weight"])
    assert same == (origin != "slice")


def test_slice_keeps_the_strongest_neurons():
    shape, frozen = make_hosted()
    weights = {name: array.copy() for name, array in frozen.items()}
    dead = np.arange(0, 64, 2)
    weights["layers.0.ffn.down.weight"][:, dead] = 0
    kept, _ = first_encoder((shape, weights), parse_shape("1x32x32", shape), None, 0)
    assert np.array_equal(kept["layers.0.ffn.up.weight"], weights["layers.0.ffn.up.weight"][1::2])


def test_layers_are_spread_as_distilbert_spreads_them():
    assert spread(6, 12) == (0, 2, 4, 7, 9, 11)
    assert spread(3, 12) == (0, 6, 11)
    assert spread(4, 4) == (0, 1, 2, 3)


def test_held_out_texts_follow_from_the_seed():
    learn, judge = hold_out_texts(TEXTS, spec())
    assert len(judge) == 10
    assert sorted(learn + judge) == sorted(TEXTS)
    assert hold_out_texts(TEXTS, spec())[1] == judge != hold_out_texts(TEXTS, spec(seed=1))[1]
    with pytest.raises(DataError, match="9 texts are too few to hold out 5% of"):
        hold_out_texts(TEXTS[:9], spec())


@pytest.mark.parametrize("loss", ["kl", "hard", "dist"])
def test_losses_that_need_a_head_are_refused(loss):
    with pytest.raises(ValueError, match=f"{loss} needs a task head"):
        spec(loss={"name": loss})


def test_relation_heads_that_do_not_divide_are_named(tmp_path, engine, tiny_encoder):
    with pytest.raises(UsageError, match="relation_heads 5 does not divide"):
        distil(Store(tmp_path), engine, tiny_encoder, loss={"name": "minilmv2", "relation_heads": 5})


def test_loss_that_becomes_nan_stops_and_names_the_term(tmp_path, engine, tiny_encoder, monkeypatch):
    monkeypatch.setattr(agnostic, "held_out_loss", lambda *a: 1.0)
    with pytest.raises(EdgekdError, match=r"the loss \(hidden_mse\) became .* lower the learning rate"):
        distil(
            Store(tmp_path), engine, tiny_encoder, loss={"name": "hidden_mse"},
            training={"learning_rate": 1e38, "max_grad_norm": 1e38, "warmup": 0},
        )  # fmt: skip


def test_teacher_of_another_architecture(tmp_path, engine, tiny_encoder):
    """Hidden states are all that it shows; the student is a BERT all the same, at random."""
    body = load_body(tiny_encoder)
    folder = tmp_path / "deberta"
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=body.tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, type_vocab_size=0,
    )  # fmt: skip
    DebertaV2Model(config).save_pretrained(folder)
    body.save_tokenizer(folder)
    made = distil(Store(tmp_path / "store"), engine, folder, loss={"name": "hidden_cosine"})
    assert made.result["first_weights"] == "random"
    assert made.result["held_out_after"] < made.result["held_out_before"]
    assert AutoModel.from_pretrained(made.path).config.model_type == "bert"
    with pytest.raises(UsageError, match="shows no queries, keys and values"):
        distil(Store(tmp_path / "store"), engine, folder)
