import json
from collections.abc import Callable
from pathlib import Path

import pytest


def jsonl(rows: list) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Write files: `folder(train=[rows], **{"test.csv": "text"})` gives a folder to read."""

    def write(**files: object) -> Path:
        for name, content in files.items():
            file = tmp_path / (name if "." in name else f"{name}.jsonl")
            if isinstance(content, bytes):
                file.write_bytes(content)
            else:
                file.write_text(content if isinstance(content, str) else jsonl(content), encoding="utf-8")
        return tmp_path

    return write


def labelled(count: int, labels: str = "ab", start: int = 0) -> list[dict]:
    return [{"text": f"text {i}", "label": labels[i % len(labels)]} for i in range(start, start + count)]
