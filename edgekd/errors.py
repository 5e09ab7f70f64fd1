"""Errors that a user can cause or meet, and the exit code of each.

    EdgekdError            4   anything else that we can name
    +-- UsageError         2   a flag, a profile, a folder that cannot be
    |   +-- DataError      2   a file, a row, a label of the user's data
    +-- UnavailableError   3   hardware or a library is missing

Each message is one line that names the file, row or flag and the mend.
Budget met (0), missed (1), inconclusive (5) and unmeasured (6) are verdicts, not errors: see `ExitCode`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from enum import IntEnum
from types import ModuleType


class ExitCode(IntEnum):
    """What `edgekd` returns to the shell. Part of the interface: never renumber."""

    MET = 0
    MISSED = 1
    USAGE = 2
    UNAVAILABLE = 3
    ERROR = 4
    INCONCLUSIVE = 5
    UNMEASURED = 6
    INTERRUPTED = 130


class EdgekdError(Exception):
    """Base of every error that ends in one clear line instead of a traceback."""

    exit_code = ExitCode.ERROR


class UsageError(EdgekdError):
    """The request itself is wrong: a flag, a profile, a folder."""

    exit_code = ExitCode.USAGE


class DataError(UsageError):
    """The user's data is wrong; the message names the file and the row."""


class UnavailableError(EdgekdError):
    """Hardware, a library or a network that the request needs is not there."""

    exit_code = ExitCode.UNAVAILABLE


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say in one line which extra brings it.

    Args:
        module: The module's import name, such as "onnxruntime".
        extra: The extra of this package that installs it, such as "cpu".
        purpose: What it is needed for, to end the sentence "... is needed to".

    Returns:
        The imported module.

    Raises:
        UnavailableError: The module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise UnavailableError(_missing(module, extra, purpose)) from error


def check_installed(module: str, extra: str, purpose: str) -> None:
    """Say which extra brings a dependency that is missing, without the seconds that importing it may take.

    Raises:
        UnavailableError: The module is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise UnavailableError(_missing(module, extra, purpose))


def _missing(module: str, extra: str, purpose: str) -> str:
    return f"{module} is needed to {purpose}: pip install 'edgekd[{extra}]'"


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def meant(name: str, known: Iterable[str]) -> str | None:
    """What a wrong name was meant to be, as the end of an error's line; None where nothing is near it."""
    import difflib  # a deployed runtime starts without it

    names = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(name.casefold(), names, n=1)
    return f"did you mean {names[close[0]]!r}?" if close else None
