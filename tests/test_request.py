from pathlib import Path

import pytest

from edgekd.bundle import claim, publish
from edgekd.errors import UsageError
from edgekd.profile import load, override
from edgekd.request import Request, load_request


def request(budget=10.0):
    return Request(teacher="t", data="d", profile=override(load("cpu"), {"budget.latency_ms": budget}))


def test_saved_request_is_the_same_request(tmp_path):
    request().save(tmp_path / "edgekd.yaml")
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


def test_claim_builds_beside_and_publish_replaces(tmp_path):
    out = tmp_path / "bundle"
    work = claim(out, request(), overwrite=False)
    request().save(work / "edgekd.yaml")
    assert not out.exists()
    publish(work, out)
    again = claim(out, request(), overwrite=False)  # the same request: made again
    assert (out / "edgekd.yaml").is_file()
    request().save(again / "edgekd.yaml")
    (again / "new").write_text("1")
    publish(again, out)
    assert (out / "new").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle"]


def test_claim_refuses_another_request_unless_told(tmp_path):
    out = tmp_path / "bundle"
    out.mkdir()
    request().save(out / "edgekd.yaml")
    with pytest.raises(UsageError, match="holds something else"):
        claim(out, request(budget=5.0), overwrite=False)
    assert claim(out, request(budget=5.0), overwrite=True).is_dir()


@pytest.mark.parametrize("overwrite", [False, True])
def test_only_bundles_are_replaced(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="holds something else, and no bundle"):
        claim(tmp_path, request(), overwrite=overwrite)


def test_what_the_request_reads_is_never_replaced(tmp_path, monkeypatch):
    data = tmp_path / "bundle" / "data"
    data.mkdir(parents=True)
    asked = request().model_copy(update={"data": str(data)})
    request().save(tmp_path / "bundle" / "edgekd.yaml")
    for out in (data, data.parent, tmp_path):
        with pytest.raises(UsageError, match="is or holds --data"):
            claim(out, asked, overwrite=True)
    monkeypatch.chdir(data)
    with pytest.raises(UsageError, match="is or holds the current folder"):
        claim(data.parent, request(), overwrite=True)


def test_neighbours_of_the_bundle_are_nobodys_business(tmp_path):
    out = tmp_path / "bundle"
    for name in ("bundle.work", "bundle.old"):
        (tmp_path / name).mkdir()
    for _ in range(2):
        work = claim(out, request(), overwrite=False)
        request().save(work / "edgekd.yaml")
        publish(work, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "bundle.old", "bundle.work"]


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(UsageError, match="--out /proc/x"):
        claim(Path("/proc/x"), request(), overwrite=False)


def test_claim_refuses_a_file(tmp_path):
    (tmp_path / "bundle").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        claim(tmp_path / "bundle", request(), overwrite=True)
