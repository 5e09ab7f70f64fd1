"""The words and numbers that all renderings share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import get_args

from pydantic import JsonValue

from edgekd.records.base import Interval
from edgekd.records.result import Contender, Criterion, Outcome, Percentile, QualityRow, Result, speed_words

BADGE: dict[Outcome, str] = {
    "met": "Met",
    "missed": "Missed",
    "inconclusive": "Inconclusive",
    "unmeasured": "Not measured",
}
# A mark beside the word, so that nothing hangs on colour.
MARK: dict[Outcome, str] = {"met": "✓", "missed": "✗", "inconclusive": "?", "unmeasured": "–"}
DEMO_WARNING = "Synthetic data: this shows how EdgeKD works, not how well it does on your texts."
_OPENING = {
    "met": "Ready to deploy",
    "missed": "Not ready to deploy",
    "inconclusive": "No verdict: the measurements cannot tell",
}
# Scores nearer than this are told as the same.
_TIE = 0.003
NONE = "–"


def number(value: float) -> str:
    """Three significant digits, two below 1, never an exponent: 0.07, 0.85, 8.71, 41.3, 1,234."""
    size = abs(value)
    if 0 < size < 0.1:
        return f"{value:.2g}" if size >= 1e-4 else "< 0.0001"
    digits = 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:,.{digits}f}"


def ms(value: float | None) -> str:
    """Such as "8.71 ms"."""
    return NONE if value is None else f"{number(value)} ms"


def percent(value: float | None) -> str:
    """A share in percent, such as "95.1%"."""
    return NONE if value is None else f"{100 * value:.1f}%"


def megabytes(value: float | None) -> str:
    """Such as "22.9 MB"."""
    return NONE if value is None else f"{number(value)} MB"


def count(value: int) -> str:
    """Such as "950", "22.7 M" or "1.2 B"."""
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:,}"


def duration(seconds: float) -> str:
    """Such as "12.3 s", "4 min 05 s" or "2 h 10 min"."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def day(when: datetime) -> str:
    """Such as "2026-03-14"."""
    return when.date().isoformat()


def metric(result: Result) -> str:
    """The metric's name as a title, such as "Span F1"."""
    name = result.data.metric
    return name[0].upper() + name[1:]


def precision_name(precision: str) -> str:
    """A precision as people write it, such as "INT8"."""
    return precision.upper()


def quantile(q: float) -> str:
    """Such as "p95"."""
    return f"p{q:g}"


def quantity(value: float | None, unit: str) -> str:
    """A criterion's number in its unit."""
    if value is None:
        return NONE
    if unit == "share":
        return percent(value)
    return ms(value) if unit == "ms" else f"{number(value)} {unit}".rstrip()


def interval(ends: Interval | None, unit: str = "") -> str:
    """Such as "8.62 to 8.80", or "above 8.62" where the upper end is open; empty without one."""
    if ends is None:
        return ""
    shown = [NONE if end is None else f"{100 * end:.1f}" if unit == "share" else number(end) for end in ends]
    tail = "%" if unit == "share" else ""
    return f"above {shown[0]}{tail}" if ends[1] is None else f"{shown[0]} to {shown[1]}{tail}"


def limit_ms(result: Result) -> str:
    """The budget as it was given, such as "10 ms"."""
    return f"{result.budget_ms:.4g} ms"


def limit(criterion: Criterion) -> str:
    """A criterion's limit as it was given, such as "≤ 10 ms" or "≥ 97%"."""
    sign = "≤" if criterion.bound == "at most" else "≥"
    if criterion.unit == "share":
        return f"{sign} {100 * criterion.limit:.6g}%"
    return f"{sign} {criterion.limit:g} {criterion.unit}".rstrip()


def subject(result: Result) -> str:
    """What was shipped, in words."""
    row = result.shipped
    if row is None or row.name.startswith("student"):
        return "the student"
    return "the quantised teacher" if row.name == "teacher, INT8" else "the unchanged teacher"


def judged(result: Result) -> Percentile | None:
    """The measured percentile that the budget is about."""
    timing = result.latency.judged
    return None if timing is None else timing.at(result.percentile)


def retained(result: Result) -> float | None:
    """Share of the teacher's score that the shipped model keeps."""
    shipped, teacher = result.shipped, result.row("teacher")
    if shipped is None or teacher is None or teacher.score == 0:
        return None
    return shipped.score / teacher.score


def latency_axis(result: Result) -> tuple[float, float]:
    """Ends of the latency figure's axis in ms: all but the slowest hundredth of calls, and the budget."""
    timings = [timing for timing in result.latency.timings.values() if timing.samples_ms]
    if not timings:
        return 0.0, result.budget_ms
    high = [max((p.value_ms for p in timing.percentiles), default=timing.samples_ms[-1]) for timing in timings]
    low = min(min(min(timing.samples_ms) for timing in timings), result.budget_ms)
    top = max(*high, result.budget_ms)
    pad = 0.09 * (top - low) or 0.1 * top
    return max(0.0, low - 2 * pad), top + pad


def shrinkage(result: Result) -> float | None:
    """How many times smaller than the FP32 teacher's the shipped file is."""
    shipped, teacher = result.shipped, result.row("teacher")
    if shipped is None or teacher is None or shipped is teacher or not (teacher.size_mb and shipped.size_mb):
        return None
    return teacher.size_mb / shipped.size_mb


def quality_rows(result: Result) -> list[QualityRow]:
    """The quality table: teacher first, then the students, then what needs no encoder."""
    order = get_args(Contender)
    return sorted(result.quality, key=lambda row: order.index(row.name))


def quality_heads(result: Result) -> tuple[str, ...]:
    """Titles of `quality_cells`, in every rendering."""
    return (metric(result), "Interval", "p50, ms", "p95, ms", "MB")


def quality_cells(row: QualityRow) -> list[str]:
    """What a row of the quality table says beside the model's name."""
    sizes = (NONE if value is None else number(value) for value in (row.p50_ms, row.p95_ms, row.size_mb))
    return [percent(row.score), interval(row.interval, "share") or NONE, *sizes]


def headline(result: Result) -> str:
    """The verdict in one sentence that needs no training to read."""
    facts = ", and ".join(fact for fact in (_latency_fact(result), _quality_fact(result)) if fact)
    if result.outcome == "unmeasured":
        opening = f"Not measured yet: run the verify kit on the device to judge the {limit_ms(result)} budget"
        return f"{opening}. On this machine {facts}." if facts else f"{opening}."
    opening = _OPENING[result.outcome]
    if result.outcome == "met" and (better := beaten_by(result)) is not None:
        weak = f"the same student fine-tuned without its teacher has {percent(better.score)}"
        return f"Within the budget, but held back by its teacher: {facts}; {weak}. Teach the teacher longer first."
    if result.outcome == "inconclusive":
        return f"{opening}. So far {facts}." if facts else f"{opening}."
    return f"{opening}: {facts}." if facts else f"{opening}."


def reasons(result: Result) -> list[str]:
    """Why the verdict is not "met", one sentence a criterion."""
    return [f"{c.name}: {c.explanation or BADGE[c.outcome].lower()}" for c in result.criteria if c.outcome != "met"]


def notes(result: Result) -> list[str]:
    """What could have been left out for as good a student, one sentence or two each."""
    return [note for note in (distillation_note(result), assistant_note(result), plain_text_note(result)) if note]


def plain_text_note(result: Result) -> str:
    """How much is kept where a text is given as it is, and the bundle splits it into words itself; else empty."""
    found = next((c for c in result.criteria if c.kind == "plain text"), None)
    if found is None or found.value is None:
        return ""
    return (
        f"This is on the words that the texts came with; of plain text, which the bundle splits into words itself, "
        f"{percent(found.value)} of the teacher’s {result.data.metric} on words is kept: give it words where there are."
    )


def distillation_note(result: Result) -> str:
    """Says so where the student would have been as good, or better, without its teacher; else empty."""
    lost = "More unlabelled text of your domain is what usually helps."
    row = result.row("student, fine-tuned without distillation")
    return _needless(result, row, "Distillation", "fine-tuned without it", lost)


def assistant_note(result: Result) -> str:
    """Says so where the student would have been as good, or better, without its assistant; else empty."""
    row = result.row("student, no assistant at the same compute")
    return _needless(result, row, "The assistant", "without it at the same compute", "--assistants none leaves it out.")


def beaten_by(result: Result) -> QualityRow | None:
    """The student fine-tuned without distillation, where it is better than what is shipped beyond both intervals."""
    shipped, without = result.shipped, result.row("student, fine-tuned without distillation")
    if shipped is None or without is None or not shipped.name.startswith("student"):
        return None
    if shipped.interval is None or without.interval is None or shipped.interval[1] is None:
        return None
    return without if without.interval[0] > shipped.interval[1] else None


def _needless(result: Result, without: QualityRow | None, what: str, how: str, lost: str) -> str:
    """Whether something lost, or made no difference, where the same student was trained without it."""
    shipped = result.shipped
    if shipped is None or without is None or not shipped.name.startswith("student"):
        return ""
    if shipped.score - without.score >= _TIE:
        return ""
    scores = f"{percent(without.score)} {how}, {percent(shipped.score)} with it"
    if without.score - shipped.score >= _TIE:
        return f"{what} lost here: {scores}. {lost}"
    return f"{what} made no difference here: {scores}."


def pitch(result: Result) -> str:
    """What the shipped model is, in one line."""
    chosen = result.chosen
    if chosen is None or not subject(result).endswith("student"):
        return subject(result)
    # INT8 that costs too much quality is shipped as FP32, whatever was planned.
    row = result.shipped
    return f"{chosen.shape_words}, {precision_name((row and row.precision) or chosen.precision)}"


def _latency_fact(result: Result) -> str:
    found = judged(result)
    if found is None:
        return ""
    timing = result.latency.judged
    need = "need at most" if timing is not None and timing.clock == "service" else "finish within"
    return f"{result.percentile:g}% of calls {need} {ms(found.value_ms)} (budget {limit_ms(result)})"


def _quality_fact(result: Result) -> str:
    share, shipped = retained(result), result.shipped
    if share is None or shipped is None or shipped.name == "teacher":
        return ""
    if result.data.metric == "agreement with the teacher":
        if result.data.task == "text-regression":
            return (
                f"{subject(result)} ranks texts as the teacher does to {percent(shipped.score)} (Spearman correlation)"
            )
        return f"{subject(result)} agrees with the teacher on {percent(shipped.score)} of texts"
    return f"{subject(result)} keeps {percent(share)} of the teacher’s {result.data.metric}"


def clock_line(result: Result) -> str:
    """What was judged, in a few words, and how the machine was."""
    timing = result.latency.judged
    if timing is None:
        return ""
    waited = f", {percent(timing.waited_share)} of the response time spent waiting" if timing.waited_share else ""
    return f"{timing.clock} time{waited}"


def clock_words(result: Result) -> str:
    """What was judged, and how the machine was, in sentences; empty where nothing was measured."""
    timing = result.latency.judged
    if timing is None:
        return ""
    said = {
        "service": "Judged on service time: the CPU time of the calling thread, which is what the device needs for a "
        "call whoever else runs on it, at the machine’s usual speed.",
        "response": "Judged on response time: what a caller waits on this machine as it was, its other load included.",
    }[timing.clock]
    speed = "" if result.speed is None else f" {_sentence(speed_words(result.speed))}"
    return f"{said}{speed}"


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def machine_line(result: Result) -> str:
    """The machine in a few words: its processor, or its GPU, and what of it was used."""
    machine, target = result.machine, _target(result)
    on_gpu = target.get("kind") in ("onnxruntime-cuda", "tensorrt")
    parts = [(machine.get("gpu") if on_gpu else None) or machine.get("cpu_model") or machine.get("architecture")]
    threads = target.get("threads")
    if threads and not on_gpu:
        parts.append(f"{threads} thread{'' if threads == 1 else 's'}")
    runtime = next((key for key in ("onnxruntime", "onnxruntime-gpu") if key in result.versions), None)
    if runtime is not None:
        parts.append(f"{runtime} {result.versions[runtime]}")
    return ", ".join(str(part) for part in parts if part)


def _target(result: Result) -> Mapping[str, JsonValue]:
    """The target in the request; empty where the request has none."""
    profile = result.request.get("profile")
    target = profile.get("target") if isinstance(profile, dict) else None
    return target if isinstance(target, dict) else {}
