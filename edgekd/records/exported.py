"""The exported files of a run, as its result holds them, read off what the export stage returned."""

from __future__ import annotations

from typing import Any, Literal

from edgekd.records.base import Record

_METHODS = {"dynamic": "dynamic INT8", "static": "static INT8"}


class Quantisation(Record):
    """Whether INT8 was kept.

    Attributes:
        kept: Whether it may be deployed.
        drop_points: Points of the metric that it costs on validation, with `kept_float` in FP32.
        limit_points: Points that it may cost.
        reason: One sentence or more.
        method: Whether activations are scaled as they come, or by ranges found beforehand.
        agreement: Share of the answers that are FP32's.
        kept_float: Nodes left in FP32, since INT8 cost too much with them.
        drop_before: Points that it cost without that.
        reduce_range: Whether weights have 7 bits, since the target saturates at 8.
        saturated: Whether it was judged on a machine that saturates, unlike its target.
    """

    kept: bool
    drop_points: float | None = None
    limit_points: float
    reason: str
    method: Literal["dynamic", "static"] = "dynamic"
    agreement: float | None = None
    kept_float: tuple[str, ...] = ()
    drop_before: float | None = None
    reduce_range: bool = False
    saturated: bool = False


class Form(Record):
    """A form of the graph that was measured.

    Attributes:
        name: Of the form.
        precision: "fp32" or "int8".
        median_ms: Of the model alone.
        ratio: To the given form's, round by round.
        interval: Of the ratio, 95%; the upper end is None where the rounds do not bound it.
        gap: Largest gap of a logit to the given form; None where it gave no answers.
        same: Whether that is rounding alone.
        chosen: Whether it is the bundle's.
    """

    name: str
    precision: Literal["fp32", "int8"]
    median_ms: float
    ratio: float | None
    interval: tuple[float, float | None] | None
    gap: float | None
    same: bool
    chosen: bool


class Half(Record):
    """The FP16 file.

    Attributes:
        max_abs_gap: Largest gap of a logit to FP32.
        agreement: Share of the answers that are FP32's.
        masks: Constants that would have become infinite, and were replaced.
        kept: Nodes left in FP32, since their activations pass FP16's range.
    """

    max_abs_gap: float
    agreement: float
    masks: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


class Graphs(Record):
    """What runs.

    Attributes:
        fused: By file, the nodes that onnxruntime fuses on the CPU, by kind.
        forms: What was measured, where the form was chosen so.
        half: The FP16 file, where one was made.
    """

    fused: dict[str, dict[str, int]] = {}
    forms: tuple[Form, ...] = ()
    half: Half | None = None


def quantisation_of(exported: dict[str, Any]) -> Quantisation | None:
    """Whether INT8 was kept, from the result of the export stage; None where none was made."""
    found = exported["int8"]
    if found is None:
        return None
    # Exports that an earlier version left in the store know less.
    method, kept_float = found.get("method", "dynamic"), tuple(found.get("kept_float", ()))
    verb = "kept" if found["kept"] else "refused"
    said = [
        f"{_METHODS[method]} {verb}: {found['drop']:+.2f} points lost on validation (at most {found['limit']:g}), "
        f"{100 * found['agreement']:.1f}% of the answers the same"
    ]
    if kept_float:
        said.append(f"{found['drop_before']:+.2f} points before {', '.join(kept_float)} stayed in FP32")
    elif not found["kept"] and "kept_float" in found:
        said.append("no few nodes are to blame")
    if found.get("reduce_range"):
        said.append(f"weights have 7 bits, since {found['instruction_set']} saturates at 8")
    if found.get("saturated"):
        said.append(
            f"judged on a machine that saturates, unlike the target ({found['instruction_set']}): answers there differ"
        )
    return Quantisation(
        kept=found["kept"],
        drop_points=found["drop"],
        limit_points=found["limit"],
        reason="; ".join(said),
        method=method,
        agreement=found["agreement"],
        kept_float=kept_float,
        drop_before=found.get("drop_before"),
        reduce_range=found.get("reduce_range", False),
        saturated=found.get("saturated", False),
    )


def graphs_of(exported: dict[str, Any]) -> Graphs | None:
    """What runs, from the result of the export stage; None for exports that do not know."""
    if "fused" not in exported:
        return None
    choices: tuple[tuple[Literal["fp32", "int8"], str], ...] = (("fp32", "choice"), ("int8", "int8_choice"))
    forms = [
        Form(
            name=tried["name"],
            precision=precision,
            median_ms=tried["median_ms"],
            ratio=tried["ratio"],
            interval=tried["interval"],
            gap=tried["gap"],
            same=tried["same"],
            chosen=tried["name"] == exported[key]["chosen"],
        )
        for precision, key in choices
        if key in exported
        for tried in exported[key]["tried"]
    ]
    half = exported.get("fp16")
    return Graphs(fused=exported["fused"], forms=tuple(forms), half=None if half is None else Half.model_validate(half))
