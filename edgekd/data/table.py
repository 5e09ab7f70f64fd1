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
    """

    origin: str
    rows: list[Row]
    numbers: list[int]
    classes: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rows:
            raise DataError(f"{self.origin}: no rows")

    @property
    def names(self) -> list[str]:
        """All columns, in the order in which they first occur."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def error(self, i: int, message: str) -> DataError:
        """An error about row i (from 0)."""
        return DataError(f"{self.origin}, row {self.numbers[i]}: {message}")
