from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from edgekd.errors import UsageError
from edgekd.models.families import host
from edgekd.models.importance import Importance
from edgekd.models.initialize import project_width, random_initial, scaled_output, slice_again, slice_weights
from edgekd.models.student import from_weights
from edgekd.settings.shape import EncoderShape, HeadShape, Slice

from .conftest import make_batch, make_teacher

LABELS = [f"c{i}" for i in range(5)]


def scores(shape, seed=0):
    generator = np.random.default_rng(seed)
    heads, neurons = ([generator.random(n) for n in sizes] for sizes in (shape.heads, shape.ffn))
    return Importance(heads, neurons, generator.random(shape.depth))


@torch.no_grad()
def run(shape, weights, batch, **settings):
    return from_weights(shape, weights, LABELS)(**batch, **settings)


def random_teacher(activation="tanh", **settings):
    """A shape and smooth random weights whose norms all have gain 1.3, but biases of their own."""
    shape = EncoderShape(
        vocabulary=60,
        positions=16,
        token_types=2,
        hidden=24,
        head_size=6,
        head=HeadShape(kind="sequence", labels=5, activation=activation),
        **{"embedding": 24, "heads": (4, 4), "ffn": (32, 32)} | settings,
    )
    weights = {n: 10 * a for n, a in random_initial(shape, 0).items()}
    generator = np.random.default_rng(1)
    for name, array in weights.items():
        if name.endswith("norm.weight"):
            array[:] = 1.3
        elif name.endswith("bias"):
            array[:] = generator.normal(0, 0.2, array.shape)
    return shape, weights


def inputs(rows=16):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 60, (rows, 9), generator=generator)
    return {"input_ids": ids, "token_type_ids": ids % 2}


def states_of(shape, weights):
    output = run(shape, weights, inputs(64), output_hidden_states=True)
    return torch.cat([h.flatten(0, 1) for h in output.hidden_states]).numpy()


def test_slicing_everything_changes_nothing(teacher):
    shape, weights = host(teacher)
    choice = Slice(layers=(0, 1, 2), heads=shape.heads, ffn=shape.ffn)
    same_shape, same = slice_weights(shape, weights, scores(shape), choice)
    assert same_shape == shape
    assert same.keys() == weights.keys()
    assert all(np.array_equal(same[name], weights[name]) for name in weights)
    assert not any(np.shares_memory(same[name], weights[name]) for name in weights)


def test_slicing_drops_what_is_dead():
    model = make_teacher()
    shape, frozen = host(model)
    weights = {name: array.copy() for name, array in frozen.items()}
    weights["layers.0.attention.output.weight"][:, 8:16] = 0
    weights["layers.2.ffn.down.weight"][:, [0, 7, 40]] = 0
    importance = scores(shape)
    importance.heads[0][1] = -1
    importance.neurons[2][[0, 7, 40]] = -1
    choice = Slice(layers=(0, 1, 2), heads=(3, 4, 4), ffn=(48, 48, 45))
    small_shape, small = slice_weights(shape, weights, importance, choice)
    assert (small_shape.heads, small_shape.ffn) == ((3, 4, 4), (48, 48, 45))
    assert {name: array.shape for name, array in small.items()} == small_shape.weight_shapes()
    batch = make_batch(model)
    torch.testing.assert_close(
        run(small_shape, small, batch).logits, run(shape, weights, batch).logits, atol=1e-5, rtol=1e-5
    )


def test_slicing_keeps_the_best_in_their_order(teacher):
    shape, weights = host(teacher)
    importance = scores(shape)
    importance.heads[2][:] = [0.1, 0.9, 0.2, 0.8]
    small_shape, small = slice_weights(shape, weights, importance, Slice(layers=(2,), heads=(2,), ffn=(1,)))
    query = weights["layers.2.attention.query.weight"]
    assert np.array_equal(small["layers.0.attention.query.weight"], np.concatenate([query[8:16], query[24:32]]))
    best = int(importance.neurons[2].argmax())
    assert np.array_equal(small["layers.0.ffn.up.bias"], weights["layers.2.ffn.up.bias"][[best]])
    assert small_shape.depth == 1


def test_a_slice_of_a_slice_is_the_slice():
    shape, weights = random_teacher(heads=(4, 4, 4), ffn=(32, 32, 32))
    importance = scores(shape)
    old = Slice(layers=(0, 2), heads=(3, 2), ffn=(9, 7))
    larger = slice_weights(shape, weights, importance, old)
    for new in (Slice(layers=(0, 2), heads=(1, 2), ffn=(4, 7)), Slice(layers=(2,), heads=(1,), ffn=(3,)), old):
        again = slice_again(*larger, importance, old, new)
        expected = slice_weights(shape, weights, importance, new)
        assert again[0] == expected[0]
        assert all(np.array_equal(again[1][name], array) for name, array in expected[1].items())
    for outside in (Slice(layers=(0, 1), heads=(1, 1), ffn=(2, 2)), Slice(layers=(0,), heads=(4,), ffn=(2,)),
                    Slice(layers=(2,), heads=(1,), ffn=(8,))):  # fmt: skip
        assert slice_again(*larger, importance, old, outside) is None


def test_slicing_layers_is_skipping_the_others(teacher):
    shape, weights = host(teacher)
    batch = make_batch(teacher)
    choice = Slice(layers=(0, 2), heads=(4, 4), ffn=(48, 48))
    sliced = run(*slice_weights(shape, weights, scores(shape), choice), batch).logits
    torch.testing.assert_close(sliced, run(shape, weights, batch, skip_layer=1).logits)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"layers": (0, 3), "heads": (1, 1), "ffn": (1, 1)}, "layer 3"),
        ({"layers": (0,), "heads": (5,), "ffn": (1,)}, "5 heads"),
        ({"layers": (0,), "heads": (1,), "ffn": (49,)}, "49 neurons"),
    ],
)
def test_slices_beyond_the_teacher_are_refused(teacher, choice, message):
    shape, weights = host(teacher)
    with pytest.raises(UsageError, match=message):
        slice_weights(shape, weights, scores(shape), Slice(**choice))


@pytest.mark.parametrize(
    "choice",
    [
        {"layers": (), "heads": (), "ffn": ()},
        {"layers": (0, 1), "heads": (1,), "ffn": (1, 1)},
        {"layers": (1, 0), "heads": (1, 1), "ffn": (1, 1)},
        {"layers": (1, 1), "heads": (1, 1), "ffn": (1, 1)},
        {"layers": (-1,), "heads": (1,), "ffn": (1,)},
        {"layers": (0,), "heads": (0,), "ffn": (1,)},
    ],
)
def test_impossible_slices_are_refused(choice):
    with pytest.raises(ValueError, match="Slice"):
        Slice(**choice)


@pytest.mark.parametrize("embedding", [24, 10])
def test_projection_to_the_full_width_is_the_identity(embedding):
    shape, weights = random_teacher(embedding=embedding)
    generator = np.random.default_rng(5)
    for name, array in weights.items():
        if name.endswith("norm.weight"):
            array[:] = generator.uniform(0.3, 2, array.shape)
    same_shape, same, explained = project_width(shape, weights, states_of(shape, weights), 24)
    assert same_shape == shape
    assert explained == pytest.approx(1)
    torch.testing.assert_close(
        run(same_shape, same, inputs()).logits, run(shape, weights, inputs()).logits, atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("activation", [None, "tanh", "gelu", "relu"])
@pytest.mark.parametrize("embedding", [24, 10])
def test_projection_gives_the_shapes_it_says(embedding, activation):
    shape, weights = random_teacher(activation, embedding=embedding)
    narrow_shape, narrow, explained = project_width(shape, weights, states_of(shape, weights), 16)
    assert narrow_shape.hidden == 16
    assert narrow_shape.embedding == (16 if embedding == 24 else 10)
    assert (narrow_shape.heads, narrow_shape.ffn, narrow_shape.head_size) == (shape.heads, shape.ffn, 6)
    assert {name: array.shape for name, array in narrow.items()} == narrow_shape.weight_shapes()
    assert 0.5 < explained < 1
    assert torch.isfinite(run(narrow_shape, narrow, inputs()).logits).all()


def low_rank_teacher(rank=9):
    """A teacher that writes to `rank` directions of its stream only; they are no feature axes."""
    shape, weights = random_teacher(activation=None)
    generator = np.random.default_rng(2)
    plane = np.linalg.qr(np.concatenate([np.ones((24, 1)), generator.normal(size=(24, rank - 1))], axis=1))[0]
    onto = (plane @ plane.T).astype(np.float32)
    written = ("attention.output.weight", "attention.output.bias", "down.weight", "down.bias", "norm.bias")
    for name, array in weights.items():
        if name.endswith(("word.weight", "position.weight", "token_type.weight")):
            array[:] = array @ onto
        elif name.endswith(written):
            array[:] = onto @ array
    return shape, weights


def test_projection_is_exact_where_nothing_is_cut_off_and_gains_are_even():
    """Even gains commute with every rotation, and LayerNorm's mean is carried over: so nothing is lost."""
    shape, weights = low_rank_teacher()
    narrow_shape, narrow, explained = project_width(shape, weights, states_of(shape, weights), 9)
    assert explained == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(
        run(narrow_shape, narrow, inputs()).logits, run(shape, weights, inputs()).logits, atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("activation", [None, "tanh"])
def test_slots_are_projected_beside_the_intent(activation):
    shape, weights = low_rank_teacher()
    shape = shape.model_copy(update={"head": HeadShape(kind="joint", labels=2, activation=activation, slots=3)})
    weights = {n: a for n, a in weights.items() if not n.startswith("head.")}
    weights |= {n: 20 * a for n, a in random_initial(shape, 7).items() if n.startswith("head.")}
    narrow_shape, narrow, _ = project_width(shape, weights, states_of(shape, weights), 9)
    assert {name: array.shape for name, array in narrow.items()} == narrow_shape.weight_shapes()
    ours, theirs = run(narrow_shape, narrow, inputs()).logits, run(shape, weights, inputs()).logits
    assert theirs.shape[-1] == 5
    torch.testing.assert_close(ours[:, 1:], theirs[:, 1:], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_a_dense_head_keeps_most_of_its_logits(activation):
    shape, weights = low_rank_teacher()
    shape = shape.model_copy(update={"head": HeadShape(kind="sequence", labels=5, activation=activation)})
    weights |= {n: 20 * a for n, a in random_initial(shape, 7).items() if n.startswith("head.")}
    narrow_shape, narrow, _ = project_width(shape, weights, states_of(shape, weights), 12)
    ours, theirs = run(narrow_shape, narrow, inputs(64)).logits, run(shape, weights, inputs(64)).logits
    assert float((ours - theirs).var() / theirs.var()) < 0.1


def test_narrower_starts_nearer_than_random():
    shape, weights = random_teacher()
    states, theirs = states_of(shape, weights), run(shape, weights, inputs(64)).logits
    gaps = []
    for width in (22, 16, 8):
        narrow_shape, narrow, explained = project_width(shape, weights, states, width)
        ours = run(narrow_shape, narrow, inputs(64)).logits
        gaps.append((float((ours - theirs).square().mean()), explained))
    chance = float((theirs - theirs.mean(0)).square().mean())
    assert gaps[0][0] < gaps[1][0] < gaps[2][0]
    assert gaps[0][0] < 0.5 * chance
    assert gaps[0][1] > gaps[1][1] > gaps[2][1]


@pytest.mark.parametrize("width", [0, 1, 25])
def test_impossible_widths_are_refused(width):
    shape, weights = random_teacher()
    with pytest.raises(UsageError, match=f"width {width}"):
        project_width(shape, weights, np.ones((4, 24), np.float32), width)


def test_random_weights_follow_the_contract_and_the_seed():
    shape, _ = random_teacher()
    first, again, other = (random_initial(shape, seed) for seed in (1, 1, 2))
    assert {name: array.shape for name, array in first.items()} == shape.weight_shapes()
    assert {array.dtype for array in first.values()} == {np.dtype(np.float32)}
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["embeddings.word.weight"], other["embeddings.word.weight"])
    assert first["embeddings.word.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert np.array_equal(first["embeddings.norm.weight"], np.ones(24))
    assert not first["head.dense.bias"].any()


def test_the_planner_needs_no_torch():
    code = "import sys, edgekd.models.initialize; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_new_head_begins_at_the_values_mean_and_spread():
    weights = {"head.output.weight": np.full((1, 2), 0.5), "head.output.bias": np.zeros(1), "x": np.ones(1)}
    scaled = scaled_output(weights, np.array([[480.0], [520.0]]))
    assert scaled["head.output.weight"].tolist() == [[10.0, 10.0]]
    assert scaled["head.output.bias"].tolist() == [500.0]
    assert scaled["x"] is weights["x"]
