"""The speed-up is that of two bundles measured in turns."""

import shutil

from edgekd.latency.targets.build import build_target
from edgekd.progress import Progress
from edgekd.proof import speedup
from edgekd.settings.target import FakeTarget
from tests.proof.test_evidence import make_bundle


def test_a_bundle_beside_itself_is_as_fast(tmp_path, tiny_encoder, monkeypatch):
    bundle = make_bundle(tmp_path / "b", tiny_encoder)
    # What a teacher's bundle is made of is tested with the bundles; here it is the same bundle.
    monkeypatch.setattr(speedup, "write_core", lambda folder, core: shutil.copytree(core, folder))
    found = speedup.measure_speedup(bundle, ["play"], bundle, ["play"], build_target(FakeTarget()), 1, 0.1, Progress())
    assert found.interval[0] <= found.value <= found.interval[1]
    assert 0.5 < found.value < 2.0
