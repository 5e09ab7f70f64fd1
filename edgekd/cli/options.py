"""Options that several commands share, so that a flag is spelled and explained once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from edgekd.errors import UsageError
from edgekd.profiles import load_profile
from edgekd.settings.augment import AugmentationSpec
from edgekd.settings.base import SettingError
from edgekd.settings.columns import Columns
from edgekd.settings.profile import Profile, override
from edgekd.settings.request import Request
from edgekd.settings.select import Method
from edgekd.settings.task import TASKS, TaskSpec
from edgekd.store import Store, default_root

# Augmentations that need nothing but the texts: no field of theirs must be given.
_PLAIN_POLICIES = [
    kind.model_fields["name"].default
    for kind in get_args(get_args(AugmentationSpec)[0])
    if not any(field.is_required() for field in kind.model_fields.values())
]

F = TypeVar("F", bound=Callable[..., Any])

# Flag name (as Python sees it): the profile's field that it overrides.
OVERRIDES = {
    "latency_ms": "budget.latency_ms",
    "percentile": "budget.percentile",
    "threads": "target.threads",
    "clock": "target.clock",
    "max_length": "workload.max_length",
    "batch_size": "workload.batch_size",
    "judge": "workload.judge",
    "precision": "target.precisions",
    "always_distill": "search.always_distill",
    "min_retained": "accept.min_retained",
    "max_mb": "accept.max_mb",
    "max_memory_mb": "accept.max_memory_mb",
    "seed": "distill.seed",
    "choose_graph": "export.choose",
    "assistants": "distill.assistants",
    "select": "search.select",
}


if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    # Generic since click 8.4 only.
    _ParamType = click.ParamType


class Length(_ParamType):
    """A number of tokens, or "auto"."""

    name = "auto|tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """See `click.ParamType.convert`."""
        if value == "auto":
            return "auto"
        try:
            length = int(value)
        except ValueError:
            self.fail(f"{value!r} is neither 'auto' nor a number of tokens", param, ctx)
        if length < 4:
            self.fail(f"{length} tokens is too short for any text (at least 4)", param, ctx)
        return length


def _apply(options: list[Callable[[F], F]]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def transfer_options(function: F) -> F:
    """What is added to the target texts."""
    return _apply(
        [
            click.option("--generic", help="File or folder of generic texts: those like yours are added."),
            click.option("--generic-ratio", type=float, help="Generic texts for each of yours.  [default: 1]"),
            click.option("--generic-size", type=int, help="Generic texts in all, instead of a ratio."),
            click.option(
                "--generic-method", type=click.Choice(get_args(Method)), help="How they are chosen.  [default: cascade]"
            ),
            click.option(
                "--augment", multiple=True, type=click.Choice(_PLAIN_POLICIES),
                help="Make new texts this way too; may be given again. Policies that need a model: in a profile.",
            ),
        ]
    )(function)  # fmt: skip


def profile_options(function: F) -> F:
    """--profile and the flags that override its fields."""
    return _apply(
        [
            click.option("--profile", help="A shipped profile, or a YAML file.  [default: cpu]"),
            click.option("--latency-ms", type=float, help="The budget: milliseconds a call."),
            click.option(
                "--percentile", type=float, help="Percentile the budget is on, in percent: 95, not 0.95.  [default: 95]"
            ),
            click.option("--threads", type=int, help="CPU threads of the runtime."),
            clock_option,
            click.option("--max-length", type=Length(), help="Tokens a text; longer ones are cut.  [default: auto]"),
            click.option("--batch-size", type=int, help="Texts a call.  [default: 1]"),
            click.option("--judge", type=click.Choice(["fixed", "replay"]), help="Texts the budget is judged on."),
            click.option("--precision", type=click.Choice(["fp32", "int8"]), help="Deploy only this."),
            click.option("--min-retained", type=float, help="Share of the teacher's metric to keep."),
            click.option("--max-mb", type=float, help="Largest model.onnx."),
            click.option("--max-memory-mb", type=float, help="Most memory of the process that runs the bundle."),
            click.option("--seed", type=int, help="Seed of the student's training."),
            transfer_options,
        ]
    )(function)


def clock_option(function: F) -> F:
    """--clock."""
    return click.option(
        "--clock", type=click.Choice(["service", "response"]),
        help="Judge CPU time of the calling thread, or the wall clock.  [default: service for one CPU thread]",
    )(function)  # fmt: skip


def data_options(function: F) -> F:
    """--data and how to read it."""
    return _apply(
        [
            click.option("--data", help="Folder, file, or hub id of the data."),
            click.option("--data-config", help="Configuration of a hub dataset."),
            click.option("--task", type=click.Choice(list(TASKS)), help="Task."),
            click.option("--text-column", help="Column of the texts."),
            click.option("--pair-column", help="Column of the second texts."),
            click.option("--label-column", help="Column of the labels, or of the values."),
            click.option("--tokens-column", help="Column of the words."),
            click.option("--tags-column", help="Column of the tags."),
            click.option("--strict", is_flag=True, help="Refuse illegal BIO tags instead of repairing them."),
            click.option("--drop-labels", is_flag=True, help="Take an unlabeled file that has labels, without them."),
        ]
    )(function)


def outputs_option(function: F) -> F:
    """--teacher-outputs."""
    return click.option(
        "--teacher-outputs", help="Parquet or JSON Lines file of another teacher's outputs, to make a teacher of."
    )(function)


def assistants_option(function: F) -> F:
    """--assistants; a fixed chain has shapes, which a profile holds."""
    return click.option(
        "--assistants",
        type=click.Choice(["none", "auto", "ratio", "lambda", "exhaustive"]),
        help="Models trained between teacher and student.  [default: auto]",
    )(function)


def store_option(function: F) -> F:
    """--cache-dir."""
    return click.option(
        "--cache-dir", type=click.Path(path_type=Path, file_okay=False), help="Where finished steps are kept."
    )(function)


def json_option(function: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")(function)


def resolve_profile(name: str | None, flags: dict[str, Any]) -> Profile:
    """Load the profile (None: "cpu") and override its fields with the flags that were given."""
    return overridden(load_profile(name or "cpu", store_of(flags.get("cache_dir"))), flags)


def overridden(profile: Profile, flags: dict[str, Any]) -> Profile:
    """The profile with its fields overridden by the flags that were given."""
    for flag, field in OVERRIDES.items():
        value = flags.get(flag)
        if value is None or (flag == "always_distill" and not value):
            continue
        written: Any = {"precision": [value], "assistants": {"name": value}}.get(flag, value)
        try:
            profile = override(profile, {field: written})
        except SettingError as error:
            # The field's path means nothing to whom typed a flag.
            why = error.why
            raise UsageError(f"--{flag.replace('_', '-')} {value}: {why[:1].lower()}{why[1:]}") from error
    return _with_transfer(profile, flags)


def _with_transfer(profile: Profile, flags: dict[str, Any]) -> Profile:
    """The profile with what `transfer_options` ask for."""
    transfer = profile.transfer.model_dump(mode="json")
    given = {field: flags.get(f"generic_{field}") for field in ("ratio", "size", "method")}
    given = {field: value for field, value in given.items() if value is not None}
    if flags.get("generic") is not None:
        given["path"] = named("--generic", flags["generic"])
    if given and "path" not in given and transfer["generic"] is None:
        raise UsageError(f"--generic-{next(iter(given))} goes with --generic: name a file or folder of generic texts")
    if given:
        transfer["generic"] = (transfer["generic"] or {}) | given
    if flags.get("augment"):
        transfer["augment"] = [{"name": name} for name in flags["augment"]]
    try:
        return override(profile, {"transfer": transfer})
    except SettingError as error:
        why = error.why
        flag = error.place.removeprefix("transfer.").replace(".", "-").replace("generic-path", "generic")
        raise UsageError(f"--{flag}: {why[:1].lower()}{why[1:]}") from error


def columns_of(flags: dict[str, Any]) -> Columns:
    """The columns named by flags."""
    names = {"text_column": "text", "pair_column": "text_pair", "label_column": "label"}
    names |= {"tokens_column": "tokens", "tags_column": "tags", "strict": "strict", "drop_labels": "drop_labels"}
    for flag in names:
        if flags.get(flag) == "":
            raise UsageError(f"--{flag.replace('_', '-')} '': name a column, or leave it out")
    return Columns(**{field: flags[flag] for flag, field in names.items() if flags.get(flag)})


def task_of(flags: dict[str, Any]) -> TaskSpec | None:
    """The task named by --task."""
    name = flags.get("task")
    if name is None:
        return None
    return TASKS[name](**({"pair": True} if flags.get("pair_column") and "pair" in TASKS[name].model_fields else {}))


def store_of(cache_dir: Path | None) -> Store:
    """The store at --cache-dir, or at its usual place."""
    return Store(cache_dir or default_root())


def named(flag: str, value: str | None) -> str:
    """The value of a flag that must name something.

    Raises:
        UsageError: It is missing or empty.
    """
    if value is None or not value.strip():
        raise UsageError(f"{flag} is {'missing' if value is None else 'empty'}")
    return value


def request_of(flags: dict[str, Any], *, budget: bool) -> Request:
    """The request of a stage command: a teacher and data, both given.

    Args:
        flags: What was given.
        budget: Whether a budget must be among it.
    """
    profile = resolve_profile(flags.get("profile"), flags)
    if budget:
        profile.budget.asked_ms()  # refuses one that is missing
    return Request(
        teacher=named("--teacher", flags["teacher"]),
        data=named("--data", flags["data"]),
        data_config=flags["data_config"],
        task=task_of(flags),
        columns=columns_of(flags),
        profile=profile,
    )


# Flags that name what a command reads.
_READ = ("data", "teacher", "encoder", "student", "teacher_outputs", "text", "generic")


def new_folder(flags: dict[str, Any]) -> Path:
    """The folder --out, once it is known that it may be written to.

    Raises:
        UsageError: None was named, it holds something, or something that the command reads.
    """
    out: Path | None = flags["out"]
    if out is None:
        raise UsageError("--out is missing: name a folder")
    from edgekd.output import check_ours, check_replaceable, is_empty

    check_replaceable(out, {f"--{name.replace('_', '-')}": flags.get(name) for name in _READ})
    if not is_empty(out) and not flags["overwrite"]:
        raise UsageError(f"--out {out} is not empty: choose another folder, or add --overwrite")
    check_ours(out)
    return out
