"""The bundle: a folder that production runs, and that carries its own proof."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.errors import UsageError
from edgekd.profiles import load_request
from edgekd.runtime.words import PLAIN, WordSplit
from edgekd.settings.request import Request
from edgekd.settings.shape import EncoderShape
from edgekd.settings.task import OUTSIDE, TaskSpec
from edgekd.store import held, read_json, write_json

if TYPE_CHECKING:
    from edgekd.models.teacher import Encoder

SCHEMA_VERSION = 1

# Families whose tokenizers differ enough that a loader must see the right name; all others pass as BERT.
_FAMILIES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "electra": "Electra",
             "distilbert": "DistilBert"}  # fmt: skip

# What transformers must be told of a sequence head that does not choose one class of several.
_PROBLEMS = {"flags": "multi_label_classification", "value": "regression"}


@dataclass(frozen=True)
class Core:
    """What a bundle needs in order to run.

    Attributes:
        model: The ONNX file to deploy.
        task: The task by name.
        labels: Class names in the order of the logits.
        reader: Brings the tokenizer and the family: the teacher, or the encoder that the student comes from.
        shape: The student's shape; None for an unchanged teacher of another family.
        max_length: Tokens a text.
        session: onnxruntime session options.
        words: How plain text is split into words, where the task asks for words.
    """

    model: Path
    task: TaskSpec
    labels: Sequence[str]
    reader: Encoder
    shape: EncoderShape | None
    max_length: int
    session: Mapping[str, Any]
    words: WordSplit = PLAIN


def write_core(folder: Path, core: Core) -> None:
    """Write model.onnx, config.json and the tokenizer: enough for `edgekd.runtime.load`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(core.model, folder / "model.onnx")
    write_json(folder / "config.json", config_of(core))
    core.reader.save_tokenizer(folder)
    tokenizer = folder / "tokenizer_config.json"
    settings = read_json(tokenizer) if tokenizer.is_file() else {}
    # Other runtimes read here where to cut a text: at the length that was validated, not at the teacher's.
    write_json(tokenizer, settings | {"model_max_length": core.max_length})


def config_of(core: Core) -> dict[str, Any]:
    """config.json: a stock model type that foreign loaders accept, and the real shape under `edgekd`."""
    config: dict[str, Any] = read_json(core.reader.folder / "config.json")
    family = config.get("model_type", "bert")
    if core.shape is not None:
        # A joint teacher has no class of its own, and names the family that its encoder came from.
        family = config.get("family", "bert") if family not in _FAMILIES else family
        family = family if family in _FAMILIES else "bert"
        suffix = "ForTokenClassification" if core.task.name == "token-classification" else "ForSequenceClassification"
        config = _stock_sizes(core.shape) | {
            "model_type": family,
            "architectures": [_FAMILIES[family] + suffix],
            "pad_token_id": config.get("pad_token_id", 0),
            "torch_dtype": "float32",
        }
        if core.task.output in _PROBLEMS:
            config["problem_type"] = _PROBLEMS[core.task.output]
    labels, own = tuple(core.labels), {}
    if core.task.output == "joint":
        # Foreign loaders expect the names of `logits` alone.
        cut = labels.index(OUTSIDE)
        labels, own = labels[:cut], {"slot_labels": list(labels[cut:])}
    return config | {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
        # Which file of onnx/ transformers.js takes unless it is told otherwise: the validated one.
        "transformers.js_config": {"dtype": "q8" if core.model.name == "model_quantized.onnx" else "fp32"},
        "edgekd": {
            "schema_version": SCHEMA_VERSION,
            "task": core.task.model_dump(mode="json"),
            "output": core.task.output,
            **own,
            "max_length": core.max_length,
            "threads": core.session.get("threads", 1),
            "session": dict(core.session),
            "words": asdict(core.words),
            "shape": None if core.shape is None else core.shape.model_dump(mode="json"),
        },
    }


def _stock_sizes(shape: EncoderShape) -> dict[str, Any]:
    """The nearest that a stock configuration can say; the true shape is under `edgekd`."""
    activation = {"gelu_tanh": "gelu_pytorch_tanh"}.get(shape.activation, shape.activation)
    sizes = {
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": max(1, shape.token_types),
        "hidden_size": shape.hidden,
        "embedding_size": shape.embedding,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": max(shape.heads),
        "intermediate_size": max(shape.ffn),
        "hidden_act": activation,
        "layer_norm_eps": shape.norm_eps,
    }
    return sizes | {"dim": shape.hidden, "n_layers": shape.depth, "n_heads": max(shape.heads)}


def checksums(folder: Path, leave_out: Sequence[str] = ()) -> dict[str, str]:
    """SHA-256 of every file of a bundle, by its path inside it."""
    sums = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in leave_out:
            with path.open("rb") as handle:
                sums[name] = hashlib.file_digest(handle, "sha256").hexdigest()
    return sums


def check_replaceable(out: Path, reads: Mapping[str, str | Path | None]) -> None:
    """Refuse an output folder that is a file, or that is or holds what a command reads or stands in.

    Args:
        reads: By flag, what is read; hub ids and what is not there are passed over.

    Raises:
        UsageError: It would be replaced.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: choose a folder")
    for name, source in {"the current folder": Path.cwd(), **reads}.items():
        if source and Path(source).exists() and Path(source).resolve().is_relative_to(out.resolve()):
            raise UsageError(f"--out {out} is or holds {name}, which would be replaced: choose another folder")


def check_out(out: Path, request: Request, overwrite: bool) -> None:
    """Refuse a folder that must not be replaced by the bundle of this request.

    A folder of the same request is made again (its finished steps are in the store). Another bundle is replaced with
    `--overwrite`; what is no bundle, or holds what the request reads, never is.

    Raises:
        UsageError: `out` holds something else, or cannot be written.
    """
    reads = {
        "--teacher": request.teacher, "--data": request.data, "--encoder": request.encoder,
        "--teacher-outputs": request.teacher_outputs, "--plan": request.plan,
    }  # fmt: skip
    check_replaceable(out, reads)
    place = out.resolve()
    parent = next(folder for folder in (place, *place.parents) if folder.exists())
    if not os.access(parent, os.W_OK):
        raise UsageError(f"--out {out}: {parent} cannot be written to; choose another folder")
    if out.is_dir() and any(out.iterdir()) and _request_of(out) != request:
        if not (out / "edgekd.yaml").is_file():
            raise UsageError(f"--out {out} holds something else, and no bundle: choose another folder")
        if not overwrite:
            raise UsageError(f"--out {out} holds something else: choose another folder, or add --overwrite")


@contextmanager
def claimed(out: Path, request: Request, overwrite: bool) -> Iterator[Path]:
    """The folder to build in, beside `out` and empty, for this run alone until the end of the block.

    Raises:
        UsageError: See `check_out` and `locked`.
    """
    check_out(out, request, overwrite)
    with locked(out):
        check_out(out, request, overwrite)  # another run may have finished since
        # Hidden, and of a name that nobody but this program gives: what a killed run left there may go.
        work = _beside(out, "work")
        emptied(work)
        try:
            yield work
        finally:
            if work.is_dir() and not any(work.iterdir()):
                work.rmdir()  # refused before there was anything to keep


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other runs from making `out` until the end of the block.

    The lock is a file beside it, which nothing replaces: a folder that is made anew would take its lock along.

    Raises:
        UsageError: Another run makes it, or nothing can be written there.
    """
    path = _beside(out, "lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({error.strerror}); choose another folder") from error
    busy = UsageError(f"--out {out}: another run is making it; wait for it, or choose another folder")
    with held(path, busy):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def publish(work: Path, out: Path, request: Request, overwrite: bool) -> None:
    """Put the finished bundle in its place, replacing what `claimed` allowed, if it is still no more than that.

    Raises:
        UsageError: What must not be replaced has come to `out` since; the bundle waits in `work`.
    """
    try:
        check_out(out, request, overwrite)
    except UsageError as error:
        raise UsageError(f"{error}; the finished bundle is in {work}") from error
    if out.exists():
        old = _beside(out, "old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        work.rename(out)
        shutil.rmtree(old)
    else:
        work.rename(out)


def emptied(folder: Path) -> Path:
    """The folder, made if it is not there, with nothing in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return folder


def _beside(out: Path, what: str) -> Path:
    place = out.resolve()
    return place.with_name(f".{place.name}.edgekd-{what}")


def _request_of(out: Path) -> Request | None:
    try:
        return load_request(out / "edgekd.yaml")
    except UsageError:
        return None
