"""Options of an onnxruntime session, made in one place. Imports nothing but the standard library until it is asked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from edgekd.errors import UsageError, require

GRAPH_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


def cpus_of_process() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def session_options(given: Mapping[str, Any] | None = None, threads: int = 1) -> Any:
    """An `onnxruntime.SessionOptions`: threads are never sized to the host, and nothing is logged.

    Args:
        given: A `SessionSpec` in JSON; what it lacks is as onnxruntime has it, but that idle threads sleep.
        threads: Intra-op threads; inter-op is always 1.

    Raises:
        UsageError: A graph level that there is not.
        UnavailableError: onnxruntime is not installed.
    """
    runtime, given = require("onnxruntime", "runtime", "run an ONNX model"), given or {}
    level = given.get("graph_level", "all")
    if not isinstance(level, str) or level not in GRAPH_LEVELS:
        raise UsageError(f"config.json: graph_level {level!r} is none of {', '.join(GRAPH_LEVELS)}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, GRAPH_LEVELS[level])
    options.enable_cpu_mem_arena = bool(given.get("arena", True))
    # What goes wrong is raised, too; the runtime's own log would write a file's names to the terminal as they are.
    options.log_severity_level = 4
    spinning = "1" if given.get("spinning", False) else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    return options
