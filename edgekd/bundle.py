"""The bundle: a folder that production runs, and that carries its own proof."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.errors import UsageError
from edgekd.output import building, check_ours, check_replaceable, is_empty, publish
from edgekd.profiles import load_request
from edgekd.reading import checksum, inside, read_json
from edgekd.runtime.config import SCHEMA_VERSION
from edgekd.runtime.tokenise import cut_side
from edgekd.runtime.words import PLAIN, WordSplit
from edgekd.settings.request import Request
from edgekd.settings.shape import EncoderShape
from edgekd.settings.task import OUTSIDE, TaskSpec
from edgekd.store import write_json

if TYPE_CHECKING:
    from edgekd.models.teacher import Encoder

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
            "truncation_side": cut_side(core.reader.tokenizer),
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
    """SHA-256 of every file of a bundle, by its path inside it.

    Raises:
        UsageError: A file is a link that leads out of the bundle.
    """
    sums = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in leave_out:
            sums[name] = checksum(inside(folder, name))
    return sums


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
    if is_empty(out):
        return
    if not (out / "verdict.json").is_file():
        raise UsageError(f"--out {out} holds something else, and no bundle: choose another folder")
    if _request_of(out) != request and not overwrite:
        raise UsageError(f"--out {out} holds something else: choose another folder, or add --overwrite")
    check_ours(out)


@contextmanager
def claimed(out: Path, request: Request, overwrite: bool) -> Iterator[Path]:
    """The folder to build the bundle of a request in, for this run alone until the end of the block.

    Raises:
        UsageError: See `check_out` and `building`.
    """
    check_out(out, request, overwrite)
    with building(out) as work:
        check_out(out, request, overwrite)  # another run may have finished since
        yield work


def publish_bundle(work: Path, out: Path, request: Request, overwrite: bool) -> None:
    """Put the finished bundle in its place, replacing what `claimed` allowed, if it is still no more than that.

    Raises:
        UsageError: What must not be replaced has come to `out` since; the bundle waits in `work`.
    """
    try:
        check_out(out, request, overwrite)
    except UsageError as error:
        raise UsageError(f"{error}; the finished bundle is in {work}") from error
    publish(work, out)


def _request_of(out: Path) -> Request | None:
    try:
        return load_request(out / "edgekd.yaml")
    except UsageError:
        return None
