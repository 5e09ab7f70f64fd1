"""A target for tests: latency by a formula on the ONNX file's weights. Nothing is run, nothing sleeps."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from edgekd.errors import UsageError, require
from edgekd.latency.targets.base import check_local
from edgekd.latency.timer import BundleJob, Job, LoadReport, RoundSample
from edgekd.settings.target import Clock, FakeTarget, SessionSpec

if TYPE_CHECKING:
    from onnx import GraphProto

_THROUGH = ("DequantizeLinear", "Transpose", "Cast", "Identity")


class FakeTargetRuntime:
    """`Target` of a `FakeTarget`."""

    def __init__(self, spec: FakeTarget) -> None:
        self.spec = spec

    @property
    def clock(self) -> Clock:
        """See `Target.clock`: both read the same here."""
        return "response" if self.spec.clock == "response" else "service"

    def check(self) -> None:
        """See `Target.check`."""
        check_local(self.spec.device)

    def session_spec(self) -> SessionSpec:
        """See `Target.session_spec`."""
        return SessionSpec(threads=self.spec.threads)

    def session_variants(self) -> tuple[SessionSpec, ...]:
        """See `Target.session_variants`."""
        return (self.session_spec(),)

    def usual_speed(self) -> None:
        """See `Target.usual_speed`."""

    def timer(self, jobs: Sequence[Job], processes: int = 1) -> FakeTimer:
        """See `Target.timer`."""
        self.check()
        return FakeTimer(self.spec, jobs, processes)


class FakeTimer:
    """`Timer` whose samples are log-normal about the formula's latency; the same calls, the same samples."""

    def __init__(self, spec: FakeTarget, jobs: Sequence[Job], processes: int = 1) -> None:
        self._spec = spec
        self._jobs = {job.name: job for job in jobs}
        self._processes = processes
        self._turns = dict.fromkeys(self._jobs, 0)
        self._costs = {job.name: _job_ms(job, spec) for job in jobs}
        self._generators = {job.name: np.random.default_rng(zlib.crc32(job.name.encode())) for job in jobs}

    def round(self, job: str, calls: int) -> RoundSample:
        """See `Timer.round`."""
        turn = self._turns[job]
        self._turns[job] += 1
        costs = self._costs[job]
        spread = np.exp(self._spec.noise * self._generators[job].standard_normal(calls))
        total = tuple(float(costs[(turn * calls + i) % len(costs)] * spread[i]) for i in range(calls))
        parts = tuple((0.0, ms, 0.0) for ms in total) if isinstance(self._jobs[job], BundleJob) else ()
        # As if each round took a second: what is measured for so long ends soon.
        return RoundSample(turn % self._processes, float(turn), total, total, parts)

    def load_reports(self, job: str) -> tuple[LoadReport, ...]:
        """See `Timer.load_reports`."""
        first = self._costs[job][0]
        loaded = range(min(self._processes, self._turns[job]))
        return tuple(LoadReport(process, "FakeExecutionProvider", 1.0, first, 1.0) for process in loaded)

    def close(self) -> None:
        """Nothing to end."""

    def __enter__(self) -> FakeTimer:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to end."""


def token_cost(model: Path, int8_gain: float) -> float:
    """FLOPs of one token through every product with a stored weight; those of INT8 weights over `int8_gain`.

    Args:
        model: The ONNX file; weights outside it are not read, their shapes are inside.
        int8_gain: How many times faster INT8 counts.

    Raises:
        UsageError: There is no such file.
    """
    onnx = require("onnx", "cpu", "read the graph that a fake target pretends to run")
    if not model.is_file():
        raise UsageError(f"{model}: no such file")
    graph: GraphProto = onnx.load(str(model), load_external_data=False).graph
    integers = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    total = 0.0
    for node in graph.node:
        if node.op_type in _THROUGH and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
        elif any(kind in node.op_type for kind in ("MatMul", "Gemm", "Attention")):
            for tensor in (weights[name] for name in node.input if name in weights):
                if len(tensor.dims) == 2:
                    gain = int8_gain if tensor.data_type in integers else 1.0
                    total += 2.0 * tensor.dims[0] * tensor.dims[1] / gain
    return total


def _job_ms(job: Job, spec: FakeTarget) -> list[float]:
    """Milliseconds of a call: one entry, or one for each call of a bundle's cycle. Never zero: no duration is."""
    if isinstance(job, BundleJob):
        cost = token_cost(job.bundle / "model.onnx", spec.int8_gain)
        counts, batch = _token_counts(job), job.batch_size
        # A batch is padded to its longest text.
        starts = range(0, len(counts) * batch, batch)
        tokens = [batch * max(counts[(start + i) % len(counts)] for i in range(batch)) for start in starts]
    else:
        cost = token_cost(job.model, spec.int8_gain) / spec.bias
        tokens = [job.batch_size * job.length]
    return [max(1e-6, cost * count / (spec.gflops * 1e6)) for count in tokens]


def _token_counts(job: BundleJob) -> list[int]:
    """Tokens of each text, or pair, by the bundle's tokenizer; without one, its words and two special tokens."""
    path = job.bundle / "tokenizer.json"
    pairs = [(text, None) if isinstance(text, str) else text for text in job.texts]
    if not path.is_file():
        return [len(f"{first} {second or ''}".split()) + 2 for first, second in pairs]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return [len(tokenizer.encode(first, second).ids) for first, second in pairs]
