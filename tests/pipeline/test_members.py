"""Where a family may be put, and what is asked of its members."""

import subprocess
import sys

import pytest

from edgekd.errors import UsageError
from edgekd.pipeline.demo import demo_profile
from edgekd.pipeline.members import requests_of
from edgekd.profiles import load_profile, save_request
from edgekd.settings.request import Request


@pytest.fixture
def asked(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text("{}")
    return Request(teacher="org/teacher", data=str(data), profile=load_profile("cpu"))


def made(request, budgets, out):
    """The members' folders as finished runs leave them."""
    for folder, each in requests_of(request, budgets, out, overwrite=False).items():
        (out / folder).mkdir(parents=True, exist_ok=True)
        save_request(each, out / folder / "edgekd.yaml")
        (out / folder / "verdict.json").write_text('{"files": {"edgekd.yaml": "sum"}}')


def test_a_demo_family_goes_on_where_it_stopped(tmp_path):
    request, out = Request(demo=True, profile=load_profile("cpu")), tmp_path / "family"
    found = requests_of(request, (5, 10), out, overwrite=False)
    (out / "5ms").mkdir(parents=True)
    # As `compress` writes it.
    settled = found["5ms"].profile
    assert settled == demo_profile(settled)
    save_request(found["5ms"], out / "5ms" / "edgekd.yaml")
    (out / "5ms" / "verdict.json").write_text('{"files": {"edgekd.yaml": "sum"}}')
    assert requests_of(request, (5, 10), out, overwrite=False) == found


def test_a_familys_own_folder_is_taken_again_and_keeps_other_budgets(asked, tmp_path):
    out = tmp_path / "family"
    made(asked, (5, 10), out)
    (out / "family.json").write_text("{}")
    (out / ".20ms.edgekd-work").mkdir()
    (out / ".20ms.edgekd-lock").write_text("")
    assert list(requests_of(asked, (5, 20), out, overwrite=False)) == ["5ms", "20ms"]
    other = asked.model_copy(update={"bundle_texts": True})
    with pytest.raises(UsageError, match="5ms holds something else: choose another folder, or add --overwrite"):
        requests_of(other, (5, 20), out, overwrite=False)
    requests_of(other, (5, 20), out, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_single_run_refuses_a_family_refuses_too(asked, tmp_path, overwrite, monkeypatch):
    foreign, file, bundle, beside = (tmp_path / name for name in ("foreign", "file", "bundle", "beside"))
    made(asked, (5,), beside)
    for folder in (foreign, bundle):
        folder.mkdir()
    for place in (foreign / "thesis.tex", file, beside / "thesis.tex"):
        place.write_text("x")
    save_request(asked, bundle / "edgekd.yaml")
    for out, why in (
        (tmp_path / "data", "is or holds --data"),
        (tmp_path, "is or holds --data"),
        (foreign, "holds something else, and no bundle"),
        (beside, "holds something else, and no bundle"),
        (file, "is a file"),
        (bundle, "is a bundle: a family needs its own folder"),
    ):
        with pytest.raises(UsageError, match=why):
            requests_of(asked, (5, 10), out, overwrite)
    monkeypatch.chdir(foreign)
    with pytest.raises(UsageError, match="is or holds the current folder"):
        requests_of(asked, (5, 10), foreign, overwrite)


def test_budgets_that_would_share_a_folder(asked, tmp_path):
    with pytest.raises(UsageError, match="two budgets are too near"):
        requests_of(asked, (5, 5.0000001), tmp_path / "family", overwrite=False)


def test_a_dry_run_needs_nothing_that_computes():
    script = "import sys, edgekd.pipeline.members; sys.exit(bool({'torch', 'transformers', 'onnx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
