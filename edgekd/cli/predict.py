"""`edgekd predict`: answers of a bundle, one JSON object a text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from edgekd import api
from edgekd.cli.console import note
from edgekd.cli.options import columns_of
from edgekd.data.stream import FORMATS, open_texts
from edgekd.errors import DataError, ExitCode, UsageError
from edgekd.visible import visible


@click.command(name="predict")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path), default="-")
@click.option("--format", "form", type=click.Choice(FORMATS), help="What FILE is.  [default: by its name]")
@click.option("--text-column", help="Column of the texts.")
@click.option("--pair-column", help="Column of the second texts.")
@click.option("--tokens-column", help="Column of the words.")
@click.option("--all-scores", is_flag=True, help="Every label's probability, not the best one's alone.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Texts run at once.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: as the bundle was measured]")
def command(bundle: Path, file: Path, form: str | None, **flags: Any) -> int:
    """Answer the texts of FILE with BUNDLE, one JSON object a line on stdout, in order.

    An INT8 model's answer on the edge between two labels may change with the texts beside it: --batch-size 1 answers as
    the bundle was judged, slower.

    FILE holds texts one a line, or is a table (.jsonl, .csv, .tsv, each also .gz) with a column of texts. Without FILE,
    or with -, stdin is read and answered as it comes.
    """
    model = api.load(bundle, threads=flags["threads"])
    for flag, applies in (("pair_column", model.config.pair), ("tokens_column", model.config.per_word)):
        if flags[flag] is not None and not applies:
            raise UsageError(f"--{flag.replace('_', '-')}: this model's task is {model.config.task}: leave it out")
    if flags["threads"] is not None and flags["threads"] > model.threads:
        note(f"--threads {flags['threads']}: this process may use {model.threads}")
    if str(file) == "-" and sys.stdin.isatty():
        click.echo("type texts, one a line; Ctrl-D ends", err=True)
    source = sys.stdin.buffer if str(file) == "-" else file
    answered = 0
    try:
        for part in open_texts(source, form, model.config, columns_of(flags)):
            # A pair's two texts go together; a text alone, and a text's words, are one value.
            values = (tuple(asked.values()) for asked in part)
            texts: list[Any] = list(values) if model.config.pair else [one for (one,) in values]
            answers = model.predict(texts, batch_size=flags["batch_size"], all_scores=flags["all_scores"])
            _write(asked | answer for asked, answer in zip(part, answers, strict=True))
            answered += len(part)
    except KeyboardInterrupt:
        click.echo(f"interrupted: answered so far: {answered}", err=True)
        return ExitCode.INTERRUPTED
    if not answered:
        raise DataError(f"{'standard input' if str(file) == '-' else file}: no texts")
    if model.truncated:
        length = model.config.max_length
        note(f"{model.truncated} of {answered} texts have more than {length} tokens and were cut")
    return ExitCode.MET


def _write(rows: Iterable[Mapping[str, Any]]) -> None:
    """As UTF-8, whatever the terminal's locale can encode."""
    # JSON escapes what steers a terminal only in part.
    lines = "".join(visible(json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    sys.stdout.buffer.write(lines.encode("utf-8", "replace"))
    sys.stdout.buffer.flush()
