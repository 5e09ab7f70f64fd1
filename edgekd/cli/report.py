"""`edgekd report`: write a bundle's report again."""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.console import error_console
from edgekd.errors import require
from edgekd.remote.kit import check_file


@click.command(name="report")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [default: the bundle's]")
@click.option("--format", "kind", type=click.Choice(["html", "markdown", "json"]), default="html", show_default=True)
def command(bundle: Path, out: Path | None, kind: str) -> None:
    """Render the result of BUNDLE again, as HTML, Markdown or JSON."""
    from edgekd.records.result import read_result

    result = read_result(bundle / "result.json")
    names = {"html": "report.html", "markdown": "README.md", "json": "result.json"}
    path = out or bundle / names[kind]
    check_file(path)
    if kind == "html":
        require("matplotlib", "cpu", "draw the report")
        from edgekd.report.html import write_html

        write_html(result, path)
    elif kind == "markdown":
        from edgekd.report.model_card import model_card

        path.write_text(model_card(result), encoding="utf-8")
    else:
        path.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if path.resolve().parent == bundle.resolve() and path.name in result.files:
        from edgekd.report.write import rewritten

        rewritten(bundle, result, path.name)
    error_console().print(f"written: {path}")
