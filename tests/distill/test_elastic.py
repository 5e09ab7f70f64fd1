"""One set of weights for many students: slices are prefixes, gradients reach the base, a killed run ends the same."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgekd.distill.elastic import Elastic, ElasticObjective, cut, draw, hull, mean_step, train_elastic
from edgekd.distill.losses.prediction import kl_divergence
from edgekd.distill.objective import Batch
from edgekd.distill.predict import predict_rows
from edgekd.distill.student import Start, start_of
from edgekd.models.importance import Importance
from edgekd.models.initialize import random_initial, slice_again, slice_weights
from edgekd.pipeline.sources import gather
from edgekd.plan.weights import importance_of
from edgekd.runtime.encodings import Encodings
from edgekd.settings.losses import KL
from edgekd.settings.request import Request
from edgekd.settings.shape import EncoderShape, HeadShape, Slice

LABELS = ("a", "b", "c")
SHAPE = EncoderShape(
    vocabulary=30, positions=16, token_types=2, embedding=12, hidden=16, head_size=4, heads=(4, 4, 4), ffn=(24, 24, 24),
    head=HeadShape(kind="sequence", labels=3, activation="tanh"),
)  # fmt: skip
SMALL = Slice(layers=(0, 2), heads=(1, 2), ffn=(5, 8))
MIDDLE = Slice(layers=(0, 2), heads=(2, 3), ffn=(16, 8))
LARGE = Slice(layers=(0, 1, 2), heads=(3, 1, 4), ffn=(24, 7, 20))
SLICES = (SMALL, MIDDLE, LARGE)


@pytest.fixture(scope="module")
def teacher():
    generator = np.random.default_rng(3)
    weights = {
        n: 0.3 * generator.standard_normal(w.shape).astype(np.float32) for n, w in random_initial(SHAPE, 0).items()
    }
    heads = [generator.random(4) for _ in range(3)]
    neurons = [generator.random(24) for _ in range(3)]
    return Start(SHAPE, weights, LABELS), Importance(heads, neurons, np.array([3.0, 1.0, 2.0]))


def ranked(teacher, whole):
    start, importance = teacher
    return Start(*slice_weights(start.shape, start.weights, importance, whole, ranked=True), LABELS)


def texts(count=5, length=7):
    ids = torch.randint(1, 30, (count, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def test_hull_holds_all_slices():
    found = hull([SMALL, Slice(layers=(1,), heads=(4,), ffn=(3,)), MIDDLE])
    assert found == Slice(layers=(0, 1, 2), heads=(2, 4, 3), ffn=(16, 3, 8))


@pytest.mark.parametrize("choice", SLICES)
def test_every_slice_computes_what_is_cut_out_of_the_teacher(teacher, choice):
    start, importance = teacher
    base = ranked(teacher, LARGE)
    alone = Start(*slice_weights(start.shape, start.weights, importance, choice), LABELS).model()
    elastic = Elastic(base.model(), LARGE).eval()
    with torch.inference_mode():
        expected = alone(**texts()).logits
        (found,) = elastic([choice], texts())
        from_base = cut(base, LARGE, choice, importance).model()(**texts()).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(from_base, expected, atol=1e-5)
    assert expected.abs().max() > 0.05


@pytest.mark.parametrize("choice", SLICES)
def test_what_is_cut_has_the_teachers_order_and_can_be_cut_again(teacher, choice):
    start, importance = teacher
    cuts = cut(ranked(teacher, LARGE), LARGE, choice, importance)
    _, expected = slice_weights(start.shape, start.weights, importance, choice)
    assert set(cuts.weights) == set(expected)
    for name, array in expected.items():
        assert np.array_equal(cuts.weights[name], array), name
    inside = Slice(layers=(choice.layers[0],), heads=(1,), ffn=(max(1, choice.ffn[0] // 2),))
    _, again = slice_again(cuts.shape, cuts.weights, importance, choice, inside)
    for name, array in slice_weights(start.shape, start.weights, importance, inside)[1].items():
        assert np.array_equal(again[name], array), name


def test_gradients_reach_the_prefix_of_the_base_alone(teacher):
    elastic = Elastic(ranked(teacher, LARGE).model(), LARGE).train()
    (logits,) = elastic([SMALL], texts())
    logits.sum().backward()
    query = elastic.base.layers[0].attention.query.weight.grad
    assert query[:4].abs().sum() > 0
    assert query[4:].abs().sum() == 0
    down = elastic.base.layers[2].ffn.down.weight.grad
    assert down[:, :8].abs().sum() > 0
    assert down[:, 8:].abs().sum() == 0
    assert elastic.base.layers[1].ffn.down.weight.grad is None
    assert set(elastic.state_dict()) == {f"base.{name}" for name in elastic.base.state_dict()}


def test_a_step_trains_the_first_and_one_of_the_others():
    torch.manual_seed(0)
    drawn = [draw((SMALL, MIDDLE, LARGE)) for _ in range(40)]
    assert all(d["first"] == SMALL for d in drawn)
    assert {d["drawn"] for d in drawn} == {MIDDLE, LARGE}
    assert draw((SMALL, LARGE)) == {"first": SMALL, "drawn": LARGE}
    assert mean_step([1.0, 2.0, 5.0]) == 4.5


@torch.no_grad()
def test_loss_is_the_mean_over_the_two(teacher):
    given = texts()
    encodings = Encodings(given["input_ids"].numpy().astype(np.int32).ravel(), np.arange(6) * 7)
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    elastic = Elastic(ranked(teacher, LARGE).model(), LARGE).eval()
    importance = teacher[1]
    pair = (SMALL, LARGE)
    terms = ElasticObjective(KL(temperature=2), rows, pair)(elastic, Batch(encodings, np.arange(5), given))
    by_hand = [
        kl_divergence(rows, cut(start_of(elastic.base, LABELS), LARGE, c, importance).model()(**given).logits, 2)
        for c in pair
    ]
    assert float(sum(terms.values())) == pytest.approx(float(sum(by_hand)) / 2, rel=1e-4)


@pytest.fixture(scope="module")
def inputs(shared_session, tiny_teacher, intent_data, fast_profile):
    return gather(shared_session, Request(teacher=str(tiny_teacher), data=str(intent_data), profile=fast_profile))


def elastic_run(session, inputs, epochs=6.0, **changes):
    shape = inputs.teacher.hosted[0]
    slices = (
        Slice(layers=(0,), heads=(2,), ffn=(16,)),
        Slice(layers=(0, 2), heads=(2, 1), ffn=(24, 16)),
        Slice(layers=(0, 1, 2), heads=shape.heads, ffn=(32, 48, 64)),
    )
    stage = inputs.profile.distill.stages[0]
    training = stage.training.model_copy(update={"epochs": epochs, **changes})
    return train_elastic(
        session.store, session.engine, inputs.teacher.hosted, importance_of(session, inputs).importance, slices,
        inputs.task, inputs.lesson(), stage.model_copy(update={"training": training}), 0, "elastic",
    )  # fmt: skip


def test_run_trains_every_slice_and_scores_what_it_cuts(shared_session, inputs):
    run = elastic_run(shared_session, inputs)
    assert all(score > 0.7 for score in run.scores)
    for i, choice in enumerate(run.slices):
        rows = predict_rows(
            run.cut(choice, inputs.task.labels).model(), inputs.validation.encodings, shared_session.engine
        )
        assert inputs.validation.score(inputs.task, rows) == run.scores[i]
    assert run.counts.shape[:2] == (3, 80)
    assert elastic_run(shared_session, inputs).artefact.reused


def test_run_keeps_what_is_important_first(shared_session, inputs):
    """Hardly trained, every slice answers like the one that is cut out of the teacher by importance."""
    run = elastic_run(shared_session, inputs, epochs=0.5, learning_rate=1e-12)
    importance = importance_of(shared_session, inputs).importance
    for choice in run.slices:
        found = run.cut(choice, inputs.task.labels)
        expected = Start(*slice_weights(*inputs.teacher.hosted, importance, choice), inputs.task.labels)
        rows = [predict_rows(s.model(), inputs.validation.encodings, shared_session.engine) for s in (found, expected)]
        assert np.allclose(*rows, atol=1e-4)


KILLED = """
import sys, time
from pathlib import Path
import edgekd.distill.loop as loop
from edgekd.data.read import read_data
from edgekd.distill.engine import Engine
from edgekd.inputs.gather import prepare
from edgekd.models.teacher import load_teacher
from edgekd.settings.profile import parse
from edgekd.reading import read_yaml
from edgekd.session import Session
from edgekd.store import Store
from tests.distill.test_elastic import elastic_run
loop._CHECKPOINT_SECONDS, loop._SAVING_SHARE = 0.0, 1e9
teacher, data, store, profile, slow = sys.argv[1:]
step = loop._Run._step
def slower(self):
    step(self)
    print(self.state.step, flush=True)
    time.sleep(float(slow))
loop._Run._step = slower
session = Session(Store(Path(store)), Engine.detect(threads=1))
asked = parse(read_yaml(Path(profile)), "test")
inputs = prepare(session.store, session.engine, asked, load_teacher(teacher), read_data(data))
print("ready", flush=True)
print(elastic_run(session, inputs, epochs=2.0).artefact.path, flush=True)
"""


@pytest.mark.slow
def test_kill_minus_nine_and_resume_gives_the_same_bytes(tmp_path, tiny_teacher, intent_data, fast_profile):
    import yaml

    (tmp_path / "script.py").write_text(textwrap.dedent(KILLED))
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(fast_profile.model_dump(mode="json")))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}

    def start(name, slow):
        command = [
            sys.executable, str(tmp_path / "script.py"), str(tiny_teacher), str(intent_data), str(tmp_path / name),
            str(tmp_path / "profile.yaml"), str(slow),
        ]  # fmt: skip
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    killed = start("killed", 0.05)
    for line in killed.stdout:
        if line.strip().isdigit() and int(line) >= 9:
            os.kill(killed.pid, signal.SIGKILL)
            break
    killed.wait()
    assert not list((tmp_path / "killed" / "elastic").glob("*/manifest.json"))
    ends = {}
    for name in ("killed", "whole"):
        process = start(name, 0.0)
        lines = process.communicate(timeout=300)[0].split()
        assert process.returncode == 0
        first = next(int(line) for line in lines if line.isdigit())
        assert (first > 1) == (name == "killed")
        ends[name] = load_file(Path(lines[-1]) / "model.safetensors")
    assert all(torch.equal(ends["killed"][name], tensor) for name, tensor in ends["whole"].items())
