"""Two results: a rich one with every section, and the least there can be."""

import hashlib
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from edgekd.records.export import Exported, Parity, Quantisation
from edgekd.records.plan import Candidate, Plan
from edgekd.records.result import (
    Criterion,
    DataSummary,
    Latency,
    Percentile,
    QualityRow,
    Result,
    Speedup,
    TeacherSummary,
    Timing,
    Try,
    thin,
)
from edgekd.records.training import Curve, Point
from edgekd.settings.shape import EncoderShape, HeadShape

START = datetime(2026, 3, 14, 9, 26, 5, tzinfo=UTC)
EVIL = '<script>alert("x")</script> & $\\alpha$ | `tick`'


def timing(texts, median, spread, seed):
    rng = np.random.default_rng(seed)
    samples = median + rng.gamma(2.0, spread, 1600) - spread
    samples[:12] += 20 * spread
    values = {q: float(np.percentile(samples, q, method="inverted_cdf")) for q in (50, 95, 99)}
    return Timing(
        texts=texts,
        calls=1600,
        percentiles=tuple(
            Percentile(
                q=q, value_ms=v, interval=(v - 0.4 * spread, v + 0.5 * spread), service_ms=1.05 * v, response_ms=1.1 * v
            )
            for q, v in values.items()
        ),
        parts={"tokenise": 0.21, "model": median - 0.3, "postprocess": 0.05},
        load_ms=142.0,
        first_call_ms=31.5,
        peak_memory_mb=118.4,
        clock="service",
        waited_share=0.04,
        slowdown=1.05,
        samples_ms=thin(samples.tolist()),
    )


def candidates():
    found = []
    for depth in (1, 2, 3, 4, 6):
        for width, share in ((384, 1.0), (288, 0.86), (192, 0.66)):
            for precision, speed in (("fp32", 6.4), ("int8", 3.2)):
                predicted = 0.5 + depth * speed * (width / 384) ** 1.4
                kept = min(1.0, share * (1 - 0.75 ** (1.7 * depth)) * 1.04)
                found.append((predicted, kept, depth, width, precision))
    fitting = [f for f in found if f[0] <= 10 * 0.93]
    best = max(fitting, key=lambda f: f[1])
    measured = sorted(fitting, key=lambda f: -f[1])[:4]
    return found.index(best), tuple(
        Candidate(
            kind="student",
            shape=EncoderShape(
                vocabulary=1000, positions=128, token_types=2, embedding=width, hidden=width, head_size=32,
                heads=(width // 32,) * depth, ffn=(4 * width,) * depth, head=HeadShape(kind="sequence", labels=24),
            ),
            choice=None,
            precision=precision,
            predicted_ms=predicted,
            measured_ms=predicted * 1.06 if f in measured else None,
            kept=kept,
            fits=f in fitting,
            note="finalist" if f in measured else "",
        )
        for f in found
        for predicted, kept, depth, width, precision in (f,)
    )  # fmt: skip


def plan():
    chosen, considered = candidates()
    return Plan(
        budget_ms=10, percentile=95, limit_ms=9.3, max_length=128, batch_size=1, overhead_ms=0.3, tail=1.05,
        candidates=considered, chosen=chosen, reason="keeps most",
    )  # fmt: skip


def curve(name, epochs, best, loss):
    return Curve(
        name=name,
        points=tuple(
            Point(epoch=e, loss=loss * 0.62**e + 0.05, score=best - 0.25 * 0.45**e, seconds=14.0 * e)
            for e in range(1, epochs + 1)
        ),
    )


def quality(fixed):
    p50, p95 = fixed.at(50).value_ms, fixed.at(95).value_ms
    rows = (
        ("teacher", 0.956, 41.2, 43.9, 90.4),
        ("teacher, INT8", 0.952, 21.4, 22.8, 23.1),
        ("student INT8", 0.951, p50, p95, 17.2),
        ("student FP32", 0.9515, 16.9, 17.8, 66.5),
        ("student, fine-tuned without distillation", 0.936, None, None, 17.2),
        ("student after slicing, untrained", 0.761, None, None, 17.2),
        ("TF-IDF + logistic regression", 0.861, 0.42, 0.55, 4.1),
    )
    return tuple(
        QualityRow(
            name=name,
            score=score,
            interval=(score - 0.011, min(1.0, score + 0.009)),
            p50_ms=a,
            p95_ms=b,
            size_mb=size,
            shipped=name == "student INT8",
        )
        for name, score, a, b, size in rows
    )


def criteria(fixed):
    found = fixed.at(95)
    return (
        Criterion(
            name="latency p95",
            limit=10,
            unit="ms",
            value=found.value_ms,
            interval=found.interval,
            outcome="met",
            explanation="The whole interval lies within the budget.",
        ),
        Criterion(
            name="quality retained",
            limit=0.97,
            bound="at least",
            unit="share",
            value=0.9948,
            interval=(0.9887, 1.0009),
            outcome="met",
            explanation="Paired bootstrap over 4,500 test rows against the teacher.",
        ),
        Criterion(
            name="quantisation drop",
            limit=0.5,
            unit="points",
            value=0.07,
            outcome="met",
            explanation="INT8 against FP32 on validation.",
        ),
    )


MACHINE = {
    "cpu_model": "AMD EPYC 7B13",
    "architecture": "x86_64",
    "instruction_sets": ["avx2"],
    "physical_cores": 1,
    "logical_cores": 2,
    "cpu_quota": 2.0,
    "governor": None,
    "memory_mb": 16033.5,
    "container": ["docker"],
    "gpu": None,
    "load_average": 0.31,
}
VERSIONS = {
    "edgekd": "0.1.0",
    "onnxruntime": "1.31.1",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "python": "3.11.9",
}


def make_sample():
    fixed, replay = timing("128 tokens", 8.35, 0.14, 0), timing("2,000 real texts", 2.6, 0.5, 1)
    names = ("model.onnx", "onnx/model.onnx", "onnx/model_quantized.onnx", "config.json", "tokenizer.json")
    return Result(
        name="voice-assistant",
        demo=True,
        request={
            "profile": {
                "name": "cpu",
                "budget": {"latency_ms": 10.0, "percentile": 95},
                "target": {"kind": "onnxruntime-cpu", "threads": 1},
            },
            "teacher": EVIL,
            "data": "./data",
        },
        budget_ms=10,
        data=DataSummary(
            name="demo",
            task="text-classification",
            metric="accuracy",
            labels=24,
            rows={"train": 4800, "validation": 600, "test": 900, "unlabeled": 10000},
            notes=(f"Label {EVIL} has only 12 rows.", "validation was missing: made from 10% of train, seed 0"),
        ),
        teacher=TeacherSummary(
            name="my-<b>bert</b>",
            family="bert",
            shape="6 layers x 384, heads 12, FFN 1536",
            parameters=22_713_216,
            validation=0.958,
            test=0.956,
        ),
        plan=plan(),
        training=(
            curve("teacher", 6, 0.958, 2.9),
            curve("distilled student", 10, 0.954, 2.1),
            curve("no distillation", 10, 0.938, 2.4),
        ),
        quality=quality(fixed),
        latency=Latency(judge="fixed", fixed=fixed, replay=replay),
        speedup=Speedup(value=4.93, interval=(4.8, 5.1)),
        export=Exported(
            parity=Parity(max_abs_gap=3.1e-6, label_agreement=1.0, rows=512),
            quantisation=Quantisation(kept=True, drop_points=0.07, limit_points=0.5, reason="within the limit"),
        ),
        criteria=criteria(fixed),
        tries=(
            Try(what="3 layers x 384, INT8", predicted_ms=9.2, measured_ms=10.9, action="table corrected by 1.18"),
            Try(what="4 layers x 288, INT8", predicted_ms=9.06, measured_ms=fixed.at(95).value_ms, action="accepted"),
        ),
        machine=MACHINE,
        versions=VERSIONS,
        files={name: hashlib.sha256(name.encode()).hexdigest() for name in names},
        timings={"teach": 92.4, "plan": 31.0, "label": 12.2, "distill": 204.9, "export": 3.2, "validate": 41.7},
        started=START,
        finished=START + timedelta(minutes=6, seconds=48),
    )


@pytest.fixture(scope="session")
def sample():
    """Every section filled."""
    return make_sample()


@pytest.fixture(scope="session")
def minimal():
    """Only what a result cannot do without."""
    return Result(
        name="bare",
        budget_ms=5,
        data=DataSummary(task="token-classification", metric="span F1", labels=9, rows={"train": 10}),
        teacher=TeacherSummary(name="t", family="roberta", shape="2 layers", parameters=1234),
        started=START,
        finished=START,
    )
