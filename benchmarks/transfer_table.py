"""Figures and Markdown of `transfer.py`: means, paired intervals, gain against likeness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ablation_table import Cell, correct_of

_RESAMPLES = 5000
# What each table's rows are compared with: its first row.
_ALL_DOMAINS = "all domains"


def summarise(
    cells: Sequence[Cell], targets: Sequence[str], rows: Mapping[str, Sequence[str]]
) -> dict[str, list[dict[str, Any]]]:
    """A table a target, and one over all domains; the first row is what the others are compared with.

    Args:
        cells: Finished runs.
        targets: Names of the targets.
        rows: Names of each target's rows.
    """
    tables = {}
    names = list(dict.fromkeys(targets))
    domains = [name for name in names if name.startswith("domain ")]
    if domains:
        tables[_ALL_DOMAINS] = _table([c for c in cells if c["target"] in domains], rows[domains[0]])
    for name in names:
        tables[name] = _table([c for c in cells if c["target"] == name], rows[name])
    return tables


def _table(cells: Sequence[Cell], rows: Sequence[str]) -> list[dict[str, Any]]:
    found = {(c["row"], c["target"], c["seed"]): c for c in cells}
    table = []
    for row in rows:
        mine = [c for c in cells if c["row"] == row]
        if not mine:
            table.append({"row": row, "note": "not run"})
            continue
        line: dict[str, Any] = {
            "row": row,
            "runs": len(mine),
            "mean": 100 * float(np.mean([c["score"] for c in mine])),
            "scores": [100 * c["score"] for c in mine],
            "teacher": 100 * float(np.mean([c["teacher"] for c in mine])),
            "texts": float(np.mean([sum(c["counts"].values()) for c in mine])),
            "seconds": float(np.mean([c["seconds"] for c in mine])),
        }
        if "parts" in mine[0]:
            line["parts"] = {name: 100 * float(np.mean([c["parts"][name] for c in mine])) for name in mine[0]["parts"]}
        pairs = [
            (c, found[rows[0], c["target"], c["seed"]]) for c in mine if (rows[0], c["target"], c["seed"]) in found
        ]
        if row != rows[0] and pairs:
            line |= _paired(pairs)
        table.append(line)
    return table


def _paired(pairs: Sequence[tuple[Cell, Cell]]) -> dict[str, Any]:
    """Mean difference in points over targets and seeds, with a 95% interval by a bootstrap over test texts.

    All seeds of a target share its test texts, so a text is drawn with all its seeds.
    """
    by_target: dict[str, list[np.ndarray]] = {}
    for mine, base in pairs:
        by_target.setdefault(mine["target"], []).append(correct_of(mine) - correct_of(base))
    differences = [np.mean(each, axis=0) for each in by_target.values()]
    rng = np.random.default_rng(0)
    means = [np.mean([d[rng.integers(0, len(d), len(d))].mean() for d in differences]) for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "difference": 100 * float(np.mean([d.mean() for d in differences])),
        "interval": (100 * float(low), 100 * float(high)),
        "by_run": [100 * (mine["score"] - base["score"]) for mine, base in pairs],
    }


def gain_by_likeness(cells: Sequence[Cell]) -> dict[str, Any]:
    """What generic text alone brings over none, against its likeness to the target, over domains and seeds."""
    found = {(c["row"], c["target"], c["seed"]): c for c in cells}
    points = []
    for (row, target, seed), cell in sorted(found.items()):
        base = found.get(("none", target, seed))
        if row != "similar only" or base is None or not target.startswith("domain "):
            continue
        likeness = {kind["name"]: kind["chosen_mean"] for kind in cell["selection"]["likeness"]}
        points.append(
            {"target": target, "seed": seed, "gain": 100 * (cell["score"] - base["score"]), "likeness": likeness}
        )
    kinds = sorted(points[0]["likeness"]) if points else []
    gains = [p["gain"] for p in points]
    spearman = {kind: _spearman([p["likeness"][kind] for p in points], gains) for kind in kinds}
    return {"points": points, "spearman": spearman}


def _spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Rank correlation; None with fewer than 3 points or where one of both is constant."""
    if len(x) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values)
    return np.array([(array < v).sum() + (array == v).sum() / 2 for v in array])


def draw_gain(gain: Mapping[str, Any], path: Path) -> None:
    """Gain against likeness, a point a domain and seed; nothing where there are no points."""
    if not gain["points"]:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    kinds = list(gain["spearman"])
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False).flat, kinds, strict=True):
        for target in sorted({p["target"] for p in gain["points"]}):
            mine = [p for p in gain["points"] if p["target"] == target]
            axes.plot([p["likeness"][kind] for p in mine], [p["gain"] for p in mine], "o", label=target)
        found = gain["spearman"][kind]
        axes.set_title(f"Spearman {'not defined' if found is None else f'{found:.2f}'}", fontsize=10)
        axes.set_xlabel(f"likeness of the generic text by {kind}")
        axes.set_ylabel("gain over no generic text, points")
        axes.legend(fontsize=8)
    figure.savefig(path, format="svg")


def markdown(name: str, table: Sequence[Mapping[str, Any]]) -> str:
    """The table as people read it."""
    first = table[0]["row"]
    heads = f"| text | texts | score, mean | by run | against {first} [95%] |"
    lines = [f"### {name}", "", heads, "|---|---|---|---|---|"]
    taught = [line["teacher"] for line in table if "teacher" in line]
    if taught:
        lines.append(f"| (teacher) | | {taught[0]:.2f} | | |")
    for line in table:
        if "mean" not in line:
            lines.append(f"| {line['row']} | | {line['note']} | | |")
            continue
        scores = ", ".join(f"{score:.1f}" for score in line["scores"])
        against = ""
        if "interval" in line:
            against = f"{line['difference']:+.2f} [{line['interval'][0]:+.2f}, {line['interval'][1]:+.2f}]"
        parts = ", ".join(f"{name} {value:.1f}" for name, value in line.get("parts", {}).items())
        mean = f"{line['mean']:.2f}" + (f" ({parts})" if parts else "")
        lines.append(f"| {line['row']} | {line['texts']:.0f} | {mean} | {scores} | {against} |")
    return "\n".join(lines) + "\n"
