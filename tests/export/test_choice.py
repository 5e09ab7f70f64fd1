"""Choosing by measurement, with a target whose latencies are written down."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgekd.errors import EdgekdError, UsageError
from edgekd.export import choice
from edgekd.export.choice import GraphTarget, choose_graph
from edgekd.latency.measure import Measurement
from edgekd.latency.targets.build import build_target
from edgekd.latency.timer import RoundSample
from edgekd.progress import Progress
from edgekd.records.export import Parity
from edgekd.settings.target import FakeTarget

PLACE = GraphTarget(target=build_target(FakeTarget()), machine="m", length=16, batch_size=1)


@pytest.fixture
def chosen(monkeypatch, tmp_path):
    """`chosen({"name": ms}, prove)`: the choice among files of these latencies."""

    def choose(latencies, prove=None, spread=0.0, rounds=15):
        def compare(jobs, target, **_):
            return {
                job.name: Measurement(
                    job.name,
                    tuple(
                        RoundSample(0, float(i), (latencies[job.name] * (1 + spread * ((i * 7 + k) % 5 - 2)),) * 3)
                        for i in range(rounds)
                    ),
                    (),
                )
                for k, job in enumerate(jobs)
            }

        monkeypatch.setattr(choice, "compare", compare)
        monkeypatch.setattr(choice, "fused_nodes", lambda path: {"Gelu": 1})
        forms = {name: tmp_path / f"{name}.onnx" for name in latencies}
        return choose_graph(forms, "fp32", PLACE, 100, prove, 1e-3, Progress(), "")

    return choose


def winner(forms):
    (name,) = [form.name for form in forms if form.chosen]
    return name


def test_the_fastest(chosen):
    found = chosen({"given": 1.0, "slow": 1.2, "fast": 0.8, "faster": 0.7})
    assert winner(found) == "faster"
    tried = {form.name: form for form in found}
    assert tried["faster"].ratio == pytest.approx(0.7)
    assert tried["slow"].interval == pytest.approx((1.2, 1.2))
    assert tried["given"].fused == {"Gelu": 1}


def test_too_few_rounds_keep_the_given_and_stay_json(chosen):
    found = chosen({"given": 1.0, "fast": 0.5}, rounds=3)
    assert winner(found) == "given"
    assert found[1].interval[1] is None
    json.dumps([form.model_dump() for form in found], allow_nan=False)


def test_noise_keeps_the_given(chosen):
    assert winner(chosen({"given": 1.0, "perhaps": 0.97}, spread=0.05)) == "given"


def test_the_fastest_that_answers_the_same(chosen):
    def prove(path):
        if path.stem == "broken":
            raise EdgekdError("NaN")
        return Parity(rows=1, max_abs_gap=0.1 if path.stem == "wrong" else 1e-5, label_agreement=1.0)

    found = chosen({"given": 1.0, "broken": 0.5, "wrong": 0.6, "right": 0.8}, prove)
    assert winner(found) == "right"
    assert [form.same for form in found] == [True, False, False, True]
    assert [form.gap for form in found] == [0.0, None, 0.1, 1e-5]


def test_nothing_to_measure_elsewhere():
    with pytest.raises(UsageError, match=r"export\.choose"):
        replace(PLACE, elsewhere=True).check()
