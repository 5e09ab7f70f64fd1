"""A kit as a zip: a script, its data, and those modules of this package that it needs, copied as they are."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import edgekd
from edgekd.remote.kit import CODE, KIT, SCHEMA_VERSION, seal
from edgekd.resources import resource
from edgekd.store import replacing

MEASURING = (
    "__init__.py", "errors.py", "onnx_session.py", "reading.py", "store.py", "latency/__init__.py", "latency/child.py",
    "latency/clocks.py", "latency/interval.py", "latency/judge.py", "latency/machine.py", "latency/measure.py",
    "latency/speed_kernel.py", "latency/timer.py", "remote/__init__.py", "remote/kit.py",
)  # fmt: skip
"""What times a model: it imports the standard library, numpy and onnxruntime."""

_OPSETS = {17: "1.12", 18: "1.14", 19: "1.15", 20: "1.17", 21: "1.18"}
_IR_VERSIONS = {8: "1.12", 9: "1.15", 10: "1.18"}


def pack(
    path: Path, template: str, modules: Sequence[str], content: Mapping[str, Any], files: Mapping[str, Path]
) -> int:
    """Write a kit.

    Args:
        path: The zip, in a folder that is there.
        template: Folder under `export/` with the script and its README.
        modules: Files of this package that the script imports.
        content: What kit.json holds, beside version, checksums and seal.
        files: Further files, by their place in the kit.

    Returns:
        Its size in bytes.
    """
    package = Path(edgekd.__file__).parent
    members = {source.name: source for source in sorted((resource("export") / template).iterdir()) if source.is_file()}
    members |= {f"{CODE}/{name}": package / name for name in modules} | dict(files)
    sums = {}
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in members.items():
            data = source.read_bytes()
            sums[name] = hashlib.sha256(data).hexdigest()
            archive.writestr(_entry(name), data)
        own = {"schema_version": SCHEMA_VERSION, "edgekd": edgekd.__version__, "files": sums}
        archive.writestr(_entry(KIT), json.dumps(seal({**content, **own}), indent=1) + "\n")
    return path.stat().st_size


def oldest_runtime(opset: int, ir_version: int) -> str:
    """The oldest onnxruntime that reads a graph, such as "1.12"."""
    # Both tables are onnxruntime's own (docs/Versioning.md); what they lack is newer than they are.
    needs = [_OPSETS.get(max(opset, 17), "1.20"), _IR_VERSIONS.get(max(ir_version, 8), "1.20")]
    return max(needs, key=lambda version: [int(part) for part in version.split(".")])


def _entry(name: str) -> zipfile.ZipInfo:
    """A member with a fixed date: the same kit gives the same bytes."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
