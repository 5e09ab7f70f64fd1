"""Teachers: any fine-tuned sequence or token classifier of transformers, from a folder or from the hub."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import torch
from optimum.utils import NormalizedConfigManager, NormalizedTextConfig
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from edgekd.errors import UsageError
from edgekd.models.families import Hosted, host
from edgekd.models.folder import model_folder
from edgekd.models.quiet import quiet_transformers
from edgekd.models.student import StudentConfig, StudentModel, numpy_weights
from edgekd.models.tokenizer import folder_tokenizer as _tokenizer
from edgekd.models.tokenizer import one_line, read_settings, require_rows
from edgekd.settings.task import Output

HeadKind = Literal["sequence", "token", "joint"]
Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
"""What a sequence head's logits mean, by transformers' names."""

PROBLEMS: dict[Output, Problem] = {
    "classes": "single_label_classification",
    "flags": "multi_label_classification",
    "value": "regression",
    "joint": "single_label_classification",
}
"""The same by ours."""

_AUTO: dict[HeadKind, Any] = {
    "sequence": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
}
_SUFFIX: dict[HeadKind, str] = {
    "sequence": "ForSequenceClassification",
    "token": "ForTokenClassification",
}
TOKENIZER_SIDE_FILES = ("tokenizer_config.json", "special_tokens_map.json")
_GENERIC = re.compile(r"LABEL_\d+")
# Weights that a folder may hold beside what the class computes with: buffers, poolers, and heads of other tasks.
_HARMLESS = re.compile(
    r"(position_ids|token_type_ids|inv_freq)$|(^|\.)pooler\.|predictions\.|seq_relationship\.|sop_classifier\."
    r"|^(cls|lm_head|lm_loss|mlm|generator|vocab|pred_layer|qa_outputs|logits_proj|sequence_summary|score)[._]"
    r"|^(loss|loss_fct|criterion)\."
)
_HEADS = re.compile(rf"{_HARMLESS.pattern}|^(head|decoder|classifier|discriminator)[._]")
_WRAPPED = re.compile(r"(_orig_mod\.|module\.)+")
# What no hub model states: transformers' "no limit" is 1e30.
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder, and what the rest of the product asks about it.

    Attributes:
        folder: Where its files are (the cache's folder for a hub id).
        model: In eval mode, float32, on the CPU.
        tokenizer: Its tokenizer, as in tokenizer.json.
        hosted: The student's shape and weights that compute the same, None for a foreign architecture.
        width: Hidden size.
        depth: Number of layers.
        heads: Attention heads a layer.
        ffn: FFN neurons a layer; None where the config does not say.
        max_length: Longest input in tokens, special tokens included.
        inputs: Names of the model's inputs, in order.
    """

    folder: Path
    model: PreTrainedModel
    tokenizer: Tokenizer
    hosted: Hosted | None
    width: int
    depth: int
    heads: int
    ffn: int | None
    max_length: int
    inputs: tuple[str, ...]

    def save_tokenizer(self, folder: str | Path) -> None:
        """Write tokenizer.json and its side files, as transformers' tokenizers load them."""
        self.tokenizer.save(str(Path(folder) / "tokenizer.json"))
        for name in TOKENIZER_SIDE_FILES:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, Path(folder) / name)


@dataclass(frozen=True, eq=False)
class Teacher(Encoder):
    """A fine-tuned classifier.

    Attributes:
        labels: Class names, by index.
        generic_labels: The names are transformers' LABEL_0, LABEL_1, ...: they say nothing.
        head: One answer a text ("sequence"), a token ("token"), or both ("joint").
        problem: What the logits mean.
    """

    labels: tuple[str, ...]
    generic_labels: bool
    head: HeadKind
    problem: Problem = "single_label_classification"

    @property
    def output(self) -> Output:
        """What a logit row means."""
        if self.head != "sequence":
            return "joint" if self.head == "joint" else "classes"
        known: dict[str, Output] = {"multi_label_classification": "flags", "regression": "value"}
        return known.get(self.problem, "classes")

    @property
    def task(self) -> str:
        """The name of the usual task that it does."""
        if self.head == "token":
            return "token-classification"
        names = {"flags": "multi-label-classification", "value": "text-regression", "joint": "joint-intent-slots"}
        return names.get(self.output, "text-classification")


def load_teacher(folder: str | Path, *, trust_remote_code: bool = False) -> Teacher:
    """Load a fine-tuned classifier; a folder is read without touching the network.

    Args:
        folder: A folder as `save_pretrained` writes it, or, as a string, a hub id such as "org/name".
        trust_remote_code: Run model code that comes with the files.

    Raises:
        UsageError: The folder is not a classifier that can teach; the message says what is wrong.
        UnavailableError: A hub id, and the hub cannot be reached.
    """
    path = model_folder(folder, trust_remote_code)
    config = _read_config(path, trust_remote_code)
    _require_safetensors(path, config)
    if config.get("model_type") == StudentConfig.model_type:
        return _own_teacher(path)
    head = _head_kind(path, config)
    model, lost = load_weights(_AUTO[head], path, trust_remote_code)
    if lost:
        raise UsageError(
            f"{path}: the weights have no fitting {lost[0]}{_and_more(lost)}: "
            "this is no fine-tuned classifier; make one with `edgekd teach`"
        )
    labels = _labels(path, model.config)
    return Teacher(
        **_described(path, model, trust_remote_code),
        labels=labels,
        generic_labels=all(_GENERIC.fullmatch(name) for name in labels),
        head=head,
        problem=_problem(path, head, model.config),
    )


def _own_teacher(path: Path) -> Teacher:
    """A teacher with two heads, or one on the tokens' mean, as `edgekd teach` makes it: transformers has none."""
    model, lost = load_weights(StudentModel, path, False)
    shape = model.config.encoder_shape
    if lost or shape.head is None or not (shape.head.kind == "joint" or shape.head.pool == "mean"):
        raise UsageError(f"{path}: no whole teacher of `edgekd teach`; make it again")
    head = shape.head.kind
    tokenizer = _tokenizer(path, False)
    require_rows(path, tokenizer, model)
    return Teacher(
        folder=path,
        model=model,
        tokenizer=tokenizer,
        hosted=(shape, numpy_weights(model)),
        width=shape.hidden,
        depth=shape.depth,
        heads=max(shape.heads),
        ffn=max(shape.ffn),
        max_length=_shortest(path, [shape.positions]),
        inputs=shape.inputs,
        labels=_labels(path, model.config),
        generic_labels=False,
        head=head,
        problem=_problem(path, head, model.config),
    )


def load_body(folder: str | Path, *, trust_remote_code: bool = False) -> Encoder:
    """Load an encoder as it is; a task head that it may have is left out.

    Args:
        folder: A folder as `save_pretrained` writes it, or, as a string, a hub id such as "org/name".
        trust_remote_code: Run model code that comes with the files.

    Raises:
        UsageError: The folder is no encoder; the message says what is wrong.
        UnavailableError: A hub id, and the hub cannot be reached.
    """
    path = model_folder(folder, trust_remote_code)
    _require_safetensors(path, _read_config(path, trust_remote_code))
    model, lost = load_weights(AutoModel, path, trust_remote_code)
    _require_body(path, [name for name in lost if not name.startswith("pooler.")])
    return Encoder(**_described(path, model, trust_remote_code))


def _described(path: Path, model: PreTrainedModel, trust_remote_code: bool) -> dict[str, Any]:
    """The fields of `Encoder`."""
    tokenizer = _tokenizer(path, trust_remote_code)
    require_rows(path, tokenizer, model)
    hosted = host(model)
    width, depth, heads, ffn = _sizes(model.config)
    return {
        "folder": path,
        "model": model,
        "tokenizer": tokenizer,
        "hosted": hosted,
        "width": width,
        "depth": depth,
        "heads": heads,
        "ffn": ffn,
        "max_length": _max_length(path, model),
        "inputs": hosted[0].inputs if hosted else _inputs(model),
    }


def load_encoder(
    folder: str | Path,
    labels: Sequence[str],
    head: HeadKind,
    problem: Problem = "single_label_classification",
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load an encoder under a new task head, to be fine-tuned into a teacher.

    The head's first weights are drawn from torch's global generator: seed it for a repeatable run.

    Args:
        folder: A folder or hub id of an encoder; a head that it may have had is dropped.
        labels: Class names, by index.
        head: "sequence" or "token".
        problem: What a sequence head's logits mean.
        trust_remote_code: Run model code that comes with the files.

    Returns:
        The model, float32, with `id2label` and `label2id` set.

    Raises:
        UsageError: The folder is no encoder that can take such a head.
        UnavailableError: A hub id, and the hub cannot be reached.
    """
    path = model_folder(folder, trust_remote_code)
    _require_safetensors(path, _read_config(path, trust_remote_code))
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    kind = {"problem_type": problem} if head == "sequence" else {}
    model, lost = load_weights(_AUTO[head], path, trust_remote_code, new_head=True, **names, **kind)
    inside = f"{model.base_model_prefix}."
    if has_head(path):
        made = _AUTO[head].from_config(model.config, dtype=torch.float32, trust_remote_code=trust_remote_code)
        made.base_model.load_state_dict(model.base_model.state_dict())
        model = made.eval()
    _require_body(path, [name for name in lost if name.startswith(inside) and ".pooler." not in name])
    require_rows(path, _tokenizer(path, trust_remote_code), model)
    return model


def has_head(folder: Path) -> bool:
    """Whether a folder holds a fine-tuned classifier, whose head a new teacher does not take over."""
    names = read_settings(folder / "config.json").get("architectures") or []
    return any(str(name).endswith(tuple(_SUFFIX.values())) for name in names)


def _require_body(path: Path, lost: Sequence[str]) -> None:
    if lost:
        raise UsageError(
            f"{path}: the weights have no fitting {lost[0]}{_and_more(lost)}: they are not this encoder's; "
            "save it again with save_pretrained"
        )


def _and_more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _read_config(path: Path, trust_remote_code: bool) -> dict[str, Any]:
    file = path / "config.json"
    config = read_settings(file)
    if "quantization_config" in config:
        raise UsageError(f"{file}: its weights are quantised (quantization_config): save the model in full precision")
    if config.get("model_type") not in CONFIG_MAPPING and "auto_map" in config and not trust_remote_code:
        raise UsageError(
            f"{file}: this model runs its own code (auto_map): "
            "read that code, then pass --trust-remote-code if you trust it"
        )
    return config


def _require_safetensors(path: Path, config: dict[str, Any]) -> None:
    """Refuse folders without weights that can be read safely."""
    if (path / "adapter_config.json").is_file():
        raise UsageError(f"{path} holds an adapter: merge it first (peft: merge_and_unload, save_pretrained)")
    if any(path.glob("*.safetensors")):
        return
    if any(path.glob("pytorch_model*.bin")):
        architecture = (config.get("architectures") or ["AutoModel"])[0]
        call = f"transformers.{architecture}.from_pretrained({str(path)!r}).save_pretrained({str(path)!r})"
        raise UsageError(
            f"{path} holds its weights only as pickle (pytorch_model.bin), which can run code when read; "
            f"if you trust it, convert it once: python -c {quote(f'import transformers; {call}')}"
        )
    raise UsageError(f"{path} holds no weights: model.safetensors is missing")


def _head_kind(path: Path, config: dict[str, Any]) -> HeadKind:
    architectures = config.get("architectures") or []
    for kind, suffix in _SUFFIX.items():
        if any(str(name).endswith(suffix) for name in architectures):
            return kind
    found = f"is {', '.join(map(str, architectures))}" if architectures else "names no architecture"
    raise UsageError(
        f"{path / 'config.json'} {found}: a teacher must be a ...ForSequenceClassification or a "
        "...ForTokenClassification; fine-tune this encoder first: `edgekd teach --encoder ... --data ...`"
    )


def load_weights(
    auto: Any, path: Path, trust_remote_code: bool, *, new_head: bool = False, **settings: Any
) -> tuple[Any, list[str]]:
    """The model in eval mode, and the names of its weights that the files lack or hold in another size.

    Args:
        auto: The transformers class that loads it, such as `AutoModel`.
        trust_remote_code: Run model code that comes with the files.
        new_head: The head that the folder may have is not wanted.
        **settings: Fields of the configuration, and more for `from_pretrained`.

    Raises:
        UsageError: transformers cannot load it, or leaves out weights that are there.
    """
    wanted = {"local_files_only": True, "trust_remote_code": trust_remote_code, "dtype": torch.float32}
    wanted |= {"output_loading_info": True, "ignore_mismatched_sizes": True, **settings}
    try:
        with quiet_transformers():
            try:
                model, report = auto.from_pretrained(path, **wanted)
            except ImportError:  # an attention that the configuration names, and that is not installed here
                model, report = auto.from_pretrained(path, **wanted | {"config": _with_eager_attention(path)})
    except Exception as error:  # a faulty file may surface as any class
        raise UsageError(f"{path}: transformers cannot load this model: {one_line(error)}") from error
    lost = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    # An encoder leaves behind whatever head it had; a classifier has one of its own.
    harmless = _HARMLESS if auto in _AUTO.values() and not new_head else _HEADS
    if unused := sorted(name for name in report["unexpected_keys"] if not harmless.search(name)):
        if wrapped := _WRAPPED.match(unused[0]):
            raise UsageError(
                f"{path}: its weights begin with {wrapped.group()!r}: they were saved of a wrapped model "
                "(torch.compile, DataParallel); save the model inside it with save_pretrained"
            )
        raise UsageError(
            f"{path}: transformers does not use {unused[0]}{_and_more(unused)} of the weights, so that it is another "
            "model than was trained: merge adapters, or mend config.json, and save it again with save_pretrained"
        )
    return model.eval(), sorted(lost)


def _with_eager_attention(path: Path) -> Any:
    """The folder's configuration, whatever attention it names."""
    config = {
        name: value for name, value in read_settings(path / "config.json").items() if "attn_implementation" not in name
    }
    return CONFIG_MAPPING[config["model_type"]].from_dict(config, attn_implementation="eager")


def _labels(path: Path, config: Any) -> tuple[str, ...]:
    names = config.id2label
    if sorted(names) != list(range(len(names))):
        raise UsageError(f"{path / 'config.json'}: the keys of id2label must be 0 to {len(names) - 1}")
    labels = tuple(str(names[i]) for i in range(len(names)))
    if twice := next((name for name in labels if labels.count(name) > 1), None):
        raise UsageError(f"{path / 'config.json'}: id2label names {twice!r} twice")
    return labels


def _problem(path: Path, head: HeadKind, config: Any) -> Problem:
    if head == "token":
        return "single_label_classification"
    problem = config.problem_type
    if problem is None:
        # transformers' own rule: one output is a regression.
        return "regression" if config.num_labels == 1 else "single_label_classification"
    if problem == "regression" and config.num_labels != 1:
        raise UsageError(f"{path / 'config.json'}: a regression of {config.num_labels} values; only one can be taught")
    found: Problem = problem
    return found


def _sizes(config: Any) -> tuple[int, int, int, int | None]:
    """Width, depth, heads and FFN neurons by optimum's names, which cover each family's own."""
    try:
        normal = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    except KeyError:
        normal = NormalizedTextConfig(config)
    # The FFN is the one size that optimum has no common name for.
    fields = ("intermediate_size", "hidden_dim", "d_inner", "d_ff")
    ffn = next((size for name in fields if isinstance(size := getattr(config, name, None), int)), None)
    try:
        heads = normal.num_attention_heads
    except AttributeError:
        heads = 0  # FNet mixes tokens without attention
    return normal.hidden_size, normal.num_layers, heads, ffn


def _max_length(path: Path, model: PreTrainedModel) -> int:
    """Tokens that fit: position rows that a text can reach, and no more than the tokenizer is set to."""
    limits = [getattr(model.config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # Families that number positions from the padding row leave the rows up to it unused.
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - unused)
    return _shortest(path, limits)


def encoder_max_length(folder: Path, trust_remote_code: bool = False) -> int:
    """Tokens that fit into an encoder, read off its files without loading its weights."""
    _read_config(folder, trust_remote_code)
    try:
        with quiet_transformers(), torch.device("meta"):
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
            return _max_length(folder, AutoModel.from_config(config, trust_remote_code=trust_remote_code))
    except Exception as error:  # a faulty configuration may surface as any class
        raise UsageError(f"{folder}: transformers cannot make this model: {one_line(error)}") from error


def _shortest(path: Path, limits: list[Any]) -> int:
    """The least of some limits and what the tokenizer is set to."""
    side = path / "tokenizer_config.json"
    if side.is_file():
        limits.append(read_settings(side).get("model_max_length"))
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < _NO_LIMIT]
    return min(known, default=512)


def _inputs(model: PreTrainedModel) -> tuple[str, ...]:
    types = (getattr(model.config, "type_vocab_size", 0) or 0) > 1
    takes = "token_type_ids" in inspect.signature(model.forward).parameters
    return ("input_ids", "attention_mask", *(("token_type_ids",) if types and takes else ()))
