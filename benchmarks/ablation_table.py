"""Figures and Markdown of `ablation.py`: means, paired intervals and gaps closed, from per-text answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ablation_rows import BASELINE, DEFAULT, ROWS

Cell = dict[str, Any]
"""One run: its figures, and `correct`, one bit a test text in hexadecimal."""

_RESAMPLES = 5000


def correct_of(cell: Cell) -> np.ndarray:
    """What each text brings to the score, which is its mean: of accuracy, 1 where the answer is right; (texts,)."""
    if "credit" in cell:
        return np.array(cell["credit"], dtype=np.float64)
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(cell["correct"]), dtype=np.uint8))
    return bits[: cell["texts"]].astype(np.float64)


def paired(row: Mapping[int, Cell], baseline: Mapping[int, Cell]) -> tuple[float, tuple[float, float], list[float]]:
    """Difference of accuracy on the same test texts, over the seeds that both have.

    Each text's difference is taken within a seed, then averaged over seeds; texts are resampled, the same ones for
    all seeds, because all seeds share the test set. The interval says how far the test texts decide the difference;
    how far the seeds do is in the third value.

    Args:
        row: Cells by seed.
        baseline: Cells by seed; at least one seed is in both.

    Returns:
        Mean difference in points, its 95% interval by a bootstrap over texts, and the difference of each seed.
    """
    seeds = sorted(set(row) & set(baseline))
    by_seed = np.stack([correct_of(row[s]) - correct_of(baseline[s]) for s in seeds])
    pooled = by_seed.mean(axis=0)
    n, rng = len(pooled), np.random.default_rng(0)
    means = [pooled[rng.integers(0, n, n)].mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    each = [100 * float(difference) for difference in by_seed.mean(axis=1)]
    return 100 * float(pooled.mean()), (100 * float(low), 100 * float(high)), each


def summarise(cells: Sequence[Cell], left_out: Mapping[str, str]) -> list[dict[str, Any]]:
    """The table of one setting and student; rows without a finished run say why, and hold no figure.

    Args:
        cells: Its finished runs.
        left_out: By row: why it is not part of this edition.
    """
    by_row: dict[str, dict[int, Cell]] = {}
    for cell in cells:
        by_row.setdefault(cell["row"], {})[cell["seed"]] = cell
    return [
        _line(row.name, by_row[row.name], by_row.get(BASELINE.name, {}))
        if row.name in by_row
        else {"row": row.name, "note": left_out.get(row.name) or "not run"}
        for row in ROWS
    ]


def _line(name: str, mine: Mapping[int, Cell], baseline: Mapping[int, Cell]) -> dict[str, Any]:
    scores = [100 * mine[s]["score"] for s in sorted(mine)]
    line: dict[str, Any] = {
        "row": name,
        "seeds": sorted(mine),
        "scores": scores,
        "mean": float(np.mean(scores)),
        "sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "teacher": 100 * float(np.mean([c["teacher"] for c in mine.values()])),
        "untrained_validation": 100 * float(np.mean([c["untrained"] for c in mine.values()])),
        "steps": [mine[s]["steps"] for s in sorted(mine)],
        "seconds": float(np.mean([c["seconds"] for c in mine.values()])),
    }
    seeds = sorted(set(mine) & set(baseline))
    if not seeds or name == BASELINE.name:
        return line
    difference, interval, each = paired(mine, baseline)
    gap = 100 * float(np.mean([baseline[s]["teacher"] - baseline[s]["score"] for s in seeds]))
    # A teacher that is no better than the baseline leaves no gap to close.
    closed = difference / gap if gap > 0 else None
    return line | {"difference": difference, "interval": interval, "by_seed": each, "gap": gap, "gap_closed": closed}


def default_check(tables: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Where the default recipe beats the tuned baseline: its whole interval is above zero.

    Args:
        tables: By "setting, student".
    """
    found: dict[str, Any] = {}
    for name, table in tables.items():
        line = next(line for line in table if line["row"] == DEFAULT.name)
        if "interval" in line:
            low = line["interval"][0]
            found[name] = {
                "difference": line["difference"], "interval": line["interval"],
                "beats": low > 0, "not_worse": low > -0.3,
            }  # fmt: skip
    return {"each": found, "beats": sum(entry["beats"] for entry in found.values()), "of": len(found)}


def markdown(name: str, table: Sequence[dict[str, Any]]) -> str:
    """The table as people read it."""
    lines = [
        f"### {name}",
        "",
        "| recipe | accuracy, mean (sd) | by seed | against fine-tune, tuned [95%] | gap closed | training, s |",
        "|---|---|---|---|---|---|",
    ]
    taught = [line["teacher"] for line in table if "teacher" in line]
    if taught:
        lines.append(f"| teacher | {taught[0]:.2f} | | | | |")
    return "\n".join(lines + [_markdown_line(line) for line in table]) + "\n"


def _markdown_line(line: Mapping[str, Any]) -> str:
    if "mean" not in line:
        return f"| {line['row']} | {line['note']} | | | | |"
    spread = "" if line["sd"] is None else f" ({line['sd']:.2f})"
    scores = ", ".join(f"{score:.2f}" for score in line["scores"])
    against, closed = "", ""
    if "interval" in line:
        low, high = line["interval"]
        against = f"{line['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
        closed = "no gap" if line["gap_closed"] is None else f"{100 * line['gap_closed']:.0f}%"
    return f"| {line['row']} | {line['mean']:.2f}{spread} | {scores} | {against} | {closed} | {line['seconds']:.0f} |"
