"""Plan kits: what is in them, what is read from their answer, and what is refused."""

import json
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekd.errors import UnavailableError, UsageError
from edgekd.graph.writer import WRITER_VERSION
from edgekd.latency.machine import read_machine
from edgekd.latency.measure import Measurement
from edgekd.latency.table import design, narrowed
from edgekd.latency.timer import LoadReport, RoundSample
from edgekd.progress import Progress
from edgekd.remote import kit
from edgekd.remote.pack import MEASURING, oldest_runtime
from edgekd.remote.probe import LARGEST_KIT_BYTES, STANDARD, Probe, _bounded, make_plan_kit, read_probe
from edgekd.settings.export import GraphOptions
from edgekd.settings.shape import EncoderShape, HeadShape
from edgekd.settings.target import SessionSpec
from edgekd.store import check_file

TEACHER = EncoderShape(
    vocabulary=50, positions=64, token_types=2, embedding=32, hidden=32, head_size=8, heads=(4,) * 4, ffn=(64,) * 4,
    head=HeadShape(kind="sequence", labels=3, activation="tanh"),
)  # fmt: skip


def true_ms(shape, length, precision):
    work = sum(0.05 + 0.02 * h + 0.001 * f for h, f in zip(shape.heads, shape.ffn, strict=True))
    return (0.2 + work * length / 16) * (0.5 if precision == "int8" else 1.0)


def device(path, lengths=(16, 32), teacher=TEACHER, **changes):
    """A device.json whose latencies follow a formula; its tail is 1.5."""
    graphs = []
    for precision in ("fp32", "int8"):
        for shape in design(teacher, 32):
            for length in lengths:
                ms = true_ms(shape, length, precision)
                calls = (ms,) * 9 + (1.5 * ms,)
                rounds = (RoundSample(0, 0.0, calls, calls),) * 4
                found = Measurement("0", rounds, (LoadReport(0, "CPUExecutionProvider", 1.0, 1.0, 9.0),))
                graphs.append(
                    {"teacher": 0, "shape": shape.model_dump(mode="json"), "precision": precision, "length": length,
                     "median_ms": ms, "measurement": found.to_json()}
                )  # fmt: skip
    content = {
        "schema_version": 1, "kind": "device", "edgekd": "0.1.0", "writer": WRITER_VERSION,
        "machine": read_machine().to_json(), "fingerprint": "f" * 16, "instruction_set": "arm64", "versions": {},
        "session": SessionSpec(threads=3).model_dump(mode="json"), "batch_size": 1,
        "graph_options": GraphOptions().model_dump(mode="json"), "teachers": [teacher.model_dump(mode="json")],
        "text_work_ms": 1.0, "clock": "service", "graphs": graphs, "finished": "2026-01-01T00:00:00+00:00",
    } | changes  # fmt: skip
    kit.write_sealed(path, content)
    return path


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    return read_probe(device(tmp_path_factory.mktemp("device") / "device.json"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A kit for the tiny teacher, unpacked."""
    folder = tmp_path_factory.mktemp("kit")
    size = make_plan_kit(
        folder / "plan-kit.zip", [TEACHER], [[32]], ["fp32", "int8"], session=SessionSpec(), lengths=[16, 8],
        batch_size=1, options=GraphOptions(), progress=Progress(),
    )  # fmt: skip
    with zipfile.ZipFile(folder / "plan-kit.zip") as archive:
        archive.extractall(folder / "kit")
    return folder / "kit", size


def test_table_from_a_probe_predicts_its_device(probe):
    table = probe.table(TEACHER, [32], ["fp32", "int8"], 16)
    for heads, ffn in (((4, 2), (64, 16)), ((1, 1, 1), (64, 32, 8)), ((4,) * 4, (64,) * 4)):
        shape = narrowed(TEACHER, 32, heads, ffn)
        for precision in ("fp32", "int8"):
            assert table.median_ms(shape, precision) == pytest.approx(true_ms(shape, 16, precision), rel=0.02)
    assert table.length == 16
    assert table.batch_size == 1


def test_a_teacher_that_reads_every_token_pays_for_its_whole_last_layer(probe):
    """The kit's graphs compute one token there: the others' price is known from the layers below."""
    reads_all = TEACHER.model_copy(update={"head": HeadShape(kind="token", labels=3)})
    one, every = (probe.table(teacher, [32], ["fp32"], 16).costs[0] for teacher in (TEACHER, reads_all))
    assert one.last is not None
    assert every.last is None
    layers = [4] * 4, [64] * 4
    # A layer's price is known up to its constant, which the kit's last layers have left in `fixed`.
    assert every.whole_ms(*layers) == pytest.approx(true_ms(reads_all, 16, "fp32") + 0.05, rel=0.02)


def test_a_probe_of_every_token_does_not_know_what_one_costs(tmp_path):
    reads_all = TEACHER.model_copy(update={"head": HeadShape(kind="token", labels=3)})
    probe = read_probe(device(tmp_path / "device.json", teacher=reads_all))
    probe.table(reads_all, [32], ["fp32"], 16)
    with pytest.raises(UsageError, match="reads every token, and this one reads the first alone: make a kit"):
        probe.table(TEACHER, [32], ["fp32"], 16)


def test_between_two_lengths_a_straight_line(probe):
    table = probe.table(TEACHER, [32], ["fp32"], 24)
    assert table.median_ms(TEACHER, "fp32") == pytest.approx(true_ms(TEACHER, 24, "fp32"), rel=0.02)


def test_tail_is_that_of_the_samples(probe):
    assert probe.tail(95) == pytest.approx(1.5)
    assert probe.tail(50) == 1.0


def test_teacher_of_other_depth_shares_a_table_and_of_other_width_does_not(probe):
    deeper = TEACHER.model_copy(update={"heads": (4,) * 6, "ffn": (64,) * 6, "vocabulary": 9})
    probe.table(deeper, [32], ["fp32"], 16)
    wider = TEACHER.model_copy(update={"hidden": 64, "embedding": 64})
    with pytest.raises(UsageError, match="other shapes than this teacher's"):
        probe.table(wider, [64], ["fp32"], 16)


@pytest.mark.parametrize("length", [8, 40])
def test_length_that_was_not_measured(probe, length):
    with pytest.raises(UsageError, match=f"not {length}: ask for --max-length"):
        probe.table(TEACHER, [32], ["fp32"], length)


def test_device_edited_by_hand(tmp_path):
    path = device(tmp_path / "device.json")
    content = json.loads(path.read_text())
    content["graphs"][0]["median_ms"] *= 0.5
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="edited or damaged"):
        read_probe(path)


def test_formatting_is_no_edit(tmp_path):
    path = device(tmp_path / "device.json")
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4, sort_keys=True))
    assert read_probe(path).lengths == (16, 32)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a device file"),
        ('{"kind": "result", "schema_version": 1}', "not a device file"),
        ('{"kind": "device", "schema_version": 2}', "schema version 2"),
        ('{"kind": "device", "schema_version": 1, "median": NaN, "sha256": "x"}', "edited or damaged"),
    ],
)
def test_what_is_no_device(tmp_path, text, said):
    (tmp_path / "device.json").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_probe(tmp_path / "device.json")


def test_missing_device(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_probe(tmp_path / "device.json")


def test_whole_file_of_nonsense(tmp_path):
    with pytest.raises(UsageError, match="text_work_ms"):
        read_probe(device(tmp_path / "device.json", text_work_ms=-1.0))


def test_kit_is_whole_and_light(made):
    folder, size = made
    content = kit.open_kit(folder, "plan-kit")
    assert size < 1_500_000
    assert content["lengths"] == [8, 16]
    assert {"probe.py", "README.md", "edgekd/latency/child.py"} <= set(content["files"])
    assert {g["precision"] for g in content["graphs"]} == {"fp32", "int8"}


def test_graphs_run_on_the_weights_that_the_device_makes(made, tmp_path):
    folder, _ = made
    content = kit.open_kit(folder, "plan-kit")
    kit.write_weights(tmp_path, content["weights"])
    assert {p.name: p.stat().st_size for p in tmp_path.iterdir()} == content["weights"]
    for graph in content["graphs"][:: len(content["graphs"]) // 4]:
        path = tmp_path / Path(graph["file"]).name
        path.write_bytes((folder / graph["file"]).read_bytes())
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        ids = np.random.default_rng(0).integers(1, content["vocabulary"], size=(2, 8))
        (logits,) = session.run(
            None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        )
        assert np.isfinite(logits).all()
        assert np.ptp(logits) > 0


def test_no_weight_is_used_twice_in_a_graph(made):
    """Two layers in the same bytes would share the cache, and look faster than a model is."""
    folder, _ = made
    for path in (folder / "graphs").iterdir():
        spans = []
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            where = {entry.key: entry.value for entry in tensor.external_data}
            if where:
                start = int(where["offset"])
                spans.append((where["location"], start, start + int(where["length"])))
        spans.sort()
        assert spans
        assert all(a[0] != b[0] or a[2] <= b[1] for a, b in pairwise(spans))


def test_code_in_the_kit_is_the_products_own(made):
    folder, _ = made
    package = Path(kit.__file__).parents[1]
    for name in MEASURING:
        assert (folder / "edgekd" / name).read_bytes() == (package / name).read_bytes()


def test_same_kit_same_bytes(made, tmp_path):
    again = tmp_path / "plan-kit.zip"
    make_plan_kit(
        again, [TEACHER], [[32]], ["fp32", "int8"], session=SessionSpec(), lengths=[16, 8], batch_size=1,
        options=GraphOptions(), progress=Progress(),
    )  # fmt: skip
    assert again.read_bytes() == (made[0].parent / "plan-kit.zip").read_bytes()


def test_probe_finds_out_first_that_it_cannot_write(made):
    """Before it measures: nothing but the error is said."""
    command = [sys.executable, "probe.py", "--out", "none/device.json"]
    done = subprocess.run(command, cwd=made[0], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: none/device.json: there is no folder none")
    assert done.stderr.count("\n") == 1


def test_file_that_cannot_be_written(tmp_path, monkeypatch):
    check_file(tmp_path / "new.json")
    (tmp_path / "file").write_text("mine")
    check_file(tmp_path / "file")
    with pytest.raises(UsageError, match=r"is a folder: name a file"):
        check_file(tmp_path)
    for path in (tmp_path / "none" / "new.json", tmp_path / "file" / "new.json"):
        with pytest.raises(UsageError, match=r"new\.json: there is no folder"):
            check_file(path)
    # Nothing is protected from root, whom tests may run as.
    monkeypatch.setattr("os.access", lambda path, _: path != tmp_path / "file")
    with pytest.raises(UsageError, match="file is write-protected"):
        check_file(tmp_path / "file")
    monkeypatch.setattr("os.access", lambda path, _: path != tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder .* that can be written to"):
        check_file(tmp_path / "new.json")


def test_length_beyond_the_teacher(tmp_path):
    with pytest.raises(UsageError, match="--length 65"):
        make_plan_kit(
            tmp_path / "k.zip", [TEACHER], [[32]], ["fp32"], session=SessionSpec(), lengths=[65], batch_size=1,
            options=GraphOptions(), progress=Progress(),
        )  # fmt: skip


def test_no_graph_is_too_large_for_a_small_board():
    large = STANDARD[0].model_copy(update={"hidden": 1024, "embedding": 1024, "heads": (16,) * 24, "ffn": (4096,) * 24})
    for shape in design(large, 1024):
        assert 4 * _bounded(shape).encoder_parameters() <= 200_000_000
    assert max(_bounded(shape).depth for shape in design(large, 1024)) > 1


@pytest.mark.slow
def test_kit_for_any_teacher_is_within_its_size(tmp_path):
    size = make_plan_kit(
        tmp_path / "k.zip", STANDARD, [[768, 576, 384], [384, 288, 192]], ["fp32", "int8"], session=SessionSpec(),
        lengths=[16, 128], batch_size=1, options=GraphOptions(), progress=Progress(),
    )  # fmt: skip
    assert size < LARGEST_KIT_BYTES / 4


def test_changed_file_and_missing_file(made, tmp_path):
    folder = tmp_path / "kit"
    (folder / "graphs").mkdir(parents=True)
    content = json.loads((made[0] / kit.KIT).read_text())
    for name in content["files"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((made[0] / name).read_bytes())
    (folder / kit.KIT).write_bytes((made[0] / kit.KIT).read_bytes())
    (folder / "graphs" / "0.onnx").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"0\.onnx: does not match"):
        kit.open_kit(folder, "plan-kit")
    (folder / "graphs" / "0.onnx").unlink()
    with pytest.raises(UsageError, match=r"0\.onnx: missing"):
        kit.open_kit(folder, "plan-kit")


@pytest.mark.parametrize(("version", "fine"), [("1.11.1", False), ("1.12.0", True), ("1.31.1", True), ("2.0.0", True)])
def test_onnxruntime_that_is_too_old(monkeypatch, version, fine):
    monkeypatch.setattr(onnxruntime, "__version__", version)
    if fine:
        kit.check_runtime("1.12", 17)
    else:
        with pytest.raises(UnavailableError, match=r"onnxruntime 1\.11\.1 is too old .*opset 17 needs 1\.12"):
            kit.check_runtime("1.12", 17)


def test_oldest_runtime_is_the_later_of_opset_and_format():
    assert oldest_runtime(17, 8) == "1.12"
    assert oldest_runtime(17, 10) == "1.18"
    assert oldest_runtime(21, 8) == "1.18"
    assert oldest_runtime(22, 8) == "1.20"


def test_work_on_strings_takes_time():
    assert 0 < kit.text_work_ms(repeats=20) < 100


def test_probe_without_graphs_is_none(tmp_path):
    with pytest.raises(UsageError, match="graphs"):
        read_probe(device(tmp_path / "device.json", graphs=[]))
    assert isinstance(read_probe(device(tmp_path / "device.json")), Probe)
