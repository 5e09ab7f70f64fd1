"""What a run computes with."""

import pytest

from edgekd.distill.engine import Engine
from edgekd.progress import Progress
from edgekd.session import Session
from edgekd.store import Store


@pytest.mark.parametrize(
    ("asked", "threads"), [(None, 4), ("2", 2), ("9", 4), ("0", 4), ("", 4), ("4,2", 4), ("-1", 4)]
)
def test_no_more_threads_than_there_are_and_than_were_asked_for(tmp_path, monkeypatch, asked, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr("edgekd.session.usable_cpus", lambda: 4)
    monkeypatch.setattr(Engine, "detect", lambda count, progress: Engine("cpu", count, progress))
    assert Session.open(Store(tmp_path), Progress()).engine.threads == threads
