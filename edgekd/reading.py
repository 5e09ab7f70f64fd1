"""Files that others may have made, read within limits: none fills the memory, blocks, or leads elsewhere.

Imports the standard library alone until YAML is read, so that the runtime can use it too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from edgekd.errors import UsageError

MOST_BYTES = 128 * 2**20
"""Of a file of text that is read whole; the largest tokenizer.json at hand has 33 MiB."""

MOST_MODEL_BYTES = 8 * 2**30
"""Of any file of a bundle; ONNX itself ends at 2 GiB."""

_MOST_SETTINGS = 2**20
_MOST_ALIASES, _DEEPEST = 100, 50


def inside(folder: Path, name: str) -> Path:
    """A file of a folder that somebody else may have made.

    Raises:
        UsageError: It is a link that leads out of the folder. The blobs of a hub's cache are the exception.
    """
    path = folder / name
    try:
        home, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError) as error:  # the second before Python 3.13
        raise UsageError(f"{path}: a link that leads nowhere; copy the file itself there") from error
    # A snapshot in the hub's cache: models--NAME/snapshots/REVISION, whose files are links to models--NAME/blobs.
    homes = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]
    if not any(target.is_relative_to(one) for one in homes):
        raise UsageError(f"{path}: a link that leads out of the folder: put the file itself there")
    return path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(path: Path) -> str:
    """`sha256_of` a file that somebody else may have made.

    Raises:
        UsageError: It is larger than any file of a bundle.
    """
    if (size := path.stat().st_size) > MOST_MODEL_BYTES:
        raise UsageError(f"{path}: {size / 2**30:,.0f} GiB, which no file of a bundle has; copy the bundle again")
    return sha256_of(path)


def read_text(path: Path, mend: str = "make it again", most: int = MOST_BYTES) -> str:
    """Read a file whole.

    Args:
        mend: What the user should do where it cannot be read.
        most: Bytes that it may have.

    Raises:
        UsageError: Missing, no file, too large, not UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: not a file; {mend}")
        if (size := path.stat().st_size) > most:
            raise UsageError(f"{path}: {size / 2**20:,.0f} MiB, and at most {most / 2**20:,.0f} are read; {mend}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); {mend}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8; {mend}") from error


def read_json(path: Path, mend: str = "make it again") -> Any:
    """Read JSON.

    Args:
        mend: What the user should do where it cannot be read.

    Raises:
        UsageError: As `read_text`, or not JSON, or deeper than Python reads it.
    """
    text = read_text(path, mend)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}); {mend}") from error
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{path}: JSON that is too deep, or has a number that is too long; {mend}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping of settings.

    Raises:
        UsageError: As `read_text`, or no mapping, a key given twice, too deep, or with too many aliases.
    """
    import yaml

    text = read_text(path, "name a file of settings", _MOST_SETTINGS)
    try:
        # The loader is a SafeLoader.
        content = yaml.load(text, Loader=_loader())  # noqa: S506
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}" if place is not None else ""
        problem = getattr(error, "problem", None) if isinstance(error, yaml.constructor.ConstructorError) else None
        raise UsageError(f"{path}{where}: {problem or 'not valid YAML'}") from error
    except (RecursionError, ValueError, OverflowError) as error:
        raise UsageError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a mapping of settings, got {type(content).__name__}")
    return content


def _loader() -> Any:
    """PyYAML's safe loader, with what it lacks: a key is given once, and neither aliases nor depth explode."""
    import yaml

    class Loader(yaml.SafeLoader):
        aliases = depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            mark = event.start_mark
            self.aliases += isinstance(event, yaml.events.AliasEvent)
            self.depth += 1
            if self.aliases > _MOST_ALIASES or self.depth > _DEEPEST:
                what = "aliases" if self.aliases > _MOST_ALIASES else "levels"
                raise yaml.constructor.ConstructorError(None, None, f"too many {what}", mark)
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if not isinstance(key.value, str) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                if key.value in seen:
                    problem = f"{key.value!r} is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader
