from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from edgekd.models.initialize import random_initial
from edgekd.models.quiet import quiet_transformers
from edgekd.models.student import StudentConfig, StudentModel, from_weights, numpy_weights
from edgekd.settings.shape import EncoderShape, HeadShape

SHAPE = EncoderShape(
    vocabulary=50,
    positions=20,
    token_types=2,
    embedding=12,
    hidden=16,
    head_size=4,
    heads=(4, 1, 3),
    ffn=(24, 5, 32),
    head=HeadShape(kind="sequence", labels=3, activation="tanh"),
)
LABELS = ["a", "b", "c"]


def make_student(shape=SHAPE, seed=0, **settings):
    weights = {name: array * 10 for name, array in random_initial(shape, seed).items()}
    return from_weights(shape, weights, LABELS if shape.head else [], **settings)


def batch(length=7):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 50, (4, length), generator=generator)
    mask = torch.ones(4, length, dtype=torch.long)
    mask[1, length - 3 :] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids % 2}


@pytest.mark.parametrize("embedding", [12, 16])
@pytest.mark.parametrize(
    "head",
    [
        SHAPE.head, HeadShape(kind="token", labels=3), HeadShape(kind="sequence", labels=3),
        HeadShape(kind="sequence", labels=3, pool="mean"), None,
    ],
)  # fmt: skip
@pytest.mark.parametrize("types", [0, 2])
def test_state_is_exactly_the_contract(head, types, embedding):
    shape = SHAPE.model_copy(update={"head": head, "token_types": types, "embedding": embedding})
    state = make_student(shape).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shape.weight_shapes()


def test_outputs_have_the_documented_shapes():
    model = make_student()
    output = model(**batch(), output_hidden_states=True, output_relations=(2, 3))
    assert output.logits.shape == (4, 3)
    assert output.last_hidden_state.shape == (4, 7, 16)
    assert [tuple(h.shape) for h in output.hidden_states] == [(4, 7, 16)] * 4
    shapes = {layer: [tuple(r.shape) for r in relations] for layer, relations in output.relations.items()}
    assert shapes == {2: [(4, 7, 4)] * 3, 3: [(4, 7, 12)] * 3}
    token = make_student(SHAPE.model_copy(update={"head": HeadShape(kind="token", labels=3)}))
    assert token(**batch()).logits.shape == (4, 7, 3)
    assert token(**batch()).hidden_states is None
    assert token(**batch()).relations is None
    bare = make_student(SHAPE.model_copy(update={"head": None}))(**batch())
    assert bare.logits is None
    assert bare.last_hidden_state.shape == (4, 7, 16)


def test_the_first_token_alone_gives_the_same_logits_and_gradients():
    short, whole = make_student(dropout=0.0).train(), make_student(dropout=0.0).train()
    output = short(**batch())
    expected = whole(**batch(), output_hidden_states=True)
    assert output.last_hidden_state is None
    assert torch.allclose(output.logits, expected.logits, atol=1e-5)
    for found in (output, expected):
        (found.logits**2).sum().backward()
    theirs = {name: parameter.grad for name, parameter in whole.named_parameters()}
    # The biases of keys have no gradient but what rounding leaves: the largest of all is the measure.
    largest = max(grad.abs().max() for grad in theirs.values())
    for name, parameter in short.named_parameters():
        assert (parameter.grad - theirs[name]).abs().max() <= 1e-5 * largest, name


def test_the_last_layer_computes_one_token_only_where_one_is_read():
    seen = {}
    for kind in ("sequence", "token", "joint"):
        slots = {"slots": 2} if kind == "joint" else {}
        head = HeadShape(kind=kind, labels=3, **slots)
        shape = SHAPE.model_copy(update={"head": head})
        weights = random_initial(shape, 0)
        model = from_weights(shape, weights, [str(i) for i in range(head.columns)])
        tokens = []
        model.layers[-1].ffn.register_forward_hook(lambda *call, tokens=tokens: tokens.append(call[-1].shape[1]))
        model(**batch())
        model(**batch(), output_relations=[3])
        seen[kind] = tokens
    assert seen == {"sequence": [1, 7], "token": [7, 7], "joint": [7, 7]}


def test_the_mean_over_tokens_is_of_real_ones_and_of_all_that_are():
    head = HeadShape(kind="sequence", labels=3, pool="mean")
    model = make_student(SHAPE.model_copy(update={"head": head}))
    inputs = batch()
    states = model(**inputs, output_hidden_states=True).hidden_states[-1]
    expected = torch.stack([x[m.bool()].mean(0) for x, m in zip(states, inputs["attention_mask"], strict=True)])
    torch.testing.assert_close(model(**inputs).logits, model.head.output(expected))
    alone = {name: value[1:2, :4] for name, value in inputs.items()}
    torch.testing.assert_close(model(**alone).logits, model(**inputs).logits[1:2])
    del alone["attention_mask"]
    torch.testing.assert_close(model(**alone).logits, model(**inputs).logits[1:2])


def test_only_a_text_has_a_mean():
    with pytest.raises(ValueError, match="a token head does not pool"):
        HeadShape(kind="token", labels=3, pool="mean")
    assert "pool" not in HeadShape(kind="sequence", labels=3).model_dump()


def test_relations_are_counted_from_one():
    model = make_student()
    output = model(**batch(), output_hidden_states=True, output_relations=[1, 3])
    assert list(output.relations) == [1, 3]
    for layer, relations in output.relations.items():
        attention = model.layers[layer - 1].attention
        x = output.hidden_states[layer - 1]
        for part, relation in zip((attention.query, attention.key, attention.value), relations, strict=True):
            torch.testing.assert_close(relation, part(x))


@pytest.mark.parametrize("last", [0, 1, 2, 3])
def test_truncated_it_runs_no_higher_and_no_head(last):
    model = make_student()
    whole = model(**batch(), output_hidden_states=True, output_relations=range(1, 4))
    higher = []
    for module in (*model.layers[last:], model.head):
        module.register_forward_hook(lambda *_: higher.append(1))
    cut = model(**batch(), output_hidden_states=True, output_relations=range(1, last + 1), last_layer=last)
    assert not higher
    assert cut.logits is None
    assert torch.equal(cut.last_hidden_state, whole.hidden_states[last])
    assert all(torch.equal(a, b) for a, b in zip(cut.hidden_states, whole.hidden_states[: last + 1], strict=True))
    for layer in range(1, last + 1):
        assert all(torch.equal(a, b) for a, b in zip(cut.relations[layer], whole.relations[layer], strict=True))


def test_padding_changes_nothing():
    model, inputs = make_student(), batch()
    alone = {name: tensor[1:2, :4] for name, tensor in inputs.items()}
    torch.testing.assert_close(model(**inputs).logits[1:2], model(**alone).logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model(**inputs | {"attention_mask": None}).logits[1], model(**alone).logits[0])


def test_token_types_default_to_the_first():
    model, inputs = make_student(), batch()
    del inputs["token_type_ids"]
    zeros = torch.zeros_like(inputs["input_ids"])
    torch.testing.assert_close(model(**inputs).logits, model(**inputs, token_type_ids=zeros).logits)


@pytest.mark.parametrize("per_text", [False, True])
def test_masking_a_part_is_zeroing_its_weights(per_text):
    model, inputs = make_student(), batch()
    heads = [torch.ones(n) for n in SHAPE.heads]
    neurons = [torch.ones(n) for n in SHAPE.ffn]
    heads[0][2] = neurons[1][4] = 0
    if per_text:
        heads, neurons = ([mask.expand(4, -1) for mask in masks] for masks in (heads, neurons))
    masked = model(**inputs, head_masks=heads, neuron_masks=neurons).logits
    assert not torch.allclose(masked, model(**inputs).logits)
    weights = numpy_weights(model)
    weights["layers.0.attention.output.weight"][:, 8:12] = 0
    weights["layers.1.ffn.down.weight"][:, 4] = 0
    torch.testing.assert_close(masked, from_weights(SHAPE, weights, LABELS)(**inputs).logits)


def test_skipping_a_layer_is_leaving_it_out():
    model, inputs = make_student(), batch()
    skipped = model(**inputs, skip_layer=1).logits
    del model.layers[1]
    torch.testing.assert_close(skipped, model(**inputs).logits)


def test_dropout_only_in_training():
    model, inputs = make_student(dropout=0.5), batch()
    torch.testing.assert_close(model(**inputs).logits, model(**inputs).logits)
    model.train()
    assert not torch.allclose(model(**inputs).logits, model(**inputs).logits)
    still = make_student(dropout=0.0).train()
    torch.testing.assert_close(still(**inputs).logits, still(**inputs).logits)


def test_every_weight_learns():
    model = make_student(dropout=0.0).train()
    model(**batch()).logits.square().sum().backward()
    # Softmax is blind to a constant added to all scores, so a key's bias alone has no gradient.
    flat = [n for n, p in model.named_parameters() if p.grad.abs().max() < 1e-9 and "key.bias" not in n]
    assert flat == []


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model = make_student(dropout=0.25, pad_token_id=7)
    with quiet_transformers():
        model.save_pretrained(tmp_path)
        again = StudentModel.from_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "edgekd-student"
    assert again.config.encoder_shape == SHAPE
    assert again.config.id2label == dict(enumerate(LABELS))
    assert again.config.label2id == {name: i for i, name in enumerate(LABELS)}
    assert (again.config.dropout, again.config.pad_token_id) == (0.25, 7)
    assert torch.equal(again(**batch()).logits, model(**batch()).logits)


def test_weights_round_trip_and_are_copies():
    weights = random_initial(SHAPE, 3)
    model = from_weights(SHAPE, weights, LABELS)
    again = numpy_weights(model)
    assert list(again) == list(weights)
    assert all(np.array_equal(again[name], weights[name]) for name in weights)
    again["head.output.bias"][:] = 9
    weights["head.output.bias"][:] = 9
    assert not model.head.output.bias.any()


def test_building_draws_no_random_number():
    weights = random_initial(SHAPE, 0)
    before = torch.get_rng_state()
    from_weights(SHAPE, weights, LABELS)
    assert torch.equal(before, torch.get_rng_state())


def test_wrong_weights_and_labels_are_refused():
    weights = random_initial(SHAPE, 0)
    with pytest.raises(ValueError, match="2 label names"):
        from_weights(SHAPE, weights, ["a", "b"])
    del weights["head.output.bias"]
    with pytest.raises(RuntimeError, match=r"head\.output\.bias"):
        from_weights(SHAPE, weights, LABELS)


def test_config_takes_a_shape_or_its_json():
    assert StudentConfig(SHAPE).to_dict()["shape"] == StudentConfig(SHAPE.model_dump(mode="json")).shape


def test_a_value_far_from_zero_keeps_its_digits_in_bf16():
    shape = SHAPE.model_copy(update={"head": HeadShape(kind="sequence", labels=1, activation="tanh")})
    weights = random_initial(shape, 0) | {"head.output.bias": np.array([2000.25], np.float32)}
    model = from_weights(shape, weights, ["value"])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        values = model(**batch()).logits
    assert values.dtype == torch.float32
    assert (values - 2000.25).abs().max() < 1.0  # a BF16 number there ends in multiples of 8
    with torch.no_grad():
        assert (values - model(**batch()).logits).abs().max() < 0.05
