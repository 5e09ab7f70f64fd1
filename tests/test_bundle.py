"""What a bundle may replace: a bundle, and nothing that somebody has put beside it."""

import json

import pytest

from edgekd.bundle import check_out
from edgekd.errors import UsageError
from edgekd.profiles import load_profile, save_request
from edgekd.settings.request import Request


@pytest.fixture
def request_(tmp_path):
    return Request(teacher="org/teacher", data="org/data", profile=load_profile("cpu"))


@pytest.fixture
def out(tmp_path, request_):
    """A finished bundle of that request."""
    folder = tmp_path / "out"
    (folder / "deploy" / "__pycache__").mkdir(parents=True)
    save_request(request_, folder / "edgekd.yaml")
    for name in ("model.onnx", "result.json", "deploy/serve.py", "deploy/__pycache__/serve.pyc"):
        (folder / name).write_text("x")
    files = dict.fromkeys(("edgekd.yaml", "model.onnx", "deploy/serve.py"), "sum")
    (folder / "verdict.json").write_text(json.dumps({"files": files}))
    return folder


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", "photos/a.jpg", "deploy/mine.py", ".git/config"])
def test_files_of_others_are_never_replaced(out, request_, overwrite, name):
    check_out(out, request_, overwrite)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    with pytest.raises(UsageError, match=rf"edgekd has not made \({name}\): move them"):
        check_out(out, request_, overwrite)


def test_a_settings_file_makes_no_bundle(tmp_path, request_):
    (tmp_path / "edgekd.yaml").write_text("teacher: x")
    (tmp_path / "a.jpg").write_text("mine")
    with pytest.raises(UsageError, match="holds something else, and no bundle"):
        check_out(tmp_path, request_, overwrite=True)


def test_another_bundle_is_replaced_where_that_is_asked(out, request_):
    other = request_.model_copy(update={"bundle_texts": True})
    with pytest.raises(UsageError, match="add --overwrite"):
        check_out(out, other, overwrite=False)
    check_out(out, other, overwrite=True)
