"""Other forms of a graph, the same function at another speed, and what onnxruntime makes of each."""

from __future__ import annotations

import tempfile
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Literal

import onnx

from edgekd.errors import EdgekdError, first_line, require
from edgekd.graph.check import read_model
from edgekd.graph.quiet import quiet
from edgekd.graph.writer import save_model
from edgekd.onnx_session import session_options
from edgekd.settings.export import GraphOptions

OPTIMISER_LEVELS: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)
"""Of onnxruntime's own graph optimisations, before those of its transformer optimiser."""

_FUSED = "com.microsoft"


def writer_variants(options: GraphOptions) -> dict[str, GraphOptions]:
    """The writer's forms of one student by name, the given one first."""
    forms = [
        options.model_copy(update={"fused_qkv": fused, "residual": residual})
        for fused, residual in product((True, False), ("sum", "add"))
    ]
    ordered = [options, *(form for form in forms if form != options)]
    return {_name(form): form for form in ordered}


def _name(options: GraphOptions) -> str:
    return f"{'QKV in one' if options.fused_qkv else 'Q, K, V apart'}, residual as {options.residual.capitalize()}"


def optimise(source: Path, destination: Path, level: Literal[0, 1, 2]) -> None:
    """Rewrite a BERT-like model with onnxruntime's transformer optimiser, into nodes that only onnxruntime knows.

    Args:
        source: The FP32 model.
        level: One of `OPTIMISER_LEVELS`.

    Raises:
        UsageError: There is no such file.
        EdgekdError: It is not a whole ONNX model, or the optimiser fails on it.
        UnavailableError: onnxruntime is not installed.
    """
    optimizer = require("onnxruntime.transformers.optimizer", "cpu", "optimise a model")
    read_model(source)
    with quiet():
        try:
            # Without heads and width it reads them off the graph.
            made = optimizer.optimize_model(
                str(source), model_type="bert", num_heads=0, hidden_size=0, opt_level=level
            ).model
        except Exception as error:  # it lets through whatever its fusions raise
            raise EdgekdError(
                f"{source}: onnxruntime's transformer optimiser fails on it ({first_line(error)})"
            ) from error
    used = {node.domain for node in made.graph.node} | {""}
    versions = {opset.domain: opset.version for opset in made.opset_import if opset.domain in used}
    # It leaves out its own domain at some levels, and names many others that no node is of.
    del made.opset_import[:]
    made.opset_import.extend(onnx.helper.make_opsetid(domain, versions.get(domain, 1)) for domain in sorted(used))
    save_model(made, destination)


def fused_nodes(model: Path) -> dict[str, int]:
    """What onnxruntime fuses in a file when it loads it on the CPU with its default options.

    Read off the graph that it runs: how many nodes there are of each kind that the file's own author could not have
    written with ONNX's standard operators, such as "Gelu", "SkipLayerNormalization" or "DynamicQuantizeMatMul".

    Returns:
        Count by kind, sorted; empty where nothing fuses.

    Raises:
        EdgekdError: onnxruntime cannot load it.
        UnavailableError: onnxruntime is not installed.
    """
    ort = require("onnxruntime", "cpu", "read the graph that onnxruntime runs")
    with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
        options = session_options()
        options.optimized_model_filepath = str(Path(folder, "optimised.onnx"))
        try:
            ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no base class but this
            raise EdgekdError(f"{model}: onnxruntime cannot load it ({first_line(error)}); export it again") from error
        made = onnx.load(options.optimized_model_filepath, load_external_data=False)
    written = {node.op_type for node in onnx.load(model, load_external_data=False).graph.node if node.domain == ""}
    kinds = Counter(
        node.op_type
        for node in made.graph.node
        if node.domain.startswith(_FUSED) or (node.op_type not in written and node.op_type in ("Gelu", "Gemm"))
    )
    return dict(sorted(kinds.items()))
