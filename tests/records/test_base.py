from pathlib import Path

import pytest

from edgekd.errors import UsageError
from edgekd.records.base import record_of
from edgekd.records.labels import ClassNoise
from edgekd.store import Artefact


def test_what_another_version_stored_is_told_in_a_line():
    entry = Artefact("stage-1", Path("store/stage/1"), {"label": "a", "given": 3}, 1.0, reused=True)
    with pytest.raises(UsageError, match="store/stage/1 is of another version of edgekd: delete it"):
        record_of(entry, ClassNoise)
    known = {"label": "a", "said": 3, "wrong": 0.5}
    assert record_of(Artefact("stage-1", Path("x"), known, 1.0, reused=True), ClassNoise).said == 3
