"""The members of a family: what is asked of each, and whether the family's folder may hold them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edgekd.bundle import check_out
from edgekd.errors import UsageError
from edgekd.pipeline.demo import kept_request
from edgekd.settings.profile import override
from edgekd.settings.request import Request

# What a family's folder holds beside its members: its table, and hidden ones in which a run works.
_OURS = re.compile(r"family\.json|\..+\.edgekd-.+")
_MEMBER = re.compile(r"[0-9.e+-]+ms")


def folder_of(budget_ms: float) -> str:
    """Name of a member's folder, such as "2.5ms"."""
    return f"{budget_ms:g}ms"


def requests_of(request: Request, budgets: Sequence[float], out: Path, overwrite: bool) -> dict[str, Request]:
    """What each member is asked for, by its folder in `out`.

    A folder that is new or empty may become a family's, and one that holds nothing but a family: its members are made
    again where they are of the same request, and those of other budgets stay.

    Args:
        request: What is asked for; its budget is replaced.
        budgets: In milliseconds, ascending.
        overwrite: Replace members of other requests.

    Raises:
        UsageError: `out` holds something else, two budgets are too near, or a member may not be put in its folder.
    """
    if any((out / name).is_file() for name in ("verdict.json", "edgekd.yaml")):
        raise UsageError(f"--out {out} is a bundle: a family needs its own folder")
    if not _is_family(out):
        # Nothing is replaced but members: what is here, or is read from here, is no family's.
        check_out(out, request, overwrite=False)
    found = {
        folder_of(budget): request.model_copy(
            update={"profile": override(request.profile, {"budget.latency_ms": budget})}
        )
        for budget in budgets
    }
    if len(found) < len(budgets):
        raise UsageError("--family: two budgets are too near to each other to have folders of their own")
    found = {folder: kept_request(asked) for folder, asked in found.items()}
    for folder, asked in found.items():
        check_out(out / folder, asked, overwrite)
    return found


def _is_family(out: Path) -> bool:
    """Whether a folder holds a family, be it unfinished, and nothing else."""
    held = list(out.iterdir()) if out.is_dir() else []
    return bool(held) and all(
        _OURS.fullmatch(path.name) or (path.is_dir() and _MEMBER.fullmatch(path.name)) for path in held
    )
