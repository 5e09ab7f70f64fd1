"""What a person sees: one console on stderr, progress bars on a terminal and silence elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBars

from edgekd.progress import Bar, Progress

# Columns where there is no terminal to ask, as in the log of a pipeline.
_LOG_WIDTH = 110

# Shorter steps than this show no bar.
_PATIENCE_SECONDS = 2.0


def error_console() -> Console:
    """The console for everything that is not the result."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.width = _LOG_WIDTH
    return console


class ConsoleProgress(Progress):
    """Bars with time left on a terminal; plain lines where there is none."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextlib.contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        """See `Progress.bar`; without a title, or without a terminal, nothing is drawn."""
        if not title or not self.console.is_terminal:
            with super().bar(title, total) as silent:
                yield silent
            return
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichBars(*columns, console=self.console, transient=True, refresh_per_second=4) as bars:
            yield _RichBar(bars, title, total)

    def say(self, text: str) -> None:
        """Print one line that stays."""
        self.console.print(text, soft_wrap=True, markup=False)


class _RichBar:
    def __init__(self, bars: RichBars, title: str, total: float) -> None:
        self.bars, self.started = bars, time.monotonic()
        self.task = bars.add_task(title, total=total, note="", visible=False)

    def update(self, done: float, note: str = "") -> None:
        """See `Bar.update`."""
        visible = time.monotonic() - self.started > _PATIENCE_SECONDS
        self.bars.update(self.task, completed=done, note=note, visible=visible)
