"""Figures of `assistants.py`: rank correlation of t with what students reach, regret of each rule, gains, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ablation_table import paired
from scipy.stats import rankdata

Cell = dict[str, Any]
"""One data set, student and seed, as `assistants.Group.run` gives it."""

_PERMUTATIONS = 20_000

# How far a refreshed slice may be below the assistant that was trained alone, in points.
_FIDELITY = 0.5


def tried(cell: Cell) -> list[dict[str, Any]]:
    """The candidates through which a student was trained, the smallest first."""
    return [row for row in cell["assistants"] if "score" in row]


def correlation(groups: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[float, float]:
    """Spearman's rho of two quantities, pooled over groups within which alone they can be compared.

    Args:
        groups: In each, two values of as many candidates.

    Returns:
        rho of the ranks within groups, and its two-sided p by permuting one quantity within groups.
    """
    ranks = [(_centred(a), _centred(b)) for a, b in groups]
    scale = float(np.sqrt(sum((a**2).sum() for a, _ in ranks) * sum((b**2).sum() for _, b in ranks)))
    if not scale:
        return 0.0, 1.0
    rho = float(sum((a * b).sum() for a, b in ranks)) / scale
    rng = np.random.default_rng(0)
    drawn = sum(rng.permuted(np.tile(a, (_PERMUTATIONS, 1)), axis=1) @ b for a, b in ranks) / scale
    beyond = int(np.sum(np.abs(drawn) >= abs(rho) - 1e-12))
    return rho, (1 + beyond) / (1 + _PERMUTATIONS)


def _centred(values: Sequence[float]) -> np.ndarray:
    ranks: np.ndarray = rankdata(values)
    return ranks - ranks.mean()


def picks(cell: Cell) -> dict[str, int]:
    """By rule, the place of its pick among the candidates that were tried."""
    rows = tried(cell)
    return {
        "lambda 0.2": int(np.argmax([row["t"] for row in rows])),
        "ratio 2.5": int(np.argmin([abs(row["multiple"] - 2.5) for row in rows])),
        "smallest": 0,
        "most accurate": int(np.argmax([row["elastic"] for row in rows])),
    }


def regrets(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """By rule: how far its student is below that of the best candidate, in points.

    The best is the candidate whose students are best in the *other* seeds: the best of the same seed is partly luck,
    and every rule would look worse than it is. With one seed there is no other.
    """
    found: dict[str, list[float]] = {}
    for cell in cells:
        others = [c for c in cells if (c["set"], c["student"]) == (cell["set"], cell["student"])]
        others = [c for c in others if c["seed"] != cell["seed"]] or [cell]
        means = np.mean([[row["score"] for row in tried(other)] for other in others], axis=0)
        scores = [row["score"] for row in tried(cell)]
        best = scores[int(np.argmax(means))]
        for rule, place in picks(cell).items():
            found.setdefault(rule, []).append(100 * (best - scores[place]))
        found.setdefault("random", []).append(100 * (best - float(np.mean(scores))))
    return {rule: {"mean": float(np.mean(values)), "each": values} for rule, values in found.items()}


def gains(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Students through an assistant against students without one, on the same test texts, by data set and student."""
    lines = []
    for place in dict.fromkeys((cell["set"], cell["student"]) for cell in cells):
        mine = {c["seed"]: c for c in cells if (c["set"], c["student"]) == place}
        sides = {
            "lambda": {s: c["lambda"] for s, c in mine.items()},
            "ratio": {s: next(r for r in tried(c) if r["multiple"] == 2.5) for s, c in mine.items()},
        }
        for rule, through in sides.items():
            equal = {s: c["none_equal_compute"][rule] for s, c in mine.items()}
            steps = {s: c["none"] for s, c in mine.items()}
            line: dict[str, Any] = {"set": place[0], "student": place[1], "rule": rule, "seeds": sorted(mine)}
            line["share"] = float(np.mean([c["share"] for c in mine.values()]))
            line["score"] = 100 * float(np.mean([row["score"] for row in through.values()]))
            for name, without in (("equal_steps", steps), ("equal_compute", equal)):
                difference, interval, each = paired(through, without)
                line[name] = {"difference": difference, "interval": interval, "by_seed": each}
            lines.append(line)
    return lines


def _exhaustive(cell: Cell) -> float:
    """FLOPs of a student through each of the five; what was not run costs as much as the student did alone."""
    return sum(float(row["flops"]) + cell["none"]["flops"] for row in cell["assistants"])


def costs(cells: Sequence[Cell]) -> dict[str, Any]:
    """Of `lambda`, in fine-tunes of the teacher, and against the search over the assistants that were tried."""
    if not cells:
        return {}
    found = [sum(c["lambda"]["flops"].values()) for c in cells]
    exhaustive = [_exhaustive(c) for c in cells]
    return {
        "finetunes": float(np.mean([f / c["lambda"]["finetune_flops"] for f, c in zip(found, cells, strict=True)])),
        "of_exhaustive": float(np.mean([a / b for a, b in zip(found, exhaustive, strict=True)])),
        "assistants_in_exhaustive": len(cells[0]["assistants"]),
        "elastic_seconds": float(np.mean([c["lambda"]["seconds"] for c in cells])),
        "exhaustive_seconds": float(np.mean([sum(2 * row["seconds"] for row in c["assistants"]) for c in cells])),
    }


def summarise(cells: Sequence[Cell]) -> dict[str, Any]:
    """Every figure of the record."""
    if not cells:
        return {}
    pairs = {
        "t": [([r["t"] for r in tried(c)], [r["score"] for r in tried(c)]) for c in cells],
        "size alone (1 - s)": [([-r["share"] for r in tried(c)], [r["score"] for r in tried(c)]) for c in cells],
        "elastic score with the score alone": [
            ([r["elastic"] for r in c["assistants"]], [r["alone"] for r in c["assistants"]]) for c in cells
        ],
    }
    sizes = [100 * np.array([row["alone"] - row["refreshed"] for row in cell["assistants"]]) for cell in cells]
    lacking = [float(lack) for size in sizes for lack in size]
    return {
        "correlation": {name: dict(zip(("rho", "p"), correlation(p), strict=True)) for name, p in pairs.items()},
        "regret": regrets(cells),
        "gains": gains(cells),
        "cost": costs(cells),
        "refreshed_slice": {
            "limit": _FIDELITY,
            "worst": max(lacking),
            "each": lacking,
            "by_size": np.mean(sizes, axis=0).tolist(),
        },
    }


def markdown(tables: Mapping[str, Any], not_run: Sequence[tuple[str, str, int]]) -> str:
    """The tables as people read them."""
    lines = []
    if tables:
        lines += ["| rank correlation | rho | p |", "|---|---|---|"]
        lines += [f"| {name} | {v['rho']:+.2f} | {v['p']:.3f} |" for name, v in tables["correlation"].items()]
        lines += ["", "| rule | regret, points | each |", "|---|---|---|"]
        for rule, regret in tables["regret"].items():
            lines.append(f"| {rule} | {regret['mean']:.2f} | {', '.join(f'{v:.2f}' for v in regret['each'])} |")
        lines += [
            "",
            "| set, student | rule | accuracy | over none, equal steps [95%] | equal compute [95%] |",
        ]
        lines += ["|---|---|---|---|---|"]
        for gain in tables["gains"]:
            over = [_difference(gain[name]) for name in ("equal_steps", "equal_compute")]
            lines.append(
                f"| {gain['set']}, {gain['student']} | {gain['rule']} | {gain['score']:.2f} | {' | '.join(over)} |"
            )
        cost, slices = tables["cost"], tables["refreshed_slice"]
        lines += [
            "",
            f"lambda costs {cost['finetunes']:.2f} fine-tunes of the teacher, {cost['of_exhaustive']:.2f} of the "
            f"search over {cost['assistants_in_exhaustive']} assistants; {cost['elastic_seconds']:.0f} s against "
            f"{cost['exhaustive_seconds']:.0f} s",
            f"a slice trained on for a tenth of the steps is at most {slices['worst']:.2f} points below the assistant "
            f"that was trained alone (limit {slices['limit']:g}); by size, mean over the seeds: "
            + ", ".join(f"{lack:+.2f}" for lack in slices["by_size"]),
        ]
    if not_run:
        lines += ["", "not run: " + "; ".join(f"{name}, {student}, seed {seed}" for name, student, seed in not_run)]
    return "\n".join(lines)


def _difference(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"


def draw(cells: Sequence[Cell], path: Path) -> Path:
    """T against what the student reached, and what each road to a student cost, as SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for cell in cells:
        name = f"{cell['set']}, {cell['student']}, seed {cell['seed']}"
        left.plot([r["t"] for r in tried(cell)], [100 * r["score"] for r in tried(cell)], "o-", label=name)
        own = cell["none"]["flops"]
        roads = [(own, cell["none"]["score"])]
        roads += [(own * r["factor"], r["score"]) for r in cell["none_equal_compute"].values()]
        assisted = [(own + r["flops"], r["score"]) for r in tried(cell)]
        assisted.append((own + sum(cell["lambda"]["flops"].values()), cell["lambda"]["score"]))
        for points, mark in ((roads, "x--"), (assisted, "o")):
            ordered = sorted(points)
            right.plot([x for x, _ in ordered], [100 * y for _, y in ordered], mark)
    left.set(xlabel="t = m + 0.2 (1 - s)", ylabel="student, accuracy on test, %")
    left.legend(fontsize="small")
    right.set(xlabel="FLOPs of training, all", ylabel="student, accuracy on test, %", xscale="log")
    right.set_title("x: no assistant, o: through an assistant", fontsize="medium")
    figure.savefig(path)
    return path
