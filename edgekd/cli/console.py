"""What a person sees: one console on stderr, progress bars on a terminal and plain lines elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator

import click
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBars
from rich.segment import Segment

from edgekd.progress import STEPS, Bar, Progress, Step
from edgekd.visible import visible

# Columns where there is no terminal to ask, as in the log of a pipeline.
_LOG_WIDTH = 110

# Without a terminal a line is said at least this often.
_LOG_SECONDS = 30.0

# Shorter tasks than this show no bar.
_PATIENCE_SECONDS = 2.0


class _Console(Console):
    """Shows control characters in what it is given, wherever that comes from; its own colours it may set."""

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        shown = (one if one.control else Segment(visible(one.text), one.style) for one in buffer)
        return super()._render_buffer(shown)


def error_console() -> Console:
    """The console for everything that is not the result."""
    console = _Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.width = _LOG_WIDTH
    return console


def _spoken() -> set[str]:
    """Which of quiet and verbose the command was given."""
    context = click.get_current_context(silent=True)
    return (context.obj if context is not None else None) or set()


def note(text: str) -> None:
    """Say something that is neither a result nor an error, unless all but those is to be quiet."""
    if "quiet" not in _spoken():
        click.echo(f"note: {visible(text)}", err=True)


class ConsoleProgress(Progress):
    """Bars with the step and the time left on a terminal; elsewhere a line at each step, and at least every 30 s."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._step = ""
        self._said = self._began = time.monotonic()
        spoken = _spoken()
        self._quiet, self._verbose = "quiet" in spoken, "verbose" in spoken

    def step(self, name: Step) -> None:
        """See `Progress.step`."""
        if self._verbose and self._step:
            self.say(f"{self._step.rstrip(': ')} took {time.monotonic() - self._began:.1f} s")
        self._began = time.monotonic()
        self._step = f"step {STEPS.index(name) + 1} of {len(STEPS)}: "
        self.say(f"{self._step}{name}")

    @contextlib.contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        """See `Progress.bar`; without a title, or with --quiet, nothing is shown."""
        if not title or self._quiet:
            with super().bar(title, total) as silent:
                yield silent
            return
        started = time.monotonic()
        with self._plain(title, total) if not self.console.is_terminal else self._rich(title, total) as shown:
            yield shown
        if self._verbose:
            self.say(f"{self._step}{title}: {time.monotonic() - started:.1f} s")

    @contextlib.contextmanager
    def _rich(self, title: str, total: float) -> Iterator[Bar]:
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
            yield _RichBar(bars, f"{self._step}{title}", total)

    @contextlib.contextmanager
    def _plain(self, title: str, total: float) -> Iterator[Bar]:
        """Say where the task is whenever nothing was said for 30 s, whether or not it says anything itself."""
        bar, ended = _PlainBar(f"{self._step}{title}", total), threading.Event()

        def tell() -> None:
            while not ended.wait(1.0):
                # A command without steps says soon what it is at.
                patience = _LOG_SECONDS if self._step or bar.told else _PATIENCE_SECONDS
                if time.monotonic() - max(self._said, bar.started) >= patience:
                    bar.told = True
                    self.say(bar.words())

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield bar
        finally:
            ended.set()
            teller.join()

    def say(self, text: str) -> None:
        """Print one line that stays."""
        self._said = time.monotonic()
        if not self._quiet:
            self.console.print(text, soft_wrap=True, markup=False)


class _PlainBar:
    def __init__(self, title: str, total: float) -> None:
        self.title, self.total, self.started = title, total, time.monotonic()
        self.share, self.note, self.told = 0.0, "", False

    def update(self, done: float, note: str = "") -> None:
        """See `Bar.update`."""
        self.share, self.note = min(1.0, done / self.total) if self.total else 0.0, note

    def words(self) -> str:
        """Where it is, and what is left."""
        spent = time.monotonic() - self.started
        if not self.share:
            return f"{self.title}, {spent:.0f} s so far"
        left = spent * (1.0 - self.share) / self.share
        note = f", {self.note}" if self.note else ""
        return f"{self.title}, {100 * self.share:.0f}%, about {left:.0f} s left{note}"


class _RichBar:
    def __init__(self, bars: RichBars, title: str, total: float) -> None:
        self.bars, self.started = bars, time.monotonic()
        self.task = bars.add_task(title, total=total, note="", visible=False)

    def update(self, done: float, note: str = "") -> None:
        """See `Bar.update`."""
        visible = time.monotonic() - self.started > _PATIENCE_SECONDS
        self.bars.update(self.task, completed=done, note=note, visible=visible)
