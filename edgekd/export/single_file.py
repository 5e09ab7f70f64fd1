"""One ONNX file that takes text: the tokenizer is in the graph, as an operator of onnxruntime-extensions.

For C++, C#, Java and whoever has no tokenizer at hand. Whether the operator reads texts as the bundle's tokenizer does
is not taken on trust: it is compared, and nothing is written where one text differs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from edgekd.data.generic import generic_split
from edgekd.errors import EdgekdError, UsageError, require
from edgekd.graph.check import read_model
from edgekd.graph.writer import save_model
from edgekd.onnx_session import session_options
from edgekd.reading import read_json
from edgekd.runtime.config import BundleConfig, read_config
from edgekd.runtime.model import CPU, Model, load
from edgekd.runtime.tokenise import load_tokenizer
from edgekd.store import check_file, replacing

TEXTS = 1000
"""Texts that are compared."""

_DOMAIN = "ai.onnx.contrib"
# Logits of one text in one graph; the runtime may fuse around the tokenizer otherwise.
_GAP = 1e-3


def single_file(bundle: Path, out: Path, own: Sequence[str] = ()) -> int:
    """Write a bundle's model and tokenizer as one ONNX file: input `text`, strings of shape (1,), one text a call.

    Outputs are those of the bundle's graph; a classifier of texts has `label`, a string of shape (1,), beside them.

    Args:
        bundle: A bundle of a task on single texts, whose tokenizer is a WordPiece one.
        out: The file.
        own: Texts to compare on; filled up to `TEXTS` with generic ones.

    Returns:
        How many texts were compared and found equal: the same token ids, the same logits.

    Raises:
        UsageError: The bundle is missing, or of another kind, or a text of `own` is cut otherwise.
        EdgekdError: The graph is broken.
        UnavailableError: onnxruntime-extensions is missing.
    """
    extensions = require("onnxruntime_extensions", "single-file", "prove that the file cuts texts as the bundle does")
    if out.exists() or out.is_symlink():
        raise UsageError(f"--single-file {out} is there already: remove it, or name another file")
    check_file(out)
    config = read_config(bundle / "config.json")
    if config.per_word or config.pair:
        raise UsageError(f"--single-file takes tasks on single texts; {bundle} answers words or pairs")
    tokenizer = _operator(bundle / "tokenizer.json")
    model = read_model(bundle / "model.onnx")
    _put_in_front(model, tokenizer, config)
    options = session_options(config.session, config.threads)
    options.register_custom_ops_library(extensions.get_library_path())
    texts = _texts(own)
    _compare(_alone(tokenizer), model, load(bundle), load_tokenizer(bundle / "tokenizer.json"), texts, options)
    with replacing(out) as file:
        save_model(model, file)
    return len(texts)


def _operator(file: Path) -> onnx.NodeProto:
    """The BertTokenizer node that does what tokenizer.json says, so far as it can."""
    if not file.is_file():
        raise UsageError(f"{file}: missing; is this an edgekd bundle?")
    content = read_json(file, "copy the bundle again")
    kind, normalizer = content["model"]["type"], content.get("normalizer") or {}
    if kind != "WordPiece" or normalizer.get("type") != "BertNormalizer":
        raise UsageError(
            f"--single-file: the tokenizer is {kind} with {normalizer.get('type')}, and onnxruntime-extensions has no"
            " operator that is known to equal it; BERT's WordPiece has one"
        )
    vocabulary = content["model"]["vocab"]
    lowercase = normalizer.get("lowercase", True)
    strips = normalizer.get("strip_accents")
    return helper.make_node(
        "BertTokenizer", ["text"], ["token_ids", "token_types", "token_mask", "token_offsets"], "tokenizer",
        domain=_DOMAIN, vocab_file="\n".join(sorted(vocabulary, key=vocabulary.__getitem__)),
        do_lower_case=int(lowercase), strip_accents=int(lowercase if strips is None else strips),
        tokenize_chinese_chars=int(normalizer.get("handle_chinese_chars", True)),
    )  # fmt: skip


def _put_in_front(model: onnx.ModelProto, tokenizer: onnx.NodeProto, config: BundleConfig) -> None:
    """Make `text` the graph's only input, and its tokens what the graph took before."""
    graph = model.graph
    made = {"input_ids": "token_ids", "token_type_ids": "token_types", "attention_mask": "token_mask"}
    nodes = [tokenizer]
    ends = {"token_first": 0, "token_kept": config.max_length - 1, "token_last": -1, "token_end": 2**31}
    for name, value in ends.items():
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [1], [value]))
    for tensor in graph.input:
        # Cut here: the operator, asked to cut, gives what is not text at all (0.15.2). The last token ends every text.
        name, whole = tensor.name, made[tensor.name]
        nodes += [
            helper.make_node("Slice", [whole, "token_first", "token_last"], [f"{name}_text"]),
            helper.make_node("Slice", [f"{name}_text", "token_first", "token_kept"], [f"{name}_cut"]),
            helper.make_node("Slice", [whole, "token_last", "token_end"], [f"{name}_end"]),
            helper.make_node("Concat", [f"{name}_cut", f"{name}_end"], [f"{name}_row"], axis=0),
            helper.make_node("Unsqueeze", [f"{name}_row", "token_first"], [f"{name}_rows"]),
            helper.make_node("Cast", [f"{name}_rows"], [name], to=tensor.type.tensor_type.elem_type),
        ]
    nodes += graph.node
    if config.output == "classes":
        names = np.array(config.labels, dtype=object)
        graph.initializer.append(numpy_helper.from_array(names, "label_names"))
        nodes.append(helper.make_node("ArgMax", [graph.output[0].name], ["label_index"], axis=-1, keepdims=0))
        nodes.append(helper.make_node("Gather", ["label_names", "label_index"], ["label"]))
        graph.output.append(helper.make_tensor_value_info("label", TensorProto.STRING, [1]))
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("text", TensorProto.STRING, [1]))
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))


def _alone(tokenizer: onnx.NodeProto) -> onnx.ModelProto:
    """The tokenizer as a model of its own."""
    graph = helper.make_graph(
        [tokenizer], "tokenizer", [helper.make_tensor_value_info("text", TensorProto.STRING, [1])],
        [helper.make_tensor_value_info("token_ids", TensorProto.INT64, [None])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _texts(own: Sequence[str]) -> list[str]:
    """The user's own, then generic sentences, then their words in another order."""
    generic = [text for text in generic_split().texts if isinstance(text, str)]
    words, rng = [word for text in generic for word in text.split()], random.Random(0)
    texts = [*own, *generic]
    while len(texts) < TEXTS:
        texts.append(" ".join(rng.choices(words, k=rng.randint(1, 60))))
    return texts[:TEXTS]


def _compare(
    tokenizer: onnx.ModelProto, whole: onnx.ModelProto, model: Model, expected: Tokenizer, texts: Sequence[str],
    options: Any,
) -> None:  # fmt: skip
    runtime = require("onnxruntime", "runtime", "run an ONNX model")
    try:
        cuts, answers = (
            runtime.InferenceSession(one.SerializeToString(), options, providers=[CPU]) for one in (tokenizer, whole)
        )
    except Exception as error:
        raise EdgekdError(f"onnxruntime cannot run the graph with the tokenizer in it: {error}") from error
    for text in texts:
        feed = {"text": np.array([text], dtype=object)}
        (ids,), logits = cuts.run(None, feed), answers.run(None, feed)[0]
        here = model.logits([text])
        if ids.tolist() != expected.encode(text).ids or float(np.abs(logits - here).max()) > _GAP:
            raise UsageError(
                f"--single-file: onnxruntime-extensions reads {text[:60]!r} otherwise than the bundle's tokenizer, so"
                " the file would answer otherwise: keep model.onnx and tokenizer.json apart for such texts"
            )
