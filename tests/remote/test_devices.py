"""Devices by name: added, found, listed, and never cleared away."""

import pytest

from edgekd.errors import UnavailableError, UsageError
from edgekd.latency.targets.build import build_target
from edgekd.plan.device import Device
from edgekd.profiles import available, load_profile
from edgekd.remote.devices import add_device, check_probe, find_probe
from edgekd.settings.profile import override
from edgekd.store import Store
from tests.remote.test_probe import device


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


@pytest.fixture
def box(store, tmp_path):
    return add_device(store, device(tmp_path / "device.json"), "box")


def test_added_device_is_a_profile(store, box):
    assert load_profile("box", store) == box
    assert (box.target.device, box.target.threads, box.target.instruction_set) == ("box", 3, "arm64")
    assert box.target.precisions == ("fp32", "int8")
    assert box.workload.max_length == "auto"
    assert "3 threads" in box.description
    assert "box" in available(store)


def test_device_of_one_length_is_planned_at_it(store, tmp_path):
    assert add_device(store, device(tmp_path / "d.json", lengths=(32,)), "box").workload.max_length == 32


def test_device_finds_its_probe(store, box):
    found = Device.of(build_target(box.target), store)
    assert found.probe is not None
    assert (found.fingerprint, found.instruction_set) == ("f" * 16, "arm64")


def test_device_without_a_probe_is_refused_as_before(store):
    with pytest.raises(UnavailableError, match="edgekd probe make"):
        Device.of(build_target(load_profile("raspberry-pi-5", store).target), store)


def test_shipped_profile_of_an_elsewhere_device_may_be_given_its_probe(store, tmp_path):
    made = add_device(store, device(tmp_path / "d.json"), "raspberry-pi-5")
    assert load_profile("raspberry-pi-5", store) == made
    assert load_profile("raspberry-pi-5", Store(tmp_path / "other")).target.threads == 1


@pytest.mark.parametrize("name", ["cpu", "local", "../up", "a b", ".hidden", "x" * 65])
def test_names_that_no_device_may_have(store, tmp_path, name):
    with pytest.raises(UsageError, match="--name"):
        add_device(store, device(tmp_path / "d.json"), name)
    assert store.device_names() == []


def test_device_without_a_name_gets_one(store, tmp_path):
    made = add_device(store, device(tmp_path / "d.json"))
    assert made.name.endswith("-3t")
    assert store.device_names() == [made.name]


def test_adding_again_replaces(store, box, tmp_path):
    add_device(store, device(tmp_path / "d.json", fingerprint="e" * 16), "box")
    assert find_probe(store, "box").fingerprint == "e" * 16


def test_clearing_the_cache_keeps_devices(store, box):
    assert store.entries() == []
    store.clear()
    assert find_probe(store, "box") is not None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target.threads": 1}, "--threads 1: the probe of box measured 3"),
        ({"workload.batch_size": 2}, "--batch-size 2: the probe of box measured 1"),
        ({"export.opset": 20}, "other graphs"),
    ],
)
def test_what_the_probe_did_not_measure(store, box, changes, said):
    with pytest.raises(UsageError, match=said):
        check_probe(find_probe(store, "box"), override(box, changes), ("fp32",))


def test_precision_that_the_probe_did_not_measure(store, box):
    with pytest.raises(UsageError, match="--precision fp16"):
        check_probe(find_probe(store, "box"), box, ("fp16",))


def test_probe_of_another_writer(store, tmp_path):
    box = add_device(store, device(tmp_path / "d.json", writer=0), "box")
    with pytest.raises(UsageError, match="older edgekd"):
        check_probe(find_probe(store, "box"), box, ("fp32",))
