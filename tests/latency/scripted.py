"""Tiny graphs, and a timer whose samples and disturbances are scripted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model
from scipy.signal import lfilter

from edgekd.latency.timer import LoadReport, RoundSample
from edgekd.settings.target import FakeTarget, SessionSpec


def write_graph(path: Path, width: int = 16, vocabulary: int = 50, inputs=("input_ids", "attention_mask")) -> Path:
    """Embedding, mask and one product: the least graph with an encoder's inputs."""
    rng = np.random.default_rng(0)
    weights = {
        "embedding": rng.standard_normal((vocabulary, width)).astype(np.float32),
        "weight": rng.standard_normal((width, 4)).astype(np.float32),
        "last": np.array([-1], dtype=np.int64),
    }
    nodes = [helper.make_node("Gather", ["embedding", "input_ids"], ["hidden"])]
    for i, name in enumerate(inputs[1:]):
        nodes += [
            helper.make_node("Cast", [name], [f"cast{i}"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", [f"cast{i}", "last"], [f"column{i}"]),
            helper.make_node("Add", ["hidden" if i == 0 else f"sum{i - 1}", f"column{i}"], [f"sum{i}"]),
        ]
    last = f"sum{len(inputs) - 2}" if len(inputs) > 1 else "hidden"
    nodes.append(helper.make_node("MatMul", [last, "weight"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save_model(model, str(path))
    return path


class ScriptedTimer:
    """An AR(1) log-normal series per process, a round a second; `state` slows calls and kernel, `waits` the wall."""

    def __init__(
        self, processes, *, rho=0.0, sigma=0.2, seed=0, state=lambda turn: 1.0, waits=lambda turn: 0.0, cpu=True
    ):
        self.processes, self.rho, self.sigma = processes, rho, sigma
        self.state_of, self.waits, self.cpu = state, waits, cpu
        self.rng = np.random.default_rng(seed)
        self.state = self.rng.standard_normal(processes)
        self.turn = 0
        self.closed = False

    def round(self, job, calls):
        process = self.turn % self.processes
        slow, waited = self.state_of(self.turn), self.waits(self.turn)
        self.turn += 1
        noise = self.rng.standard_normal(calls) * np.sqrt(1 - self.rho**2)
        series, _ = lfilter([1], [1, -self.rho], noise, zi=[self.rho * self.state[process]])
        self.state[process] = series[-1]
        cpu = slow * np.exp(self.sigma * series)
        wall = tuple((cpu * (1 + waited)).tolist())
        kernel = slow * np.exp(0.01 * self.rng.standard_normal(2))
        return RoundSample(
            process, float(self.turn), wall, tuple(cpu.tolist()) if self.cpu else (), (), *kernel.tolist()
        )

    def load_reports(self, job):
        return tuple(LoadReport(p, "Scripted", 10.0 + p, 5.0, 100.0 + p) for p in range(self.processes))

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class ScriptedTarget:
    spec = FakeTarget()
    clock = "service"

    def __init__(self, usual=None, **options):
        self.usual, self.options = usual, options
        self.timers = []

    def check(self):
        pass

    def session_spec(self):
        return SessionSpec()

    def usual_speed(self):
        return self.usual

    def timer(self, jobs, processes=1):
        self.timers.append(ScriptedTimer(processes, **self.options))
        return self.timers[-1]


def looks(states, every=2.0):
    """A speed log of these states, one look after the other."""
    return np.array([[every * i, state, state] for i, state in enumerate(states)])
