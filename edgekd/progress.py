"""How a long step tells the user where it is. The base class is silent; the command line shows bars."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Bar(Protocol):
    """One running step."""

    def update(self, done: float, note: str = "") -> None:
        """Say that `done` of the step's total is finished."""


class _SilentBar:
    def update(self, done: float, note: str = "") -> None:
        """Say nothing."""


class Progress:
    """Silent progress; subclasses show it."""

    @contextlib.contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        """Show one step of `total` units while the block runs."""
        yield _SilentBar()

    def say(self, text: str) -> None:
        """Show one line that stays."""
