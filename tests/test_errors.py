"""`edgekd.errors`: exit codes are frozen, and `require` tells a missing extra from a broken library."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd import errors
from edgekd.errors import (
    DataError,
    EdgekdError,
    ExitCode,
    UnavailableError,
    UsageError,
    meant,
    require,
)

# The interface of the command line: scripts depend on these numbers.
CODES = {
    "MET": 0,
    "MISSED": 1,
    "USAGE": 2,
    "UNAVAILABLE": 3,
    "ERROR": 4,
    "INCONCLUSIVE": 5,
    "UNMEASURED": 6,
    "INTERRUPTED": 130,
}


def test_a_wrong_name_is_set_right_whatever_its_case() -> None:
    assert meant("CPu", ["cpu", "cuda"]) == "did you mean 'cpu'?"
    assert meant("kuber", ["cpu", "cuda"]) is None


def test_exit_codes_are_frozen() -> None:
    assert {code.name: int(code) for code in ExitCode} == CODES


@pytest.mark.parametrize(
    ("error", "code"),
    [(EdgekdError, 4), (UsageError, 2), (DataError, 2), (UnavailableError, 3)],
)
def test_each_error_has_its_exit_code(error: type[EdgekdError], code: int) -> None:
    assert error("one line").exit_code == code
    assert issubclass(error, EdgekdError)


def test_every_error_of_the_module_is_in_the_table_above() -> None:
    classes = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert classes == {EdgekdError, UsageError, DataError, UnavailableError}


def test_bad_data_is_a_usage_error() -> None:
    assert issubclass(DataError, UsageError)


def test_require_returns_the_module() -> None:
    import json.decoder

    assert require("json.decoder", "cpu", "test") is json.decoder


@pytest.mark.parametrize("module", ["edgekd_no_such_library", "edgekd_no_such_library.part"])
def test_require_names_the_extra_in_one_line(module: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        require(module, "cpu", "measure latency")
    message = str(caught.value)
    assert message == f"{module} is needed to measure latency: pip install 'edgekd[cpu]'"
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_require_does_not_mask_what_an_installed_module_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edgekd_broken_library.py").write_text("import edgekd_its_missing_dependency\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        require("edgekd_broken_library", "cpu", "test")
    assert caught.value.name == "edgekd_its_missing_dependency"


def test_require_does_not_mask_an_installed_module_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edgekd_failing_library.py").write_text("raise ImportError('a wrong libc')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="a wrong libc") as caught:
        require("edgekd_failing_library", "cpu", "test")
    assert not isinstance(caught.value, EdgekdError)
