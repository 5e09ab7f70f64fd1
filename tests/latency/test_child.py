from __future__ import annotations

import gc

import numpy as np
import pytest

from edgekd.latency import child
from edgekd.settings.target import SessionSpec

from .scripted import write_graph

CPU = SessionSpec().model_dump(mode="json")


def job(path, **changes):
    return {"model": str(path), "batch_size": 2, "length": 5, "vocabulary": 50, "seed": 0} | changes


def test_feed_has_what_the_graph_takes(tmp_path):
    path = write_graph(tmp_path / "m.onnx", inputs=("input_ids", "attention_mask", "token_type_ids"))
    feed = child.graph_feed(child.open_session(str(path), CPU), job(path))
    assert {name: (value.shape, value.dtype) for name, value in feed.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), ((2, 5), np.int64)
    )
    assert feed["attention_mask"].all()
    assert not feed["token_type_ids"].any()
    assert feed["input_ids"].max() < 50


def test_feed_is_seeded(graph):
    session = child.open_session(str(graph), CPU)
    first, again, other = (child.graph_feed(session, job(graph, seed=s))["input_ids"] for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_session_options_reach_onnxruntime(graph):
    spec = SessionSpec(threads=2, graph_level="basic", spinning=False, arena=False)
    session = child.open_session(str(graph), spec.model_dump(mode="json"))
    options = session.get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1
    assert not options.enable_cpu_mem_arena
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


class Scripted:
    provider = "x"

    def __init__(self):
        self.calls = 0
        self.collecting = []

    def __call__(self):
        self.calls += 1
        self.collecting.append(gc.isenabled())


def test_garbage_is_not_collected_while_timing():
    call = Scripted()
    child.time_calls(call, 3)
    assert call.collecting == [False] * 3
    assert gc.isenabled()


def test_calls_after_the_collector_are_not_timed(monkeypatch):
    """It wears out the caches: the calls right after it belong to the lead-in."""
    call, happened = Scripted(), []
    monkeypatch.setattr(child.gc, "collect", lambda: happened.append(call.calls))
    assert len(child.time_calls(call, 3, lead_in=2).wall) == 3
    assert call.calls == 5
    assert happened == [0]


def test_the_lead_in_lasts_a_while(monkeypatch):
    """A clock of a millisecond a look: after the two calls it goes on until three have passed."""
    ticks = iter(range(0, 10**9, 1_000_000))
    monkeypatch.setattr(child.time, "perf_counter_ns", lambda: next(ticks))
    call = Scripted()
    assert child.time_calls(call, 4, lead_in=1, lead_in_ns=3_000_000).wall == [1_000_000] * 4
    assert call.calls == 4 + 3


def test_garbage_collection_comes_back_after_an_error():
    with pytest.raises(ZeroDivisionError):
        child.time_calls(lambda: 1 / 0, 3)
    assert gc.isenabled()


def test_warm_up_ends_once_it_is_steady(monkeypatch):
    """Batches of five at 10, 8, 6, 6 ms: the fourth falls no further."""
    batches = iter([10e6, 8e6, 6e6, 6e6, 1e6])
    monkeypatch.setattr(child, "time_calls", lambda _, n: child.Times([next(batches)] * n))
    assert child.warm_up(Scripted()) == 20


def test_warm_up_ends_in_time(monkeypatch):
    falling = iter(1e9 * 0.5**i for i in range(100))
    monkeypatch.setattr(child, "time_calls", lambda _, n: child.Times([next(falling)] * n))
    assert child.warm_up(Scripted(), max_ns=0) == 5


def test_errors_become_one_line_and_keep_their_class():
    class DataError(Exception):
        pass

    class Narrower(DataError):
        pass

    assert child._kind(Narrower()) == "DataError"
    assert child._kind(ValueError()) == "EdgekdError"
    assert child._kind(child.ChildError("UsageError", "x")) == "UsageError"
    assert child._one_line(ValueError("a\n  b")) == "a b"
    assert child._one_line(ValueError()) == "ValueError"
    assert len(child._one_line(ValueError("x" * 10_000))) < 600


def test_peak_memory_is_this_process():
    before = child.peak_memory_mb()
    assert before > 10
    block = np.ones(2 * 10**7)
    assert child.peak_memory_mb() >= before
    assert block.any()
