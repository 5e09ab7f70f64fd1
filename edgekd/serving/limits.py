"""What one request to the server may ask for."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from edgekd.errors import UsageError

_MOST = 1e9


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, how long it may take, and how many may wait; each is a flag, `--max-texts`.

    A third of a second's requests at a millisecond or so each may wait: what a pause of the machine leaves behind is
    answered late, not refused.

    Raises:
        UsageError: One refuses every request.
    """

    texts: int = field(default=64, metadata={"help": "Texts a request (413)."})
    characters: int = field(default=20_000, metadata={"help": "Characters a text (413)."})
    body_bytes: int = field(default=1_048_576, metadata={"help": "Bytes a body (413)."})
    waiting: int = field(default=256, metadata={"help": "Requests that may wait for a CPU (429)."})
    connections: int = field(default=512, metadata={"help": "Connections that ask nothing; the most silent is closed."})
    header_seconds: float = field(default=10.0, metadata={"help": "For a request's headers to arrive."})
    body_seconds: float = field(default=20.0, metadata={"help": "For a body to arrive (408)."})
    seconds: float = field(default=30.0, metadata={"help": "For a request to be answered (503)."})

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not value <= _MOST or value < 0 or (value == 0 and one.name != "waiting"):
                raise UsageError(f"{flag_of(one.name)} {value}: too small, or too large")


def flag_of(name: str) -> str:
    """The flag of a limit."""
    return f"--max-{name.replace('_', '-')}"
