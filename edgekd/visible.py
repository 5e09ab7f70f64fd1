"""Text of others on a terminal or a page: characters that steer, or hide what is written, become visible."""

from __future__ import annotations

_CONTROL = [*range(0x20), *range(0x7F, 0xA0)]
# Line separators, and marks that turn the direction of what follows.
_HIDING = [0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_KEPT = {0x09, 0x0A}
_TABLE = {code: f"\\u{code:04x}" for code in [*_CONTROL, *_HIDING] if code not in _KEPT}


def visible(text: str) -> str:
    r"""The text with each control character but tab and newline written as JSON does, `\u001b`."""
    return text.translate(_TABLE)
