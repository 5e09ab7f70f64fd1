"""`edgekd distill --task-agnostic`: a general, compact encoder from raw text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from edgekd.cli.console import ConsoleProgress, error_console
from edgekd.cli.options import columns_of, named, new_folder, store_of
from edgekd.errors import UsageError, require

F = TypeVar("F", bound=Callable[..., Any])

# Losses that need no task head.
_LOSSES = (
    "minilmv2", "minilm", "attention_maps", "hidden_mse", "hidden_cosine", "pkd", "hidden_ce", "mi", "infonce",
    "mlm_logits",
)  # fmt: skip

# Flags that need --task-agnostic, and those of a plan's student that go with it.
_OWN = ("text", "student_shape", "loss", "epochs", "learning_rate", "max_steps")
_SHARED = ("task_agnostic", "teacher", "text_column", "max_length", "seed", "out", "overwrite", "cache_dir", "as_json")


def agnostic_options(function: F) -> F:
    """--task-agnostic and its flags."""
    options = (
        click.option("--task-agnostic", is_flag=True, help="Distil a general encoder from raw text, for `teach`."),
        click.option("--text", help="With --task-agnostic: a file or folder of texts."),
        click.option("--student-shape", help="With --task-agnostic, such as 6x384x1536h12: layers, width, FFN, heads."),
        click.option("--loss", type=click.Choice(_LOSSES), help="With --task-agnostic.  [default: minilmv2]"),
        click.option("--epochs", type=float, help="With --task-agnostic: passes over the texts.  [default: 3]"),
        click.option("--learning-rate", type=float, help="With --task-agnostic: the peak.  [default: 0.0005]"),
        click.option("--max-steps", type=int, help="With --task-agnostic: stop at so many steps."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def check_flags(*, agnostic: bool) -> None:
    """Refuse flags of the other kind of distillation.

    Raises:
        UsageError: One was given.
    """
    context = click.get_current_context()
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    for name in given:
        flag = f"--{name.replace('_', '-')}"
        if agnostic and name not in _OWN + _SHARED:
            raise UsageError(f"{flag} does not go with --task-agnostic: leave one of them out")
        if not agnostic and name in _OWN:
            raise UsageError(f"{flag} needs --task-agnostic")


def run(flags: dict[str, Any]) -> None:
    """Distil the encoder and write its folder."""
    teacher, source = named("--teacher", flags["teacher"]), named("--text", flags["text"])
    student = named("--student-shape", flags["student_shape"])
    out = new_folder(flags)
    require("torch", "cpu", "train an encoder")
    from edgekd.data.text import read_texts
    from edgekd.output import building, publish
    from edgekd.session import Session, distill_encoder_from

    spec = _spec(flags)
    console = error_console()
    progress = ConsoleProgress(console)
    texts, notes = read_texts(source, columns_of(flags))
    for note in (f"{len(texts)} texts", *notes):
        progress.say(f"text: {note}")
    session = Session.open(store_of(flags["cache_dir"]), progress)
    with building(out) as work:
        made = distill_encoder_from(session, teacher, texts, student, flags["max_length"] or "auto", spec)
        shutil.copytree(made.path, work, ignore=shutil.ignore_patterns("manifest.json"), dirs_exist_ok=True)
        publish(work, out)
    before, after = made.result["held_out_before"], made.result["held_out_after"]
    console.print(
        f"encoder written to {out}: {made.result['loss']} on held-out texts {after:.4g} ({before:.4g} before; first "
        f"weights: {made.result['first_weights']}); next: edgekd teach --encoder {out} --data ..."
    )
    if flags["as_json"]:
        click.echo(json.dumps({"out": str(out), **made.result}))


def _spec(flags: dict[str, Any]) -> Any:
    from edgekd.settings.base import validated
    from edgekd.settings.distill import Agnostic

    content = Agnostic().model_dump(mode="json")
    if flags["loss"] is not None:
        content["loss"] = {"name": flags["loss"]}
    for name in ("epochs", "learning_rate"):
        if flags[name] is not None:
            content["training"][name] = flags[name]
    for name in ("max_steps", "seed"):
        if flags[name] is not None:
            content[name] = flags[name]
    return validated(Agnostic, content, "flags")
