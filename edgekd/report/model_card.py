"""The model card: README.md of the bundle, with Hugging Face front matter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from edgekd.records.result import Result
from edgekd.report import wording
from edgekd.visible import visible

_OPTIMUM_CLASS = {
    "text-classification": "ORTModelForSequenceClassification",
    "token-classification": "ORTModelForTokenClassification",
    "multi-label-classification": "ORTModelForSequenceClassification",
    "text-regression": "ORTModelForSequenceClassification",
}
_HUB_METRIC = {"accuracy": "accuracy", "span F1": "f1", "macro F1": "f1", "Spearman correlation": "spearmanr"}


def model_card(result: Result) -> str:
    """README.md of the bundle.

    Args:
        result: What to tell; parts that it lacks are left out.

    Returns:
        Markdown with YAML front matter. The texts' language is unknown and so not claimed.
    """
    parts = [
        _front_matter(result),
        f"# {plain(result.name)}",
        f"> **Demo.** {wording.DEMO_WARNING}" if result.demo else "",
        _about(result),
        _quality(result),
        _latency(result),
        _usage(result),
        _limits(result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(result: Result) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    metric, shipped = _HUB_METRIC.get(result.data.metric), result.shipped
    found = []
    if metric is not None and shipped is not None:
        found = [
            EvalResult(
                task_type=_pipeline(result), dataset_type=result.data.hub_id or "own", dataset_name=result.data.name,
                dataset_split="test", metric_type=metric, metric_value=round(shipped.score, 6),
                metric_name=result.data.metric,
            )
        ]  # fmt: skip
    distilled = ["knowledge-distillation"] if wording.subject(result) == "the student" else []
    data = ModelCardData(
        library_name="onnx",
        pipeline_tag=_pipeline(result),
        license=result.teacher.license,
        base_model=result.teacher.hub_id,
        datasets=None if result.data.hub_id is None else [result.data.hub_id],
        tags=["edgekd", "onnx", "onnxruntime", *distilled, result.data.task],
        metrics=None if metric is None else [metric],
        model_name=result.name if found else None,
        eval_results=found or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _pipeline(result: Result) -> str:
    """The pipeline of transformers that runs the model."""
    return "token-classification" if result.data.task == "token-classification" else "text-classification"


def _about(result: Result) -> str:
    teacher = result.teacher
    lines = [
        plain(wording.headline(result)),
        "",
        f"- Model: {plain(wording.pitch(result))}; the validated file is `{result.model_file}`",
        f"- Teacher: {plain(teacher.name)} ({plain(teacher.family)}, {plain(teacher.shape)}, "
        f"{wording.count(teacher.parameters)} parameters)",
        f"- Task: {result.data.task}, {result.data.labels:,} labels",
        f"- Verdict: **{wording.BADGE[result.outcome].lower()}** ({wording.day(result.finished)}); see `verdict.json` "
        "for the raw figures and `report.html` for the whole story",
        *[f"  - {plain(reason)}" for reason in wording.reasons(result)],
        *[f"- {plain(note)}" for note in result.data.notes],
    ]
    return "\n".join(lines)


def _quality(result: Result) -> str:
    rows = [
        [f"**{row.name}** (this model)" if row.shipped else row.name, *wording.quality_cells(row)]
        for row in wording.quality_rows(result)
    ]
    heads = ("Model", *wording.quality_heads(result))
    lead = " ".join(["On the test split.", *wording.notes(result)])
    return f"## Quality\n\n{lead}\n\n{table(heads, rows)}" if rows else ""


def _latency(result: Result) -> str:
    rows = [
        [
            name,
            plain(timing.texts),
            wording.quantile(p.q),
            wording.ms(p.value_ms),
            wording.interval(p.interval) or wording.NONE,
        ]
        for name, timing in result.latency.timings.items()
        for p in timing.percentiles
    ]
    if not rows:
        return ""
    machine = wording.machine_line(result)
    lead = (
        f"End to end, measured {wording.day(result.finished)}{f' on {plain(machine)}' if machine else ''}. "
        f"Budget: {wording.limit_ms(result)} at {wording.quantile(result.percentile)}, "
        f"judged on “{result.latency.judge}”. {wording.clock_words(result)}"
    )
    return f"## Latency\n\n{lead}\n\n{table(('Judge', 'Texts', 'Percentile', 'Latency', 'Interval'), rows)}"


def _usage(result: Result) -> str:
    optimum = _OPTIMUM_CLASS.get(result.data.task)
    snippets = [
        ("With EdgeKD’s runtime (`pip install 'edgekd[runtime]'`, no torch):", _RUNTIME),
        (
            "With onnxruntime and tokenizers alone:",
            _PLAIN.replace("PRINT", _PRINT.get(result.data.task, _PRINT_LABEL)).replace("MODEL", result.model_file),
        ),
    ]
    if optimum is not None:
        task = _pipeline(result)
        code = _OPTIMUM.replace("CLASS", optimum).replace("TASK", task).replace("MODEL", result.model_file)
        # A token pipeline cuts long texts by itself, and takes no such argument.
        snippets.append(
            ("With Optimum:", code.replace("CUT", "" if task == "token-classification" else ", truncation=True"))
        )
    shown = "\n\n".join(f"{title}\n\n```python\n{code.strip()}\n```" for title, code in snippets)
    kinds = "HTTP and Docker, Kubernetes, MLflow, Node, the browser, Triton and TensorRT"
    others = f"`deploy/` holds clients and recipes for {kinds}."
    return f"## How to use\n\n`bundle` stands for the folder of this file.\n\n{shown}\n\n{others}"


def _limits(result: Result) -> str:
    lines = [
        "- The latency holds for the machine above; measure again on any other: `edgekd validate bundle`.",
        "- The quality holds for texts like those of the test split; the teacher’s errors are learnt with the rest.",
        "- Texts longer than the model’s maximum are cut.",
    ]
    if result.data.metric == "agreement with the teacher":
        lines.append("- There were no gold labels: the score is agreement with the teacher, not accuracy.")
    if result.demo:
        lines.append("- The data are synthetic: do not use this model for anything real.")
    return "## Limits\n\n" + "\n".join(lines) + f"\n\nMade with `{result.command}`."


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: str) -> str:
    """User text that Markdown cannot take for markup, on one line."""
    return re.sub(r"([\\`*_\[\]|#$])", r"\\\1", escape(visible(" ".join(text.split())), quote=False))


_RUNTIME = """
from edgekd.runtime import load

model = load("bundle")
print(model.predict(["a text from your domain"]))
"""

_PLAIN = """
import json
import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("bundle/tokenizer.json")
session = onnxruntime.InferenceSession("bundle/MODEL", providers=["CPUExecutionProvider"])
labels = json.load(open("bundle/config.json", encoding="utf-8"))["id2label"]

text = tokenizer.encode("a text from your domain")
columns = {"input_ids": text.ids, "attention_mask": text.attention_mask, "token_type_ids": text.type_ids}
feeds = {i.name: np.array([columns[i.name]], dtype=np.int64) for i in session.get_inputs()}
logits = session.run(["logits"], feeds)[0]
PRINT
"""
_PRINT_LABEL = "print(labels[str(logits[0].argmax())])"
_PRINT = {
    "token-classification": "print([(piece, labels[str(i)]) for piece, i in zip(text.tokens, logits[0].argmax(-1))])",
    "multi-label-classification": "print([labels[str(i)] for i in np.flatnonzero(logits[0] > 0)])",
    "text-regression": "print(logits[0, 0])",
    "joint-intent-slots": 'print(labels[str(logits[0].argmax())])  # the slots: session.run(["slot_logits"], feeds)',
}

_OPTIMUM = """
from optimum.onnxruntime import CLASS
from transformers import AutoTokenizer, pipeline

model = CLASS.from_pretrained("bundle", file_name="MODEL")
tokenizer = AutoTokenizer.from_pretrained("bundle")
print(pipeline("TASK", model=model, tokenizer=tokenizer)("a text from your domain"CUT))
"""
