"""Rows as the user's files or a hub set hold them, before columns get a meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgekd.errors import DataError

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """One file, or one split of a hub set.

    Attributes:
        origin: The file's name, or the set's and the split's.
        rows: Column name to value.
        numbers: The row numbers people see: lines of a text file (a CSV's header is row 1), else rows from 1.
        classes: Class names of integer columns, where the source knows them.
        notes: What was done while reading.
        parts: Of several files, each one's name and its first row (from 0).
    """

    origin: str
    rows: list[Row]
    numbers: list[int]
    classes: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    parts: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.rows:
            raise DataError(f"{self.origin}: no rows")

    @property
    def names(self) -> list[str]:
        """All columns, in the order in which they first occur."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def error(self, i: int, message: str) -> DataError:
        """An error about row i (from 0)."""
        origin = next((name for name, first in reversed(self.parts) if first <= i), self.origin)
        return DataError(f"{origin}, row {self.numbers[i]}: {message}")


def joined(tables: list[Table]) -> Table:
    """The rows of several files as one table; errors name the file of their row."""
    first = tables[0]
    if len(tables) == 1:
        return first
    starts = [sum(len(table.rows) for table in tables[:i]) for i in range(len(tables))]
    return Table(
        f"{first.origin} and {len(tables) - 1} more",
        [row for table in tables for row in table.rows],
        [number for table in tables for number in table.numbers],
        first.classes,
        tuple(note for table in tables for note in table.notes),
        tuple((table.origin, start) for table, start in zip(tables, starts, strict=True)),
    )
