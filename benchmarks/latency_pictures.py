"""The pictures of docs/latency.md, drawn from the traces and verdicts in results/.

python benchmarks/latency_pictures.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("svg")
import matplotlib.pyplot as plt
from record import RESULTS

OUT = Path(__file__).parents[1] / "docs" / "assets"
VERDICTS = {"m": ("met", "#1a7f37"), "?": ("inconclusive", "#767b84"), "x": ("missed", "#c0392b")}
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "edgekd", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "figure.constrained_layout.use": True,
}  # fmt: skip


def trace() -> None:
    """Ten minutes of one file beside two busy processes: both clocks, and the speed kernel."""
    data = np.load(RESULTS / "traces" / "busy-b.npz", allow_pickle=False)
    minutes = (data["t"][::4] - data["t"][0]) / 60
    calls = {clock: np.median(data[f"long_{clock}"], axis=1)[::4] for clock in ("wall", "cpu")}
    kernel = (data["kernel_before"].astype(float) + data["kernel_after"].astype(float)) / 2
    product = kernel[::4, 0]
    fig, (upper, lower) = plt.subplots(2, 1, figsize=(7.2, 4), sharex=True, height_ratios=(2, 1))
    upper.plot(minutes, calls["wall"], ".", ms=2, color="#b0b7c3", label="response time")
    upper.plot(minutes, calls["cpu"], ".", ms=2, color="#2456c4", label="service time")
    upper.set_yscale("log")
    upper.set_yticks([5, 10, 20, 40], ["5", "10", "20", "40"])
    upper.minorticks_off()
    upper.set_ylabel("ms a call, median of a round")
    upper.legend(loc="upper right", ncols=2, frameon=False, markerscale=4)
    lower.plot(minutes, product / np.median(product), ".", ms=2, color="#7a4a00")
    lower.set_ylim(0.6, 1.8)
    lower.set_ylabel("speed kernel")
    lower.set_xlabel("minutes")
    fig.savefig(OUT / "latency-trace.svg", metadata={"Date": None})
    plt.close(fig)


def verdicts() -> None:
    """How often a minute says what, by how far the budget is from the truth."""
    record = json.loads((RESULTS / "latency_verdict.json").read_text(encoding="utf-8"))
    budgets = np.array(record["budgets"])
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.6), sharey=True)
    for axis, kind in zip(axes, ("idle", "busy"), strict=True):
        rows = [
            row for row in record["rows"]
            if row["trace"].startswith(kind) and row["clock"] == "service" and row["gate"] == "now"
            and row["file"] == "long" and row["seconds"] == 60
        ]  # fmt: skip
        letters = np.array([list(window.split()[-1]) for row in rows for window in row["windows"]])
        for letter, (name, colour) in VERDICTS.items():
            axis.plot(budgets, (letters == letter).mean(axis=0), "o-", ms=3, color=colour, label=name)
        axis.axvline(1, color="#444", lw=0.8, ls=":")
        axis.set_title(f"{kind} host, {len(letters)} minutes drawn", fontsize=9)
        axis.set_xlabel("budget / truth")
    axes[0].set_ylabel("share of verdicts")
    axes[0].legend(frameon=False, loc="center left")
    fig.savefig(OUT / "latency-verdicts.svg", metadata={"Date": None})
    plt.close(fig)


if __name__ == "__main__":
    with mpl.rc_context(STYLE):
        trace()
        verdicts()
