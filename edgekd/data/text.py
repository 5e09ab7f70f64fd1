"""Plain text to learn from without labels, from a file or a folder of files."""

from __future__ import annotations

from pathlib import Path

from edgekd.data.convert import convert
from edgekd.data.files import EXTENSIONS, READERS, read_table, suffix_of
from edgekd.errors import DataError
from edgekd.settings.columns import Columns
from edgekd.settings.task import TextClassification


def read_texts(source: str | Path, columns: Columns | None = None) -> tuple[list[str], list[str]]:
    """Read texts, each once, in the order of the files' names.

    Args:
        source: A file, or a folder whose files are all read, whatever they are called.
        columns: The column of the texts, where it has no usual name.

    Returns:
        The texts, and notes on what was left out.

    Raises:
        DataError: There is nothing to read, or a row is wrong; one line names the file and the row.
    """
    # Nothing is judged on these: labels beside the texts are no leak.
    columns = (columns or Columns()).model_copy(update={"drop_labels": True})
    path = Path(source).expanduser()
    files = [path]
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.is_file() and suffix_of(f) in READERS)
        if not files:
            raise DataError(f"{path}: no file with {EXTENSIONS}")
    texts: list[str] = []
    notes: list[str] = []
    for file in files:
        table = read_table(file)
        split, remarks = convert(table, "unlabeled", TextClassification(), columns)
        texts += split.texts
        notes += [*table.notes, *remarks]
    once = list(dict.fromkeys(texts))
    if len(once) < len(texts):
        notes.append(f"{len(texts) - len(once)} of {len(texts)} texts left out: repeated")
    return once, notes
