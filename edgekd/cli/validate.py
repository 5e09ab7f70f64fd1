"""`edgekd validate`: measure a bundle against its budget, here and now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.options import json_option
from edgekd.errors import ExitCode, UsageError, require

_CODES = {"met": ExitCode.MET, "missed": ExitCode.MISSED, "inconclusive": ExitCode.INCONCLUSIVE}


@click.command(name="validate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--latency-ms", type=float, help="Another budget than the bundle's.")
@click.option("--percentile", type=float, help="Another percentile than the bundle's.")
@json_option
def command(bundle: Path, **flags: Any) -> int:
    """Check BUNDLE's files against their checksums, then measure it and judge its latency budget.

    Nothing is answered from an earlier run: every call measures.
    """
    if not bundle.is_dir():
        raise UsageError(f"{bundle}: no such bundle")
    require("onnxruntime", "runtime", "run a bundle")
    from edgekd.recheck import recheck

    console = error_console()
    judgement = recheck(bundle, flags["latency_ms"], flags["percentile"], ConsoleProgress(console))
    value = judgement.measurement.percentile(judgement.percentile)
    console.print(f"{judgement.outcome}: p{judgement.percentile:g} {value:.2f} ms; {judgement.reason}")
    if flags["as_json"]:
        click.echo(json.dumps(judgement.to_json()))
    return int(_CODES[judgement.outcome])
