"""Progress without a terminal: a line at each step, and at least every so often."""

import io
import time

import click
import pytest
from rich.console import Console

from edgekd.cli import console as module
from edgekd.cli.console import ConsoleProgress, _PlainBar
from edgekd.progress import STEPS


def log():
    out = io.StringIO()
    return ConsoleProgress(Console(file=out, width=200, highlight=False)), out


def test_each_step_says_where_it_stands():
    progress, out = log()
    for name in STEPS:
        progress.step(name)
    lines = out.getvalue().splitlines()
    assert lines[0] == "step 1 of 7: teacher and data"
    assert lines[-1] == "step 7 of 7: report"


def test_a_long_task_says_where_it_is_even_if_it_is_silent(monkeypatch):
    monkeypatch.setattr(module, "_LOG_SECONDS", 0.5)
    progress, out = log()
    progress.step("distil")
    with progress.bar("student: distil", 10) as bar:
        bar.update(5, "validation 90.0")
        until = time.monotonic() + 20.0
        while "left" not in out.getvalue() and time.monotonic() < until:
            time.sleep(0.05)
    line = out.getvalue().splitlines()[1]
    assert line.startswith("step 4 of 7: student: distil, 50%, about ")
    assert line.endswith(" s left, validation 90.0")


def test_a_short_task_says_nothing():
    progress, out = log()
    with progress.bar("quick", 1) as bar:
        bar.update(1)
    assert out.getvalue() == ""


@pytest.fixture
def spoken():
    """Run the test as a command that was given these flags."""

    def begin(*flags):
        context = click.Context(click.Command("test"), obj=set(flags))
        context.__enter__()
        entered.append(context)

    entered: list[click.Context] = []
    yield begin
    for context in entered:
        context.__exit__(None, None, None)


def test_quiet_shows_neither_steps_nor_tasks(spoken, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.0)
    spoken("quiet")
    progress, out = log()
    progress.step("plan")
    progress.say("a line")
    with progress.bar("student: distil", 10) as bar:
        bar.update(5)
        time.sleep(1.2)
    assert out.getvalue() == ""


def test_verbose_says_what_each_task_and_step_took(spoken):
    spoken("verbose")
    progress, out = log()
    progress.step("plan")
    with progress.bar("measure", 1) as bar:
        bar.update(1)
    progress.step("distil")
    lines = out.getvalue().splitlines()
    assert lines == [
        "step 3 of 7: plan", "step 3 of 7: measure: 0.0 s", "step 3 of 7 took 0.0 s", "step 4 of 7: distil"
    ]  # fmt: skip


def test_time_left_follows_from_time_spent(monkeypatch):
    monkeypatch.setattr(module.time, "monotonic", lambda: 100.0)
    bar = _PlainBar("plan: measure", 4.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: 130.0)
    assert bar.words() == "plan: measure, 30 s so far"
    bar.update(1.0)
    assert bar.words() == "plan: measure, 25%, about 90 s left"
    bar.update(9.0)
    assert bar.words() == "plan: measure, 100%, about 0 s left"
