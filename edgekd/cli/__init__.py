"""The command line. Commands are loaded only when they run, so that `edgekd --help` imports nothing heavy."""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

import click

from edgekd import __version__
from edgekd.errors import EdgekdError, ExitCode, UsageError, meant
from edgekd.store import own_temporary_folder, settle_home
from edgekd.visible import visible

# What numpy, safetensors, torch, onnx and shutil say of a full disk.
_NO_SPACE = re.compile(
    r"No space left|os error 28|Disk quota exceeded|\d+ requested and \d+ written|Errno 28\b|Errno 122\b"
)

# What the system says of a path that cannot be one; of such names this much is shown.
_NO_PATH = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.EINVAL, errno.ENODEV}
_LONG_NAME = 100

# Name: (module, one-line help). The group holds the short helps itself: listing them loads no command.
COMMANDS = {
    "compress": ("edgekd.cli.compress", "Teacher, text and a latency budget in; a validated bundle out."),
    "plan": ("edgekd.cli.plan", "Choose the student's shape for a budget on this machine."),
    "teach": ("edgekd.cli.teach", "Fine-tune a teacher from an encoder and labels."),
    "transfer": ("edgekd.cli.transfer", "Build the transfer set that a student learns from."),
    "distill": ("edgekd.cli.distill", "Train the student of a plan."),
    "export": ("edgekd.cli.export", "Write a student as ONNX, FP32 and INT8, proven equal."),
    "validate": ("edgekd.cli.validate", "Measure a bundle against its budget, here and now."),
    "predict": ("edgekd.cli.predict", "Answer texts with a bundle."),
    "serve": ("edgekd.cli.serve", "Serve a bundle over HTTP."),
    "report": ("edgekd.cli.report", "Write the report of a bundle again."),
    "probe": ("edgekd.cli.probe", "Measure a device that is elsewhere, and plan for it here."),
    "profiles": ("edgekd.cli.profiles", "List the profiles, or show one."),
    "cache": ("edgekd.cli.cache", "Show or clear what earlier runs have kept."),
    "doctor": ("edgekd.cli.doctor", "Check this installation and this machine."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name][0]).command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with own_temporary_folder():
                return super().invoke(ctx)
        except BrokenPipeError:
            # Who read our output has seen enough, as `head` does; nothing more is to be flushed into it. Here, since
            # click would end with 1, which is a verdict.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.MET

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = meant(args[0], COMMANDS)
            raise click.UsageError(f"no command {args[0]!r}" + (f", {hint}" if hint else ""))
        return super().resolve_command(ctx, args)


@click.group(
    cls=_LazyGroup, invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip
@click.version_option(__version__, prog_name="edgekd")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr: results and errors alone.")
@click.option("-v", "--verbose", is_flag=True, help="Say how long each step and task took.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def group(context: click.Context, /, **_: bool) -> None:
    """Compress a fine-tuned Transformer encoder to a latency budget, and prove it.

    edgekd compress --teacher ./my-bert --data ./data --latency-ms 10 --out ./bundle

    Exit codes: 0 budget and quality met, 1 missed, 2 usage or data, 3 hardware or library missing,
    4 other error, 5 inconclusive, 6 unmeasured, 130 interrupted.

    Completion: eval "$(_EDGEKD_COMPLETE=bash_source edgekd)", or zsh_source, or fish_source.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the right code; an error is one line on stderr."""
    given, spoken = _spoken(sys.argv[1:] if arguments is None else arguments)
    debug = "debug" in spoken
    try:
        _require_utf_8(given)
        _end_like_an_interrupt()
        settle_home()
        code = group.main(args=given, prog_name="edgekd", standalone_mode=False, obj=spoken)
    except BaseException as error:  # every way out ends in one line and a documented code
        if debug and not isinstance(error, SystemExit):
            traceback.print_exc()
        code, line = _explain(error)
        if line:
            click.echo(visible(line), err=True)
    sys.exit(int(code or 0))


# How much is said; wherever one of these stands, it is the whole command's.
_SPOKEN = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose", "--debug": "debug"}


def _spoken(arguments: Sequence[str]) -> tuple[list[str], set[str]]:
    """The arguments without those that say how much is said, and these by name."""
    given = list(arguments)
    end = given.index("--") if "--" in given else len(given)
    spoken = {_SPOKEN[one] for one in given[:end] if one in _SPOKEN}
    return [one for one in given[:end] if one not in _SPOKEN] + given[end:], spoken


def _require_utf_8(arguments: Sequence[str]) -> None:
    """Refuse names that no file of ours could hold: what a run writes down is UTF-8."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{argument!a}: not UTF-8; rename the file or folder, or set LANG=C.UTF-8") from None


def _explain(error: BaseException) -> tuple[int, str]:
    if isinstance(error, SystemExit):
        return int(error.code) if isinstance(error.code, int) else 0, ""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return ExitCode.INTERRUPTED, "interrupted: finished steps are kept; run the same command again"
    if isinstance(error, EdgekdError):
        return error.exit_code, f"error: {_one_line(error)}"
    if isinstance(error, click.ClickException):
        return ExitCode.USAGE, f"error: {_one_line(error.format_message())}"
    if (where := _full_disk(error)) is not None:
        return (
            ExitCode.ERROR,
            f"error: no space left on the device{where}: free some, or name a folder on another disk",
        )
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):
        return ExitCode.USAGE, "error: no folder for temporary files can be written: set TMPDIR to one that can"
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS):
        return ExitCode.USAGE, f"error: no permission for {error.filename}: choose another folder"
    if isinstance(error, OSError) and error.errno in _NO_PATH and error.filename is not None:
        name = str(error.filename)
        shown = name if len(name) <= _LONG_NAME else f"{name[:_LONG_NAME]}..."
        return ExitCode.USAGE, f"error: {shown}: {(error.strerror or 'no such path').lower()}: choose another path"
    if isinstance(error, MemoryError):
        return ExitCode.ERROR, "error: out of memory: give smaller files or fewer texts, or use a larger machine"
    kind = type(error).__name__
    return (
        ExitCode.ERROR,
        f"error: unexpected {kind}: {_one_line(error)} (run again with --debug for the traceback)",
    )


def _full_disk(error: BaseException | None) -> str | None:
    """Which file found a disk full, in brackets if it is known; None where that is not why.

    Libraries that write in Rust or C++ raise errors of their own, which tell it in their text alone.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            # Of a copy it is the second.
            name = error.filename2 or error.filename
            return f" ({name})" if name else ""
        if _NO_SPACE.search(str(error)):
            return ""
        error = error.__cause__ or error.__context__
    return None


def _end_like_an_interrupt() -> None:
    """SIGTERM (`docker stop`, Slurm) and SIGHUP (a closed terminal) end a run as Ctrl-C does.

    PID 1 would ignore them without a handler.
    """

    def interrupt(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # the second must not strike the clean-up of the first
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            # `nohup` has it ignored, and Windows has no SIGHUP.
            if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
                signal.signal(getattr(signal, name), interrupt)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
