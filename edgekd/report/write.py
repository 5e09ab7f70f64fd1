"""Everything that is written about a result, into the bundle."""

from __future__ import annotations

from pathlib import Path

from edgekd.bundle import checksums
from edgekd.profiles import save_request
from edgekd.records.plan import Plan
from edgekd.records.result import Result
from edgekd.records.verdict import verdict_json
from edgekd.report.html import REPORT, write_html
from edgekd.report.model_card import model_card
from edgekd.settings.request import Request
from edgekd.store import write_json, write_text

# Written after the checksums are taken, or holding them.
_LAST = ("verdict.json", "result.json")


def write_reports(folder: Path, result: Result, request: Request, plan: Plan) -> Result:
    """Write request, plan, card, report and verdict; return the result with the checksums of all files."""
    save_request(request, folder / "edgekd.yaml")
    (folder / "plan.json").write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(result), encoding="utf-8")
    # The report names the model's checksum, so it is rendered with what is there before it.
    result = result.model_copy(update={"files": checksums(folder, leave_out=_LAST)})
    write_html(result, folder / REPORT)
    result = result.model_copy(update={"files": checksums(folder, leave_out=_LAST)})
    _write_sums(folder, result)
    return result


def rewritten(folder: Path, result: Result, name: str) -> None:
    """Take a file of a bundle that was rendered again into its checksums; the others stay as they were proven."""
    files = result.files | {name: checksums(folder)[name]}
    _write_sums(folder, result.model_copy(update={"files": files}))


def _write_sums(folder: Path, result: Result) -> None:
    write_text(folder / "result.json", result.model_dump_json() + "\n")
    write_json(folder / "verdict.json", verdict_json(result))
