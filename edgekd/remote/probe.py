"""The plan kit: graphs to be timed on a device that is elsewhere, and the latency table read from its answer."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper
from pydantic import Field, JsonValue

from edgekd.errors import EdgekdError, UsageError
from edgekd.graph.writer import WRITER_VERSION
from edgekd.latency.interval import percentile
from edgekd.latency.machine import Machine
from edgekd.latency.measure import Measurement
from edgekd.latency.table import VOCABULARY, LatencyTable, design, fit, write_graph
from edgekd.progress import Progress
from edgekd.remote.kit import SEAL, read_sealed
from edgekd.remote.pack import MEASURING, oldest_runtime, pack
from edgekd.settings.base import Spec, validated
from edgekd.settings.export import GraphOptions
from edgekd.settings.shape import EncoderShape, HeadShape
from edgekd.settings.target import Clock, InstructionSet, Precision, SessionSpec
from edgekd.store import check_file

LARGEST_KIT_BYTES = 60_000_000
LENGTHS = (16, 32, 64, 128)

# A graph's weights on the device: deeper ones would fill a small board, and depth is linear.
_LARGEST_WEIGHTS_BYTES = 200_000_000
_EFFORT = {"rounds": 6, "calls": 6}
# Mapped files begin on pages.
_PAGE = 4096
_FILES = {TensorProto.FLOAT: "float32.bin", TensorProto.INT8: "int8.bin", TensorProto.UINT8: "int8.bin"}

_HEAD = HeadShape(kind="sequence", labels=16, activation="tanh")


def _standard(layers: int, width: int, head_size: int) -> EncoderShape:
    return EncoderShape(
        vocabulary=VOCABULARY,
        positions=512,
        token_types=2,
        embedding=width,
        hidden=width,
        head_size=head_size,
        heads=(12,) * layers,
        ffn=(4 * width,) * layers,
        head=_HEAD,
    )


STANDARD = (_standard(12, 768, 64), _standard(6, 384, 32))
"""BERT-base and MiniLM-L6: what a kit measures that was made for no teacher."""


class ProbedGraph(Spec):
    """One graph at one length, as the device measured it.

    Attributes:
        teacher: Index of the teacher whose table it belongs to.
        precision: As deployed.
        length: Tokens a text.
        median_ms: At the speed that the device had in the median of its comparison.
        measurement: All samples.
    """

    teacher: int = Field(ge=0)
    shape: EncoderShape
    precision: Precision
    length: int
    median_ms: float
    measurement: dict[str, JsonValue]


class Probe(Spec):
    """What device.json holds.

    Attributes:
        kind: "device".
        edgekd: Version that made the kit.
        writer: Version of the graphs' writer.
        fingerprint: Its fingerprint.
        instruction_set: Preset of the INT8 quantiser there.
        versions: Of what ran.
        session: Session options that were measured with.
        batch_size: Texts a call.
        graph_options: Variant of the graphs.
        teachers: The largest shape of each design.
        text_work_ms: See `edgekd.remote.kit.text_work_ms`.
        clock: What was read.
        graphs: Everything measured.
        finished: When, ISO 8601.
    """

    schema_version: Literal[1]
    kind: Literal["device"]
    edgekd: str
    writer: int
    machine: dict[str, JsonValue]
    fingerprint: str
    instruction_set: InstructionSet
    versions: dict[str, str]
    session: SessionSpec
    batch_size: int
    graph_options: GraphOptions
    teachers: tuple[EncoderShape, ...]
    text_work_ms: float = Field(gt=0)
    clock: Clock
    graphs: tuple[ProbedGraph, ...] = Field(min_length=1)
    finished: str

    @property
    def lengths(self) -> tuple[int, ...]:
        """Token lengths measured, shortest first."""
        return tuple(sorted({graph.length for graph in self.graphs}))

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions measured, in the order measured."""
        return tuple(dict.fromkeys(graph.precision for graph in self.graphs))

    def tail(self, q: float) -> float:
        """Percentile q over the median: of all samples, each relative to its graph's median."""
        found = [Measurement.from_json(dict(graph.measurement)) for graph in self.graphs]
        relative = np.concatenate([m.samples(self.clock) / m.percentile(50, self.clock) for m in found])
        return max(1.0, percentile(relative, q))

    def table(
        self, teacher: EncoderShape, widths: Sequence[int], precisions: Sequence[Precision], length: int
    ) -> LatencyTable:
        """The device's latency table for a teacher; between two measured lengths it is read off a straight line.

        Args:
            teacher: Must be of the kind that was measured; its depth is free.
            widths: Those that were measured are taken.
            length: Tokens a text.

        Raises:
            UsageError: The probe did not measure this kind of teacher, its width, a precision or this length.
        """
        alike = [i for i, known in enumerate(self.teachers) if _kind(known) == _kind(teacher)]
        # Where the graphs computed every token of their last layer, nothing tells what one token of it costs.
        index = next((i for i in alike if self.teachers[i].pooled or not teacher.pooled), None)
        if index is None and alike:
            raise UsageError(
                "the probe measured a teacher that reads every token, and this one reads the first alone: "
                "make a kit for it with `edgekd probe make plan-kit.zip --teacher ...` and probe again"
            )
        if index is None:
            raise UsageError(
                "the probe measured other shapes than this teacher's "
                f"({teacher.hidden} wide, heads of {teacher.head_size}): "
                "make a kit for it with `edgekd probe make plan-kit.zip --teacher ...` and probe again"
            )
        shortest, longest = self.lengths[0], self.lengths[-1]
        if not shortest <= length <= longest:
            raise UsageError(
                f"the probe measured {shortest} to {longest} tokens a text, not {length}: ask for --max-length "
                f"{longest if length > longest else shortest}, or probe again with a kit of `--length {length}`"
            )
        costs = []
        for width in widths:
            for precision in precisions:
                shapes, medians = self._medians(index, width, precision, length)
                if shapes:
                    found = fit(width, precision, shapes, medians, self.teachers[index])
                    # A teacher whose head reads every token computes its last layer whole; the constant of the one
                    # that was measured stays in `fixed`, on the safe side.
                    costs.append(found if teacher.pooled else found.model_copy(update={"last": None}))
        for precision in precisions:
            if not any(c.width == teacher.hidden and c.precision == precision for c in costs):
                raise UsageError(f"the probe did not measure {precision} at width {teacher.hidden}: probe again")
        return LatencyTable(batch_size=self.batch_size, length=length, costs=tuple(costs))

    def _medians(
        self, teacher: int, width: int, precision: Precision, length: int
    ) -> tuple[list[EncoderShape], np.ndarray]:
        known: dict[EncoderShape, dict[int, float]] = {}
        for graph in self.graphs:
            if (graph.teacher, graph.shape.hidden, graph.precision) == (teacher, width, precision):
                known.setdefault(graph.shape, {})[graph.length] = graph.median_ms
        medians = [np.interp(length, sorted(m), [m[at] for at in sorted(m)]) for m in known.values()]
        return list(known), np.array(medians, dtype=np.float64)


def read_probe(path: Path) -> Probe:
    """Read a device.json.

    Raises:
        UsageError: It is missing, edited, of another schema version, or not what a probe writes.
    """
    content = read_sealed(path, "device", "run the kit's probe.py again")
    probe = validated(Probe, {key: value for key, value in content.items() if key != SEAL}, str(path))
    Machine.from_json(dict(probe.machine))
    for graph in probe.graphs:
        Measurement.from_json(dict(graph.measurement))
        if graph.teacher >= len(probe.teachers) or not (math.isfinite(graph.median_ms) and graph.median_ms > 0):
            raise UsageError(f"{path}: a graph without a teacher or a median; run the kit's probe.py again")
    return probe


def make_plan_kit(
    path: Path,
    teachers: Sequence[EncoderShape],
    widths: Sequence[Sequence[int]],
    precisions: Sequence[Precision],
    *,
    session: SessionSpec,
    lengths: Sequence[int],
    batch_size: int,
    options: GraphOptions,
    progress: Progress,
) -> int:
    """Write the plan kit.

    The graphs carry no large weights: the device makes them, random and as large as they must be. So a kit for a
    large teacher is no larger than one for a small one.

    Args:
        teachers: The largest shape of each table.
        lengths: Tokens a text.
        batch_size: Texts a call.

    Returns:
        Its size in bytes.

    Raises:
        UsageError: The kit cannot be written there, or a length is beyond a teacher's positions.
        EdgekdError: The kit passes 60 MB.
    """
    check_file(path)
    if max(lengths) > (most := min(teacher.positions for teacher in teachers)):
        raise UsageError(f"--length {max(lengths)}: the teacher takes at most {most} tokens")
    teachers = [teacher.model_copy(update={"vocabulary": VOCABULARY}) for teacher in teachers]
    with tempfile.TemporaryDirectory(prefix="edgekd-kit-") as folder:
        graphs = _write_graphs(Path(folder), teachers, widths, precisions, options, progress)
        content = {
            "kind": "plan-kit",
            "writer": WRITER_VERSION,
            "opset": options.opset,
            "onnxruntime": oldest_runtime(options.opset, graphs.ir_version),
            "session": session.model_dump(mode="json"),
            "batch_size": batch_size,
            "lengths": sorted(set(lengths)),
            "vocabulary": VOCABULARY,
            "graph_options": options.model_dump(mode="json"),
            "teachers": [teacher.model_dump(mode="json") for teacher in teachers],
            "weights": graphs.sizes,
            "graphs": graphs.listed,
        } | _EFFORT
        size = pack(path, "probe", MEASURING, content, graphs.files)
    if size > LARGEST_KIT_BYTES:
        path.unlink()
        raise EdgekdError(f"{path}: the kit would be {size / 1e6:.0f} MB: give --teacher, or fewer search.widths")
    return size


@dataclass
class _Graphs:
    """The graphs of a kit.

    Attributes:
        files: By their place in the kit.
        listed: What kit.json says of each.
        sizes: Bytes of each file of weights that the device makes.
        ir_version: The newest file format among them.
    """

    files: dict[str, Path] = field(default_factory=dict)
    listed: list[dict[str, Any]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    ir_version: int = 0


def _write_graphs(
    folder: Path,
    teachers: Sequence[EncoderShape],
    widths: Sequence[Sequence[int]],
    precisions: Sequence[Precision],
    options: GraphOptions,
    progress: Progress,
) -> _Graphs:
    made = _Graphs()
    plan = [
        (i, width, precision, shape)
        for i, teacher in enumerate(teachers)
        for width in widths[i]
        for precision in precisions
        for shape in dict.fromkeys(_bounded(shape) for shape in design(teacher, width))
    ]
    with progress.bar("probe: write the graphs", len(plan)) as bar:
        for number, (i, width, precision, shape) in enumerate(plan):
            # The preset moves the values of INT8 weights, never their number or their speed.
            whole = write_graph(folder / f"{number}.onnx", shape, precision, options, "avx2")
            model = onnx.load(whole)
            whole.unlink()
            for file, size in _without_weights(model).items():
                made.sizes[file] = max(made.sizes.get(file, 0), size)
            name = f"graphs/{number}.onnx"
            made.files[name] = folder / f"{number}.thin.onnx"
            made.files[name].write_bytes(model.SerializeToString(deterministic=True))
            made.ir_version = max(made.ir_version, model.ir_version)
            group, shown = f"{i}-{width}-{precision}", shape.model_dump(mode="json")
            made.listed.append({"file": name, "group": group, "teacher": i, "precision": precision, "shape": shown})
            bar.update(number + 1)
    return made


def _kind(shape: EncoderShape) -> tuple[Any, ...]:
    """What two teachers must share for one's table to hold for the other."""
    return shape.hidden, shape.head_size, max(shape.heads), max(shape.ffn), shape.activation


def _bounded(shape: EncoderShape) -> EncoderShape:
    """The shape with no more layers than its device should have to hold."""
    layer = 4 * shape.encoder_parameters() / shape.depth
    depth = max(1, min(shape.depth, int(_LARGEST_WEIGHTS_BYTES / layer)))
    return shape.model_copy(update={"heads": shape.heads[:depth], "ffn": shape.ffn[:depth]})


def _without_weights(model: onnx.ModelProto) -> dict[str, int]:
    """Point a graph's weights into files that the device makes; norms, scales and zero points stay as they are.

    Returns:
        Bytes that each file must have for it.
    """
    ends: dict[str, int] = {}
    for tensor in model.graph.initializer:
        file, size = _FILES.get(tensor.data_type), len(tensor.raw_data)
        if file is None or size < _PAGE or "norm" in tensor.name or tensor.name.endswith(("_scale", "_zero_point")):
            continue
        start = -(-ends.get(file, 0) // _PAGE) * _PAGE
        external_data_helper.set_external_data(tensor, location=file, offset=start, length=size)
        tensor.ClearField("raw_data")
        ends[file] = start + size
    return ends
