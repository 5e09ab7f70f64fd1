"""Where a command's result goes: tried before the first step, and replaced only by what is finished.

A result is built in a hidden folder and then put in its place. That folder is beside the place, so that one rename does
it; where nothing beside it can be renamed or written (a mount point, as of `docker run -v`, or a parent without write
permission), it is inside.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgekd.errors import UsageError
from edgekd.reading import inside, read_json
from edgekd.store import held, write_json

# Of a name that nobody but this program gives: what a killed run left there may go.
_OURS = ".edgekd-"
# Which files of a result are this program's: a bundle's verdict names them, and this list those of all else.
_VERDICT, _FILES = "verdict.json", "files.json"


def check_replaceable(out: Path, reads: Mapping[str, str | Path | None]) -> None:
    """Refuse an output folder that is a file, that cannot be written, or that is or holds what a command reads.

    Args:
        reads: By flag, what is read; hub ids and what is not there are passed over.

    Raises:
        UsageError: It would be replaced, or cannot be.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: choose a folder")
    if out.is_symlink() and not out.exists():
        raise UsageError(f"--out {out} is a link to {os.readlink(out)}, which is not there: choose another folder")
    for name, source in {"the current folder": Path.cwd(), **reads}.items():
        if source and Path(source).exists() and Path(source).resolve().is_relative_to(out.resolve()):
            raise UsageError(f"--out {out} is or holds {name}, which would be replaced: choose another folder")
    place = out.resolve()
    parent = place if _inside(place) else next(folder for folder in place.parents if os.path.exists(folder))
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"--out {out}: {parent} cannot be written to; choose another folder")


def is_empty(out: Path) -> bool:
    """Whether nothing is there, but for what this program is building."""
    return not out.exists() or not any(map(of_the_user, out.iterdir()))


def check_ours(out: Path) -> None:
    """Refuse a folder that would be replaced whole, and holds files that this program has not written there.

    Raises:
        UsageError: It names the first of them.
    """
    if is_empty(out):
        return
    others = _files(out) - _named(out)
    if others:
        raise UsageError(
            f"--out {out} is replaced whole, and has files that edgekd has not made ({min(others)}"
            f"{f' and {len(others) - 1} more' if len(others) > 1 else ''}): move them, or choose another folder"
        )


def _files(folder: Path) -> set[str]:
    """All files of a result, by their paths in it; what Python compiles of a bundle's `deploy/` belongs to nobody."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return {
        name.as_posix() for name in found
        if "__pycache__" not in name.parts and of_the_user(Path(name.parts[0]))
    }  # fmt: skip


def _named(out: Path) -> set[str]:
    """The files that a result says are its own."""
    names = set()
    for name in (_VERDICT, _FILES):
        if (out / name).is_file():
            said = read_json(inside(out, name), "choose another folder")
            files = said.get("files") if isinstance(said, dict) else None
            # A list, or checksums by name.
            names |= {name, *map(str, files or ())}
            # Of a bundle it is written last, when the verdict is.
            names |= {"result.json"} if name == _VERDICT else set()
    return names


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """An empty folder to build in, for this run alone until the end of the block; see `publish`.

    Raises:
        UsageError: Another run makes it, nothing can be written there, or it holds what `check_ours` refuses.
    """
    check_replaceable(out, {})
    with locked(out):
        check_ours(out)
        work, old = hidden(out, "work"), hidden(out, "old")
        try:
            if is_empty(out) and old.is_dir():
                _put_back(old, out)
            emptied(work)
        except OSError as error:
            raise UsageError(f"--out {out}: cannot be written ({error.strerror}); choose another folder") from error
        try:
            yield work
        finally:
            if work.is_dir() and not any(work.iterdir()):
                work.rmdir()  # refused before there was anything to keep


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other runs from making `out` until the end of the block.

    The lock is a file that nothing replaces: a folder that is made anew would take its lock along.

    Raises:
        UsageError: Another run makes it, or nothing can be written there.
    """
    path = hidden(out, "lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({error.strerror}); choose another folder") from error
    busy = UsageError(f"--out {out}: another run is making it; wait for it, or choose another folder")
    with held(path, busy):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def publish(work: Path, out: Path) -> None:
    """Put what was built in its place; what was there goes once all of it is there.

    Raises:
        UsageError: See `check_ours`; the result waits in `work`.
    """
    try:
        check_ours(out)
    except UsageError as error:
        raise UsageError(f"{error}; the finished result is in {work}") from error
    if not (work / _VERDICT).is_file():
        write_json(work / _FILES, {"made_by": "edgekd", "files": sorted(_files(work))})
    place = out.resolve()
    old = hidden(out, "old")
    shutil.rmtree(old, ignore_errors=True)
    if old.exists():  # something in it cannot be removed
        old = hidden(out, f"old-{os.getpid()}")
    if _inside(place):
        old.mkdir()
        _move(place, old)
        _move(work, place)
        work.rmdir()
    else:
        if place.exists():
            place.rename(old)
        work.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def emptied(folder: Path) -> Path:
    """The folder, made if it is not there, with nothing in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return folder


def hidden(out: Path, what: str) -> Path:
    """A file or folder of ours: beside the place of a result, or in it."""
    place = out.resolve()
    return place / f"{_OURS}{what}" if _inside(place) else place.with_name(f".{place.name}{_OURS}{what}")


def _inside(place: Path) -> bool:
    return place.is_dir() and (_is_mount(place) or not _may_rename(place))


def _is_mount(place: Path) -> bool:
    """Whether something is mounted there: also a folder of the same file system, as by `docker run -v`."""
    if os.path.ismount(place):
        return True
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    # Blanks and the like are written as octal numbers there.
    points = (re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split()[4]) for line in mounts)
    return str(place) in points


def _may_rename(place: Path) -> bool:
    """Whether a folder may be renamed where it lies: not in one that is sticky, as /tmp, and both are another's."""
    parent = place.parent
    if not os.access(parent, os.W_OK | os.X_OK):
        return False
    sticky = parent.stat().st_mode & stat.S_ISVTX
    user = os.getuid() if hasattr(os, "getuid") else 0
    return not sticky or user in (0, parent.stat().st_uid, place.stat().st_uid)


def _put_back(old: Path, out: Path) -> None:
    """What a run that was killed while it replaced a result had moved away."""
    place = out.resolve()
    if _inside(place):
        _move(old, place)
        old.rmdir()
    else:
        if place.is_dir():
            place.rmdir()
        old.rename(place)


def of_the_user(path: Path) -> bool:
    """Not ours, and no folder that a file system makes at its root."""
    return not path.name.startswith(_OURS) and path.name != "lost+found"


def _move(source: Path, target: Path) -> None:
    for path in list(source.iterdir()):
        if of_the_user(path):
            path.rename(target / path.name)
