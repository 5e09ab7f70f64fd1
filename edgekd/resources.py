"""Where the shipped data files are: in the checkout, or inside the installed package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

ANSWERING = (
    "onnx_session.py", "reading.py", "runtime/__init__.py", "runtime/answers.py", "runtime/config.py",
    "runtime/encodings.py", "runtime/model.py", "runtime/tags.py", "runtime/tokenise.py", "runtime/words.py",
)  # fmt: skip
"""The files of this package that serve a bundle; they import numpy, tokenizers and onnxruntime."""


def resource(folder: str) -> Path:
    """Return the folder `profiles` or `export`, wherever this installation keeps it.

    A checkout (pyproject.toml stands beside the package) is read in place, so that an edit counts at once;
    an installed wheel carries the same folders under `edgekd/_data`.

    Args:
        folder: "profiles" or "export".

    Raises:
        FileNotFoundError: The installation is incomplete.
    """
    root = _PACKAGE.parent
    path = root / folder if (root / "pyproject.toml").is_file() else _PACKAGE / "_data" / folder
    if not path.is_dir():
        raise FileNotFoundError(f"this installation of edgekd has no folder {folder!r} (looked at {path})")
    return path
