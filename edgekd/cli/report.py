"""`edgekd report`: write a bundle's report again."""

from __future__ import annotations

from pathlib import Path

import click

from edgekd.cli.console import error_console
from edgekd.errors import require
from edgekd.store import check_file


@click.command(name="report")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [default: the bundle's]")
@click.option("--format", "kind", type=click.Choice(["html", "markdown", "json"]), default="html", show_default=True)
def command(bundle: Path, out: Path | None, kind: str) -> None:
    """Render the result of BUNDLE again, as HTML, Markdown or JSON."""
    from edgekd.reading import inside
    from edgekd.records.result import read_result
    from edgekd.store import write_text

    result = read_result(inside(bundle, "result.json"))
    names = {"html": "report.html", "markdown": "README.md", "json": "result.json"}
    path = out or bundle / names[kind]
    check_file(path)
    if kind == "html":
        require("matplotlib", "cpu", "draw the report")
        from edgekd.report.html import write_html

        write_html(result, path)
    elif kind == "markdown":
        from edgekd.report.model_card import model_card

        write_text(path, model_card(result))
    else:
        write_text(path, result.model_dump_json(indent=1) + "\n")
    if path.resolve().parent == bundle.resolve() and path.name in result.files:
        from edgekd.report.write import rewritten

        rewritten(bundle, result, path.name)
    error_console().print(f"written: {path}")
