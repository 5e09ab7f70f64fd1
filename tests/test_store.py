import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

import edgekd.store
from edgekd.errors import UsageError
from edgekd.store import Store, canonical, check_file, own_temporary_folder


def test_same_key_is_built_once(tmp_path):
    store, calls = Store(tmp_path), []

    def build(work):
        calls.append(work)
        (work / "a.txt").write_text("a")
        return {"n": 1}

    first = store.make("stage", 1, {"b": 2, "a": 1}, build)
    second = store.make("stage", 1, {"a": 1, "b": 2}, build)
    assert len(calls) == 1
    assert (first.id, first.path, first.result, first.reused) == (second.id, second.path, {"n": 1}, False)
    assert second.reused
    assert (second.path / "a.txt").read_text() == "a"


@pytest.mark.parametrize(("version", "key"), [(2, {"a": 1}), (1, {"a": 2})])
def test_another_version_or_key_is_another_artefact(tmp_path, version, key):
    store = Store(tmp_path)
    assert store.make("s", 1, {"a": 1}, lambda w: None).id != store.make("s", version, key, lambda w: None).id


def test_failure_is_not_stored_and_its_work_is_handed_back(tmp_path):
    store = Store(tmp_path)

    def fail(work):
        (work / "half").write_text("1")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.make("s", 1, {}, fail)
    made = store.make("s", 1, {}, lambda work: {"found": (work / "half").read_text()})
    assert made.result == {"found": "1"}


def test_damaged_artefact_is_made_again(tmp_path):
    store = Store(tmp_path)
    made = store.make("s", 1, {}, lambda work: (work / "x").write_text("whole") and None)
    (made.path / "x").write_text("cut")
    edgekd.store._CHECKED.clear()
    again = store.make("s", 1, {}, lambda work: (work / "x").write_text("whole") and None)
    assert not again.reused
    assert (again.path / "x").read_text() == "whole"


def test_half_written_manifest_counts_as_unfinished(tmp_path):
    store = Store(tmp_path)
    made = store.make("s", 1, {}, lambda work: None)
    manifest = made.path / "manifest.json"
    manifest.write_text(manifest.read_text()[:20])
    assert not store.make("s", 1, {}, lambda work: None).reused


@pytest.mark.parametrize("fails", [False, True])
def test_the_second_of_two_waits_for_the_first_and_uses_it(tmp_path, fails, caplog):
    store, inside, leave = Store(tmp_path), threading.Event(), threading.Event()
    made, calls = [], []

    def build(work):
        calls.append(work)
        if len(calls) == 1:
            inside.set()
            leave.wait(10)
            if fails:
                raise RuntimeError("the first died")

    def first():
        with contextlib.suppress(RuntimeError):
            made.append(store.make("s", 1, {}, build))

    threads = [threading.Thread(target=first)]
    threads[0].start()
    inside.wait(10)
    threads.append(threading.Thread(target=lambda: made.append(store.make("s", 1, {}, build))))
    threads[1].start()
    while "waiting for it" not in caplog.text:
        time.sleep(0.01)
    leave.set()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 + fails
    assert [artefact.reused for artefact in made] == ([False] if fails else [False, True])


@pytest.mark.parametrize("how", ["same size", "gone"])
def test_changed_bytes_are_set_aside_and_made_again(tmp_path, how, caplog):
    store = Store(tmp_path)
    made = store.make("s", 1, {}, lambda work: (work / "x").write_text("whole") and None)
    (made.path / "x").write_text("whore") if how == "same size" else (made.path / "x").unlink()
    assert store.verify() == (0, [made.path])
    edgekd.store._CHECKED.clear()  # as in the next process
    again = store.make("s", 1, {}, lambda work: (work / "x").write_text("whole") and None)
    assert not again.reused
    assert (again.path / "x").read_text() == "whole"
    assert caplog.text.count("is damaged, and is made again") >= 1
    assert made.path.with_suffix(".damaged0").is_dir()
    assert store.verify() == (1, [])


@pytest.mark.parametrize("tagged", [False, True])
def test_what_is_not_ours_is_not_touched(tmp_path, tagged):
    photos = tmp_path / "photos" / "2020"
    photos.mkdir(parents=True)
    (photos / "a.jpg").write_bytes(b"x")
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / ("a" * 24)).symlink_to(photos)
    (tmp_path / "linked").symlink_to(photos.parent)
    store = Store(tmp_path)
    if tagged:
        store.make("s", 1, {}, lambda work: None)
        assert [stage for stage, _, _ in store.entries()] == ["s"]
        store.clear()
        assert store.entries() == []
    else:
        for ask in (store.entries, store.clear, store.verify):
            with pytest.raises(UsageError, match=r"is no store of edgekd's: it has no CACHEDIR\.TAG"):
                ask()
    assert (photos / "a.jpg").read_bytes() == b"x"


def test_a_store_that_is_not_there_is_empty(tmp_path):
    assert Store(tmp_path / "none").entries() == []
    assert Store(tmp_path).clear() == 0


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file, and no store"):
        Store(tmp_path / "file").clear()


def test_a_pipe_that_nobody_reads_is_no_place_for_a_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="a pipe that nobody reads"):
        check_file(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_file(pipe)
    os.close(reader)


def test_clear_frees_and_counts(tmp_path):
    store = Store(tmp_path)
    store.make("s", 1, {}, lambda work: (work / "x").write_bytes(b"0" * 1000) and None)
    assert [stage for stage, _, _ in store.entries()] == ["s"]
    assert store.clear() >= 1000
    assert store.entries() == []
    assert not any((tmp_path / "s").iterdir())


def test_canonical_json_refuses_nan():
    assert canonical({"b": 1, "a": [1, "é"]}) == '{"a":[1,"é"],"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": float("nan")})


def test_manifest_says_what_decided_the_result(tmp_path):
    made = Store(tmp_path).make("s", 3, {"seed": 1}, lambda work: {"n": 2})
    manifest = json.loads((made.path / "manifest.json").read_text())
    assert (manifest["stage"], manifest["version"], manifest["key"]) == ("s", 3, {"seed": 1})


def test_temporary_files_of_a_killed_run_go_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    begin = (
        "import os, sys, tempfile; from edgekd.store import own_temporary_folder\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "with own_temporary_folder():\n    open(tempfile.mkdtemp() + '/x', 'w').write('left')\n    os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", begin], check=False)
    (left,) = tmp_path.iterdir()
    (tmp_path / "edgekd-mine").mkdir()
    # It may have only just begun: it has no lock yet.
    (tmp_path / "edgekd-run-young").mkdir()
    with own_temporary_folder():
        assert not left.exists()
        assert (tmp_path / "edgekd-run-young").is_dir()
        (own,) = (path for path in tmp_path.glob("edgekd-run-*") if path.name != "edgekd-run-young")
        assert Path(tempfile.mkdtemp()).parent == own
    os.utime(tmp_path / "edgekd-run-young", (0, 0))
    with own_temporary_folder():
        (live,) = tmp_path.glob("edgekd-run-*")
        os.utime(live, (0, 0))
        with own_temporary_folder():
            assert live.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["edgekd-mine"]


def test_a_flip_in_the_manifest_itself_is_noticed(tmp_path, monkeypatch):
    store = Store(tmp_path)
    made = store.make("s", 1, {}, lambda work: {"ms": 83})
    monkeypatch.setattr(edgekd.store, "_CHECKED", set())
    file = made.path / "manifest.json"
    file.write_text(file.read_text().replace("83", "93"))
    assert store.verify() == (0, [made.path])
    again = store.make("s", 1, {}, lambda work: {"ms": 83})
    assert again.result == {"ms": 83}
    assert not again.reused


def test_what_somebody_else_put_there_stays(tmp_path):
    def build(work):
        (work / "sub").mkdir()
        (work / "sub" / "x").write_text("x")

    store = Store(tmp_path / "store")
    made = store.make("s", 1, {}, build)
    (made.path / "notes.txt").write_text("mine")
    store.clear()
    assert [path.name for path in made.path.iterdir()] == ["notes.txt"]


def test_another_programs_tag_makes_no_store(tmp_path):
    (tmp_path / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# another's\n")
    folder = tmp_path / "objs" / ("a" * 24)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("v")
    with pytest.raises(UsageError, match="is no store of edgekd's"):
        Store(tmp_path).clear()
    assert folder.is_dir()


def test_a_folder_that_only_has_such_a_name_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, files in (("edgekd-run-mine", ["a"]), ("edgekd-run-locked", ["lock", "a"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    with own_temporary_folder():
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edgekd-run-locked", "edgekd-run-mine"]
