"""How a long step tells the user where it is. The base class is silent; the command line shows bars."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, Protocol, get_args

Step = Literal["teacher and data", "transfer set", "plan", "distil", "export", "validate", "report"]
STEPS: tuple[Step, ...] = get_args(Step)
"""The seven steps of a run, in order."""


class Bar(Protocol):
    """One running task of a step."""

    def update(self, done: float, note: str = "") -> None:
        """Say that `done` of the task's total is finished."""


class _SilentBar:
    def update(self, done: float, note: str = "") -> None:
        """Say nothing."""


class Progress:
    """Silent progress; subclasses show it."""

    def step(self, name: Step) -> None:
        """Say that one of the `STEPS` begins; again, where a run goes back to it."""

    @contextlib.contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        """Show one task of `total` units while the block runs."""
        yield _SilentBar()

    def say(self, text: str) -> None:
        """Show one line that stays."""
