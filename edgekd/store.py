"""Artefacts by content key: finished folders that are never half-finished.

The identity of an artefact is its stage, a version raised by hand when the stage's meaning changes, and the
canonical JSON of everything that decides the result (the ids of its inputs included). What cannot change the
result (device index, paths, worker counts) never enters a key. Work happens in `<id>.work`, which survives a
crash and is handed back to the same stage; the manifest is written last, then one rename: a finished folder is
finished. Failures are never stored. One lock an id, which a kill frees.

A store carries a tag file; nothing is listed or deleted in a folder without one, nor what has not the form of an
artefact, nor a file that its manifest does not name. Files are known by their SHA-256.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import EdgekdError, UsageError
from edgekd.reading import sha256_of

MANIFEST = "manifest.json"
_OWN_SUM = "sha256"

TAG = "CACHEDIR.TAG"
"""The file that makes a folder a store; backup tools leave out folders with such a file (bford.info/cachedir)."""

# The first line is other programs' too.
_TAG_OF = "# EdgeKD keeps finished steps here"
_TAG_TEXT = f"Signature: 8a477f597d28d172789f06886806bc55\n{_TAG_OF}: `edgekd cache`.\n"
# Temporary folders of runs, and how long one may be without a lock.
_RUN, _YOUNG_SECONDS = "edgekd-run-", 60.0
_DIGEST = re.compile(r"[0-9a-f]{24}")

# Artefacts whose files this process has read whole.
_CHECKED: set[Path] = set()

log = logging.getLogger("edgekd.store")

# Given by the user, or learned of the machine, not made by a stage: never listed as a stage, never cleared.
_DEVICES, _SPEED = "devices", "speed"


@dataclass(frozen=True)
class Artefact:
    """A finished result of a stage.

    Attributes:
        id: "<stage>-<hash>"; what later keys name it by.
        path: Its folder.
        result: The small JSON result that the stage returned.
        seconds: What it cost to make.
        reused: True if it was found, not made.
    """

    id: str
    path: Path
    result: dict[str, Any]
    seconds: float
    reused: bool


def default_root() -> Path:
    """Return the store's folder: $EDGEKD_CACHE, else the user's cache folder."""
    chosen = os.environ.get("EDGEKD_CACHE")
    if chosen:
        return Path(chosen)
    home = _home()
    named = os.environ.get("XDG_CACHE_HOME") or (None if home is None else str(home / ".cache"))
    root = None if named is None else Path(named) / "edgekd"
    return root if root is not None and _writable(root) else _guest_folder()


def settle_home() -> None:
    """Give a guest without a home directory, or a name, what libraries take for granted."""
    if _home() is None:
        os.environ["HOME"] = str(_guest_folder())
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = "edgekd"


def _home() -> Path | None:
    """The user's home directory; None where there is none, as for a container's user without an entry in passwd."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_absolute() and os.path.isdir(home) else None


def _writable(folder: Path) -> bool:
    parent = next((path for path in (folder, *folder.parents) if os.path.exists(path)), None)
    return parent is not None and os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)


def _guest_folder() -> Path:
    """A folder of this user's own among the temporary ones."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"edgekd-{user}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    # Of another's making it could hold anything.
    return folder if folder.stat().st_uid == user else Path(tempfile.mkdtemp(prefix="edgekd-home-"))


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Keep this process's temporary files in one folder, which goes with the block; those that a kill left go now."""
    from filelock import FileLock, Timeout

    try:
        root = Path(tempfile.gettempdir())
        _clear_left(root)
        folder = Path(tempfile.mkdtemp(prefix=_RUN))
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=0)
    except (OSError, Timeout):
        # Whoever needs a temporary file is told then that none can be made.
        yield
        return
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _clear_left(root: Path) -> None:
    """Remove the folders of runs that are no more: nobody holds their lock."""
    from filelock import FileLock, Timeout

    for left in root.glob(f"{_RUN}*"):
        with contextlib.suppress(OSError, Timeout):
            own = not hasattr(os, "getuid") or left.lstat().st_uid == os.getuid()
            # A run that has just begun has no lock yet.
            lock = left / "lock"
            begun = lock.exists() or time.time() - left.stat().st_mtime > _YOUNG_SECONDS
            # Somebody else's folder may have such a name, and even a lock in it: ours is empty, or the folder is.
            ours = lock.stat().st_size == 0 if lock.exists() else not any(left.iterdir())
            if own and begun and ours and left.is_dir() and not left.is_symlink():
                held = FileLock(lock)
                held.acquire(timeout=0)
                held.release()
                shutil.rmtree(left, ignore_errors=True)


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN; what a key is hashed from."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


class Store:
    """The only place that decides where files of a run go."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(
        self,
        stage: str,
        version: int,
        key: Mapping[str, Any],
        build: Callable[[Path], Mapping[str, Any] | None],
    ) -> Artefact:
        """Return the artefact of `key`, building it if it is not there.

        Args:
            stage: The stage's name, such as "distill".
            version: Raised by hand when the same key would give another result.
            key: What decides the result, as JSON-able values.
            build: Called with a folder to work in, which may hold what an interrupted earlier call left.
                Whatever it leaves there is the artefact; it returns a small JSON-able result or None.

        Another process that is making the same artefact is waited for, and what it made is used.
        """
        text = canonical({"stage": stage, "version": version, "key": key})
        digest = hashlib.sha256(text.encode()).hexdigest()[:24]
        final = self.root / stage / digest
        found = self._find(stage, digest)
        if found is not None:
            return found
        final.parent.mkdir(parents=True, exist_ok=True)
        self._tag()
        with _awaited(final, stage):
            found = self._find(stage, digest, tell=True)  # another process may have finished it meanwhile
            if found is not None:
                return found
            work = final.with_suffix(".work")
            work.mkdir(exist_ok=True)
            started = time.monotonic()
            result = dict(build(work) or {})
            seconds = time.monotonic() - started
            _write_manifest(work, json.loads(text) | {"result": result, "seconds": seconds})
            if final.exists():
                _set_aside(final)
            work.rename(final)
            _CHECKED.add(final)
        return Artefact(f"{stage}-{digest}", final, result, seconds, reused=False)

    def _find(self, stage: str, digest: str, tell: bool = False) -> Artefact | None:
        path = self.root / stage / digest
        manifest = read_manifest(path)
        if manifest is None:
            return None
        if path not in _CHECKED:
            # Once a process: what lies on a disk may have changed since it was written.
            if not _whole(path, manifest):
                if tell:
                    log.warning("note: %s is damaged, and is made again", path)
                return None
            _CHECKED.add(path)
        return Artefact(f"{stage}-{digest}", path, manifest["result"], manifest["seconds"], reused=True)

    def _tag(self) -> None:
        tag = self.root / TAG
        if not tag.is_file():
            tag.write_text(_TAG_TEXT, encoding="utf-8")

    def _require_tag(self) -> None:
        """Refuse a folder that edgekd has not made a store; none, or one without stages, is a store without entries."""
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"{self.root} is a file, and no store of edgekd's; name another --cache-dir")
        others = self.root.is_dir() and any(path.name not in (_DEVICES, _SPEED) for path in self.root.iterdir())
        try:
            ours = _TAG_OF in (self.root / TAG).read_text(encoding="utf-8", errors="replace")
        except OSError:
            ours = False
        if others and not ours:
            raise UsageError(
                f"{self.root} is no store of edgekd's: it has no {TAG} of its own; name another --cache-dir"
            )

    def entries(self) -> list[tuple[str, Path, int]]:
        """List (stage, folder, bytes) of everything stored, unfinished work included.

        Raises:
            UsageError: The folder is no store.
        """
        self._require_tag()
        found = []
        for stage in sorted(self.root.glob("*")):
            if stage.is_symlink() or not stage.is_dir() or stage.name in (_DEVICES, _SPEED):
                continue
            for folder in sorted(stage.iterdir()):
                if _is_artefact(folder):
                    size = sum(f.lstat().st_size for f in folder.rglob("*") if not f.is_dir())
                    found.append((stage.name, folder, size))
        return found

    def verify(self) -> tuple[int, list[Path]]:
        """Read every file of every finished artefact: how many are whole, and the folders of those that are not."""
        folders = [folder for _, folder, _ in self.entries() if _DIGEST.fullmatch(folder.name)]
        damaged = [folder for folder in folders if not _whole(folder, read_manifest(folder))]
        return len(folders) - len(damaged), damaged

    @property
    def speed_folder(self) -> Path:
        """Where the speed logs of machines are kept."""
        return self.root / _SPEED

    def device_folder(self, name: str) -> Path:
        """Where the profile and the probe of a device that is elsewhere are kept."""
        return self.root / _DEVICES / name

    def device_names(self) -> list[str]:
        """The devices that were added."""
        return sorted(path.parent.name for path in self.root.glob(f"{_DEVICES}/*/profile.yaml"))

    def clear(self) -> int:
        """Delete everything stored that no running process holds; return the bytes freed.

        Raises:
            UsageError: The folder is no store.
        """
        freed = 0
        for stage, folder, size in self.entries():
            with contextlib.suppress(EdgekdError), _locked(folder, stage):
                _remove(folder)
                freed += size
                # Whoever waits for it sees that it is gone, and makes another.
                folder.with_suffix(".lock").unlink(missing_ok=True)
        return freed


def _is_artefact(folder: Path) -> bool:
    """Whether `Store.make` has made a folder: by its name, and a finished one by its manifest."""
    name, _, rest = folder.name.partition(".")
    if folder.is_symlink() or not folder.is_dir() or not _DIGEST.fullmatch(name):
        return False
    return (folder / MANIFEST).is_file() if not rest else rest == "work" or rest.startswith("damaged")


def _remove(folder: Path) -> None:
    """Remove an artefact; of a finished one what its manifest names, and what somebody else has put there stays."""
    manifest = read_manifest(folder) if _DIGEST.fullmatch(folder.name) else None
    if manifest is None:
        shutil.rmtree(folder)
        return
    for name in (*manifest["files"], MANIFEST):
        if not Path(name).is_absolute() and ".." not in Path(name).parts:
            (folder / name).unlink(missing_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _set_aside(folder: Path) -> None:
    """Keep what no longer is what its manifest says, for whoever wants to know how; it is cleared like all else."""
    for number in range(1000):
        aside = folder.with_suffix(f".damaged{number}")
        if not aside.exists():
            folder.rename(aside)
            return


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest of a finished artefact, or None where there is none that can be read."""
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # Earlier versions kept sizes, and no checksum of the manifest itself, which tell too little.
    known = isinstance(manifest, dict) and {"files", "result", "seconds", _OWN_SUM} <= manifest.keys()
    sums = manifest["files"] if known else None
    return manifest if isinstance(sums, dict) and all(isinstance(digest, str) for digest in sums.values()) else None


def _whole(folder: Path, manifest: Mapping[str, Any] | None) -> bool:
    """Whether there is a manifest, and it and every file hold the bytes that were written, by their SHA-256."""
    if manifest is None or manifest[_OWN_SUM] != _sum_of(manifest):
        return False
    try:
        return all(sha256_of(folder / name) == expected for name, expected in manifest["files"].items())
    except OSError:
        return False


def check_file(path: Path) -> None:
    """Refuse a file that could not be written, before anything is measured for it.

    Raises:
        UsageError: It is a folder, protected or a pipe that nobody reads, or its own folder is not there or cannot be
            written to.
    """
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK)):
        raise UsageError(f"{path}: there is no folder {path.parent} that can be written to: make it, or name another")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file")
    if path.exists() and not os.access(path, os.W_OK):
        raise UsageError(f"{path} is write-protected: name another file")
    if path.is_fifo():
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            raise UsageError(f"{path} is a pipe that nobody reads: name a file") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write in the place of another, which is then either the old one or the whole new one.

    A link is replaced, not followed.
    """
    temporary = path.with_name(path.name + ".tmp")
    # What lies there may be a link to somewhere else.
    temporary.unlink(missing_ok=True)
    yield temporary
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _write_manifest(work: Path, manifest: dict[str, Any]) -> None:
    files = {
        str(f.relative_to(work)): sha256_of(f) for f in sorted(work.rglob("*")) if f.is_file() and f.name != MANIFEST
    }
    # As it will be read: a key that is no string would be sorted otherwise.
    manifest = json.loads(json.dumps(manifest | {"files": files}))
    write_json(work / MANIFEST, manifest | {_OWN_SUM: _sum_of(manifest)})


def _sum_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest but for this sum itself."""
    content = {key: value for key, value in manifest.items() if key != _OWN_SUM}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def held(path: Path, refusal: EdgekdError) -> Iterator[None]:
    """Hold a lock file, which a kill frees, until the end of the block.

    Raises:
        EdgekdError: `refusal`, where another process holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise refusal from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _awaited(folder: Path, stage: str) -> Iterator[None]:
    """Hold an artefact's lock, once whoever holds it has finished or died."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_locked(folder, stage))
        except EdgekdError:
            from filelock import FileLock

            log.warning("note: another run is making the same %s step; waiting for it", stage)
            stack.enter_context(FileLock(folder.with_suffix(".lock")).acquire(poll_interval=0.2))
        yield


def _locked(folder: Path, stage: str) -> contextlib.AbstractContextManager[None]:
    path = folder.with_suffix(".lock")
    return held(path, EdgekdError(f"another edgekd process is working on the same {stage} step ({path})"))
