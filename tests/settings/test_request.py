import json
import shutil
from pathlib import Path

import pytest

from edgekd.bundle import claimed, publish_bundle
from edgekd.errors import UsageError
from edgekd.profiles import load_profile, load_request, save_request
from edgekd.settings.profile import override
from edgekd.settings.request import Request, is_hub_data


def request(budget=10.0):
    return Request(teacher="t", data="d", profile=override(load_profile("cpu"), {"budget.latency_ms": budget}))


def test_saved_request_is_the_same_request(tmp_path):
    save_request(request(), tmp_path / "edgekd.yaml")
    assert load_request(tmp_path / "edgekd.yaml") == request()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("profile: {name: x}\nteachr: y\n", "did you mean 'teacher'"),
        ("teacher: x\n", "profile"),
        ("[1", "not valid YAML"),
    ],
)
def test_broken_request_is_one_line(tmp_path, content, message):
    path = tmp_path / "edgekd.yaml"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        load_request(path)


def test_missing_request(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        load_request(tmp_path / "none.yaml")


def refused(out, asked=None, overwrite=True):
    """The line with which a folder is refused."""
    with pytest.raises(UsageError) as caught, claimed(out, asked or request(), overwrite):
        pass
    return str(caught.value)


def finish(folder, *more):
    """A folder as a finished run of `request()` leaves it."""
    save_request(request(), folder / "edgekd.yaml")
    for name in more:
        (folder / name).write_text("1")
    (folder / "verdict.json").write_text(json.dumps({"files": dict.fromkeys(("edgekd.yaml", *more), "sum")}))


def test_claim_builds_beside_and_publish_replaces(tmp_path):
    out = tmp_path / "bundle"
    with claimed(out, request(), overwrite=False) as work:
        finish(work)
        assert not out.exists()
        publish_bundle(work, out, request(), overwrite=False)
    with claimed(out, request(), overwrite=False) as again:  # the same request: made again
        assert (out / "edgekd.yaml").is_file()
        finish(again, "new")
        publish_bundle(again, out, request(), overwrite=False)
    assert (out / "new").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle"]


def test_claim_refuses_another_request_unless_told(tmp_path):
    out = tmp_path / "bundle"
    out.mkdir()
    finish(out)
    assert "holds something else" in refused(out, request(budget=5.0), overwrite=False)
    with claimed(out, request(budget=5.0), overwrite=True) as work:
        assert work.is_dir()


def test_one_run_a_bundle(tmp_path):
    out = tmp_path / "bundle"
    with claimed(out, request(), overwrite=False) as work:
        shutil.rmtree(work)  # a run may make its folder anew
        work.mkdir()
        (work / "left.txt").write_text("x")
        (work / "folder").mkdir()
        assert "another run is making it" in refused(out)
        assert (work / "left.txt").is_file()
        with claimed(tmp_path / "other", request(), overwrite=False):
            pass
    with claimed(out, request(), overwrite=False) as again:  # what a run that failed left there is gone
        assert list(again.iterdir()) == []
    assert list(tmp_path.iterdir()) == []  # neither a lock nor an empty folder is left


def test_what_comes_while_a_run_works_is_not_replaced(tmp_path):
    out = tmp_path / "bundle"
    with claimed(out, request(), overwrite=False) as work:
        save_request(request(), work / "edgekd.yaml")
        out.mkdir()
        (out / "thesis.tex").write_text("x")
        with pytest.raises(UsageError, match=r"holds something else.*the finished bundle is in"):
            publish_bundle(work, out, request(), overwrite=False)
    assert (out / "thesis.tex").is_file()
    assert (work / "edgekd.yaml").is_file()


@pytest.mark.parametrize("overwrite", [False, True])
def test_only_bundles_are_replaced(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("x")
    assert "holds something else, and no bundle" in refused(tmp_path, overwrite=overwrite)


def test_what_the_request_reads_is_never_replaced(tmp_path, monkeypatch):
    data = tmp_path / "bundle" / "data"
    data.mkdir(parents=True)
    asked = request().model_copy(update={"data": str(data)})
    save_request(request(), tmp_path / "bundle" / "edgekd.yaml")
    for out in (data, data.parent, tmp_path):
        assert "is or holds --data" in refused(out, asked)
    monkeypatch.chdir(data)
    assert "is or holds the current folder" in refused(data.parent)


def test_neighbours_of_the_bundle_are_nobodys_business(tmp_path):
    out = tmp_path / "bundle"
    for name in ("bundle.work", "bundle.old"):
        (tmp_path / name).mkdir()
    for _ in range(2):
        with claimed(out, request(), overwrite=False) as work:
            finish(work)
            publish_bundle(work, out, request(), overwrite=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "bundle.old", "bundle.work"]


def test_a_place_that_cannot_be_written(tmp_path):
    assert "--out /proc/x" in refused(Path("/proc/x"), overwrite=False)


def test_claim_refuses_a_file(tmp_path):
    (tmp_path / "bundle").write_text("x")
    assert "is a file" in refused(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"teacher": "t"}, "--data is missing"),
        ({"data": "d"}, "--teacher is missing"),
        ({"teacher_outputs": "o", "data": "d"}, "--teacher-outputs without --encoder"),
        ({"encoder": "e", "data": "d"}, "--encoder without --teacher-outputs"),
        ({"teacher": "t", "data": "d", "encoder": "e", "teacher_outputs": "o"}, "--teacher goes without"),
        ({"demo": True, "teacher": "t", "data": "d"}, "--demo goes without"),
        ({}, "--demo goes without"),
    ],
)
def test_what_belongs_together_is_named_together(named, message):
    with pytest.raises(UsageError, match=message):
        Request(profile=load_profile("cpu"), **named)


def test_outputs_need_no_data():
    assert not Request(profile=load_profile("cpu"), encoder="e", teacher_outputs="o").demo


def test_a_data_set_of_the_hub_has_no_suffix():
    assert is_hub_data("owner/name")
    assert not is_hub_data("owner/name.jsonl")
    assert not is_hub_data("name")
