from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgekd.models.families import host
from edgekd.models.importance import Importance, measure_importance
from edgekd.models.student import from_weights, numpy_weights

from .conftest import make_batch


def cross_entropy(output, batch):
    return F.cross_entropy(output.logits, batch["labels"])


@pytest.fixture
def student(teacher):
    shape, weights = host(teacher)
    return from_weights(shape, weights, [f"c{i}" for i in range(5)])


@pytest.fixture
def batches(teacher):
    sizes = (3, 5)
    made = [make_batch(teacher, batch=n, seed=n) for n in sizes]
    return [b | {"labels": torch.arange(n) % 5} for b, n in zip(made, sizes, strict=True)]


def changed(student, **weights):
    arrays = numpy_weights(student)
    for name, change in weights.items():
        change(arrays[name.replace("__", ".")])
    labels = list(student.config.id2label.values())
    return from_weights(student.config.encoder_shape, arrays, labels)


def test_shapes_and_signs(student, batches):
    scores = measure_importance(student, batches, cross_entropy)
    shape = student.config.encoder_shape
    assert [h.shape for h in scores.heads] == [(n,) for n in shape.heads]
    assert [n.shape for n in scores.neurons] == [(n,) for n in shape.ffn]
    assert scores.layers.shape == (3,)
    assert min(map(np.min, scores.heads + scores.neurons)) > 0


def test_dead_parts_score_nothing(student, batches):
    def dead_head(array):
        array[:, 8:16] = 0

    def dead_neuron(array):
        array[:, 5] = 0

    model = changed(
        student,
        layers__0__attention__output__weight=dead_head,
        layers__2__ffn__down__weight=dead_neuron,
    )
    scores = measure_importance(model, batches, cross_entropy)
    assert scores.heads[0][1] == 0
    assert scores.neurons[2][5] == 0
    assert np.delete(scores.heads[0], 1).min() > 0
    assert np.delete(scores.neurons[2], 5).min() > 0


def test_a_layer_that_changes_nothing_scores_nothing(student, batches):
    def zero(array):
        array[:] = 0

    def one(array):
        array[:] = 1

    # Only writes nothing and norms nothing that is not normed already: then the layer is the identity.
    dead = {
        f"layers__1__{part}__{kind}": zero for part in ("attention__output", "ffn__down") for kind in ("weight", "bias")
    }
    norms = [f"layers__{place}" for place in ("0__ffn__norm", "1__attention__norm", "1__ffn__norm")]
    plain = {f"{n}__weight": one for n in norms} | {f"{n}__bias": zero for n in norms}
    scores = measure_importance(changed(student, **dead, **plain), batches, cross_entropy)
    assert abs(scores.layers[1]) < 1e-6
    assert abs(scores.layers[2]) > 1e-3


def test_against_finite_differences_text_by_text(student, batches):
    scores = measure_importance(student, batches, cross_entropy)
    step, shape = 1e-2, student.config.encoder_shape

    def losses(batch, factor):
        masks = [torch.ones(n) for n in shape.heads]
        masks[1][2] = factor
        with torch.no_grad():
            logits = student(batch["input_ids"], batch["attention_mask"], head_masks=masks).logits
        return F.cross_entropy(logits, batch["labels"], reduction="none")

    slopes = [(losses(b, 1 + step) - losses(b, 1 - step)) / (2 * step) for b in batches]
    assert scores.heads[1][2] == pytest.approx(float(torch.cat(slopes).abs().mean()), rel=1e-2)


def test_layers_are_the_exact_rise_over_all_texts(student, batches):
    scores = measure_importance(student, batches, cross_entropy)
    total, texts = 0.0, 0
    for batch in batches:
        inputs = (batch["input_ids"], batch["attention_mask"])
        with torch.no_grad():
            without = F.cross_entropy(student(*inputs, skip_layer=0).logits, batch["labels"], reduction="sum")
            full = F.cross_entropy(student(*inputs).logits, batch["labels"], reduction="sum")
        total, texts = total + float(without - full), texts + len(batch["labels"])
    assert scores.layers[0] == pytest.approx(total / texts, abs=1e-5)


def test_the_model_is_left_as_it_was(student, batches):
    student.train()
    before = numpy_weights(student)
    measure_importance(student, iter(batches), cross_entropy)
    assert student.training
    assert all(parameter.grad is None for parameter in student.parameters())
    assert all(np.array_equal(before[n], a) for n, a in numpy_weights(student).items())


def test_dropout_does_not_disturb(student, batches):
    student.train()
    first, second = (measure_importance(student, batches, cross_entropy) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.heads, second.heads, strict=True))


def test_no_batch_is_refused(student):
    with pytest.raises(ValueError, match="at least one batch"):
        measure_importance(student, [], cross_entropy)


def test_saved_and_loaded_it_is_the_same(student, batches, tmp_path):
    scores = measure_importance(student, batches, cross_entropy)
    scores.save(tmp_path / "importance.safetensors")
    again = Importance.load(tmp_path / "importance.safetensors")
    assert np.array_equal(scores.layers, again.layers)
    for ours, theirs in ((scores.heads, again.heads), (scores.neurons, again.neurons)):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
