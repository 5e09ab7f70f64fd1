"""The latency table of a device: what each part of a student costs there, from a few dozen measured graphs.

For one width, precision, thread count, batch and length the median latency of a model is taken as

    s + bend s^2,  s = fixed + sum over layers of ( layer + attention(heads) + ffn(neurons) )

with attention and ffn piecewise linear between measured knots. Where the head reads the first token alone, the last
layer computes little for the others (see `write_student`): it costs so much a head and so much a neuron, its constant
being part of `fixed`. The bend is what the caches do: the more a model weighs, the less of it waits near the core for
the next call. Latency does not depend on weights, so the graphs carry random ones and a small vocabulary (its size
moves the file, never the latency).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import UsageError
from edgekd.graph.quantize import quantize_like
from edgekd.graph.writer import random_weights, save_model, write_student
from edgekd.latency.interval import steady_medians
from edgekd.latency.measure import compare
from edgekd.latency.targets.base import Target
from edgekd.latency.timer import GraphJob
from edgekd.progress import Progress
from edgekd.settings.base import Spec
from edgekd.settings.export import GraphOptions
from edgekd.settings.shape import EncoderShape
from edgekd.settings.target import Precision

VOCABULARY = 1000
"""Rows of the word embedding in measured graphs."""

_HEAD_KNOTS = (0.25, 0.5, 1.0)
_FFN_KNOTS = (0.125, 0.25, 0.5, 1.0)

# Bends tried, as the share that they add to the slowest graph; a straight line is preferred a little.
_BENDS = tuple(0.01 * i for i in range(-5, 31))
_STRAIGHTNESS = 1e-3


class WidthCosts(Spec):
    """Costs in milliseconds at one width and precision.

    Attributes:
        width: Hidden width.
        precision: As deployed.
        fixed: Embeddings and head, and what every last layer costs where `last` is given.
        bend: Of the sum s, in 1 / ms: the latency is s + bend s^2.
        heads: Knots of `attention`, in heads; 0 first.
        attention: Cost of one layer's attention and norms at each knot.
        neurons: Knots of `ffn`, in neurons; 0 first.
        ffn: Cost of one layer's FFN at each knot, above that of none.
        last: Cost of a head and of a neuron of the last layer, where the head reads the first token alone; None: the
            last layer costs what the others cost.
        graphs: How many graphs were measured for it.
        residual: Median relative error of the fit on those graphs.
    """

    width: int
    precision: Precision
    fixed: float
    heads: tuple[float, ...]
    attention: tuple[float, ...]
    neurons: tuple[float, ...]
    ffn: tuple[float, ...]
    graphs: int
    residual: float
    last: tuple[float, float] | None = None
    bend: float = 0.0

    def whole_ms(self, heads: Sequence[float], neurons: Sequence[float]) -> float:
        """Latency of a model with so many heads and neurons in its layers."""
        *others, last = zip(heads, neurons, strict=True)
        total = self.fixed + sum(self.layer_ms(h, f) for h, f in others) + self.last_layer_ms(*last)
        return total + self.bend * total**2

    def straight_ms(self, latency_ms: float) -> float:
        """The sum of costs behind a latency: the inverse of the bend."""
        return float(_straight(np.array(latency_ms), self.bend))

    def layer_ms(self, heads: float, neurons: float) -> float:
        """Cost of a layer that is not the last, before the bend."""
        return float(np.interp(heads, self.heads, self.attention) + np.interp(neurons, self.neurons, self.ffn))

    def last_layer_ms(self, heads: float, neurons: float) -> float:
        """Cost of the last layer, before the bend."""
        if self.last is None:
            return self.layer_ms(heads, neurons)
        return heads * self.last[0] + neurons * self.last[1]


class LatencyTable(Spec):
    """What the parts of a student cost on one device.

    Attributes:
        batch_size: Texts a call.
        length: Tokens a text.
        costs: One entry for each width and precision.
    """

    batch_size: int
    length: int
    costs: tuple[WidthCosts, ...]

    def at(self, width: int, precision: Precision) -> WidthCosts:
        """The costs at a width and precision.

        Raises:
            UsageError: They were not measured.
        """
        for costs in self.costs:
            if costs.width == width and costs.precision == precision:
                return costs
        known = ", ".join(f"{c.width} {c.precision}" for c in self.costs)
        raise UsageError(f"the latency table has no entry for width {width}, {precision} (measured: {known})")

    def median_ms(self, shape: EncoderShape, precision: Precision) -> float:
        """Predicted median latency of the model alone, in milliseconds."""
        costs = self.at(shape.hidden, precision)
        return costs.whole_ms(shape.heads, shape.ffn)


def narrowed(shape: EncoderShape, width: int, heads: Sequence[int], ffn: Sequence[int]) -> EncoderShape:
    """The teacher's shape with another width and other layers; the embedding follows the width."""
    return shape.model_copy(update={"hidden": width, "embedding": width, "heads": tuple(heads), "ffn": tuple(ffn)})


def measure_table(
    target: Target,
    teacher: EncoderShape,
    widths: Sequence[int],
    precisions: Sequence[Precision],
    *,
    batch_size: int,
    length: int,
    options: GraphOptions,
    instruction_set: str,
    rounds: int = 6,
    calls: int = 6,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure the table: about a dozen graphs a width and precision, all interleaved.

    Args:
        teacher: The largest shape; its heads and neurons bound the knots.
        batch_size: Texts a call.
        length: Tokens a text.
        instruction_set: Preset of the INT8 quantiser.
        calls: Calls a round.
    """
    progress = progress or Progress()
    shapes = [shape for width in widths for shape in design(teacher, width)]
    graphs: list[tuple[EncoderShape, Precision, GraphJob]] = []
    with tempfile.TemporaryDirectory(prefix="edgekd-table-") as folder:
        with progress.bar("plan: write the graphs of the latency table", len(shapes)) as bar:
            for i, shape in enumerate(shapes):
                made = write_graphs(Path(folder) / str(i), shape, precisions, options, instruction_set)
                for precision, path in zip(precisions, made, strict=True):
                    job = GraphJob(path.name, path, batch_size, length, min(shape.vocabulary, VOCABULARY))
                    graphs.append((shape, precision, job))
                bar.update(i + 1)
        with progress.bar("plan: measure the latency table", 1) as bar:
            measured = compare(
                [job for _, _, job in graphs], target, processes=1, rounds=rounds, calls=calls,
                progress=lambda a, b: bar.update(a / b),
            )  # fmt: skip
    medians = steady_medians(measured, target.clock, target.usual_speed())
    costs = []
    for width, precision in dict.fromkeys((shape.hidden, precision) for shape, precision, _ in graphs):
        mine = [(shape, medians[job.name]) for shape, p, job in graphs if (shape.hidden, p) == (width, precision)]
        times = np.array([ms for _, ms in mine])
        costs.append(fit(width, precision, [shape for shape, _ in mine], times, teacher))
    return LatencyTable(batch_size=batch_size, length=length, costs=tuple(costs))


def write_graph(
    path: Path,
    shape: EncoderShape,
    precision: Precision,
    options: GraphOptions,
    instruction_set: str,
    vocabulary: int = VOCABULARY,
) -> Path:
    """Write one random-weight graph in the precision it would be deployed in, with at most `vocabulary` words."""
    (made,) = write_graphs(path.with_suffix(""), shape, [precision], options, instruction_set, vocabulary)
    return made


def write_graphs(
    stem: Path,
    shape: EncoderShape,
    precisions: Sequence[Precision],
    options: GraphOptions,
    instruction_set: str,
    vocabulary: int = VOCABULARY,
) -> list[Path]:
    """`write_graph` in several precisions: the weights are drawn and written once.

    Args:
        stem: The files' path without suffix.
        instruction_set: Preset of the INT8 quantiser.
        vocabulary: Words at most.

    Returns:
        One file a precision, in their order.
    """
    small = shape.model_copy(update={"vocabulary": min(shape.vocabulary, vocabulary)})
    plain, quantized = stem.with_name(f"{stem.name}.onnx"), stem.with_name(f"{stem.name}.int8.onnx")
    save_model(write_student(small, random_weights(small), options), plain)
    if "int8" in precisions:
        quantize_like(plain, quantized, instruction_set=instruction_set)
    if all(precision == "int8" for precision in precisions):
        plain.unlink()
    return [quantized if precision == "int8" else plain for precision in precisions]


def design(teacher: EncoderShape, width: int) -> list[EncoderShape]:
    """The shapes measured at one width: every knot of heads and of neurons, and more than one depth."""
    most_heads, most_ffn = max(teacher.heads), max(teacher.ffn)
    heads, ffn = _knots(most_heads, _HEAD_KNOTS), _knots(most_ffn, _FFN_KNOTS)
    depth = min(3, teacher.depth)
    layouts = [(depth, h, ffn[-1]) for h in heads] + [(depth, heads[-1], f) for f in ffn[:-1]]
    layouts += [(1, heads[-1], ffn[-1]), (1, heads[0], ffn[0])]
    if teacher.pooled:
        # What its last layer costs, apart from the others.
        layouts.append((1, heads[-1], ffn[0]))
    # A good part at full depth: the bend shows there.
    layouts += [(teacher.depth, h, f) for h, f in zip(heads, ffn, strict=False)]
    layouts += [(teacher.depth, heads[0], ffn[len(ffn) // 3]), (teacher.depth, heads[len(heads) // 2], ffn[-1])]
    unique = list(dict.fromkeys(layouts))
    return [narrowed(teacher, width, [h] * n, [f] * n) for n, h, f in unique]


def fit(
    width: int,
    precision: Precision,
    shapes: Sequence[EncoderShape],
    medians: NDArray[np.float64],
    teacher: EncoderShape,
) -> WidthCosts:
    """Least squares of the relative error over the measured graphs of one width and precision.

    Args:
        width: Hidden width.
        shapes: The measured shapes, (n).
        medians: Their median latencies in ms, (n,).
    """
    tried = []
    for share in _BENDS:
        costs = _fit_bent(width, precision, shapes, medians, teacher, share / float(medians.max()))
        errors = np.array([costs.whole_ms(s.heads, s.ffn) for s in shapes]) / medians - 1.0
        tried.append((float((errors**2).mean()) + _STRAIGHTNESS * share**2, costs, float(np.median(np.abs(errors)))))
    _, best, residual = min(tried, key=lambda entry: entry[0])
    return best.model_copy(update={"residual": residual})


def _fit_bent(
    width: int,
    precision: Precision,
    shapes: Sequence[EncoderShape],
    medians: NDArray[np.float64],
    teacher: EncoderShape,
    bend: float,
) -> WidthCosts:
    heads = np.array([0, *_knots(max(teacher.heads), _HEAD_KNOTS)], dtype=np.float64)
    neurons = np.array([0, *_knots(max(teacher.ffn), _FFN_KNOTS)], dtype=np.float64)
    rows = []
    pooled = teacher.pooled
    for shape in shapes:
        others = slice(0, shape.depth - 1 if pooled else shape.depth)
        attention = sum((_hat(heads, h) for h in shape.heads[others]), np.zeros(len(heads)))
        ffn = sum((_hat(neurons, f) for f in shape.ffn[others]), np.zeros(len(neurons)))
        last = [shape.heads[-1] / heads[-1], shape.ffn[-1] / neurons[-1]] if pooled else []
        rows.append(np.concatenate([[1.0], attention, ffn[1:], last]))
    sums = _straight(medians, bend)
    matrix = np.asarray(rows) / sums[:, None]
    # Nothing is measured at the knots at 0: a faint pull towards a straight line through the first three decides.
    split, end = 1 + len(heads), len(heads) + len(neurons)
    ridge = np.zeros((2, matrix.shape[1]))
    ridge[0, 1 : 1 + min(3, len(heads))] = _bend(heads)
    ridge[1, split : split + min(3, len(neurons)) - 1] = _bend(neurons)[1:]
    weight = 1e-3 / float(np.median(sums))
    solved, *_ = np.linalg.lstsq(
        np.vstack([matrix, weight * ridge]), np.concatenate([np.ones(len(shapes)), np.zeros(2)]), rcond=None
    )
    return WidthCosts(
        width=width,
        precision=precision,
        fixed=float(solved[0]),
        heads=tuple(heads.tolist()),
        attention=tuple(solved[1:split].tolist()),
        neurons=tuple(neurons.tolist()),
        ffn=(0.0, *solved[split:end].tolist()),
        last=(float(solved[end] / heads[-1]), float(solved[end + 1] / neurons[-1])) if pooled else None,
        graphs=len(shapes),
        residual=0.0,
        bend=bend,
    )


def _straight(latencies: NDArray[np.float64], bend: float) -> NDArray[np.float64]:
    """The s for which s + bend s^2 is the latency, written so that no digit is lost where the bend is small."""
    root = np.sqrt(np.maximum(0.0, 1.0 + 4.0 * bend * latencies))
    straight: NDArray[np.float64] = 2.0 * latencies / (1.0 + root)
    return straight


def _knots(most: int, shares: Sequence[float]) -> list[int]:
    return sorted({max(1, round(share * most)) for share in shares})


def _hat(knots: NDArray[np.float64], value: float) -> NDArray[np.float64]:
    """Weights (knots,) by which linear interpolation at `value` mixes the values at the knots."""
    return np.array([np.interp(value, knots, unit) for unit in np.eye(len(knots))])


def _bend(knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the values at the first three knots whose sum is 0 on a straight line; zeros if there are but two."""
    if len(knots) < 3:
        return np.zeros(len(knots))
    a, b, c = knots[:3]
    return np.array([(c - b) / (c - a), -1.0, (b - a) / (c - a)])
