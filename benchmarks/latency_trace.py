"""Record what two clocks say of two kinds of calls on this host, for `latency_verdict.py`.

    python benchmarks/latency_trace.py --bundle ./bundle --out idle.npz --seconds 600
    python benchmarks/latency_trace.py --bundle ./bundle --out busy.npz --seconds 600 --busy 2

A round is ten calls at the bundle's length and ten on a text of about ten tokens, the speed kernel before and after.
With --busy, so many processes switch at random between matrix products, walks through memory, plain Python and sleep.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CALLS = 10
SHORT = "please turn the kitchen lights off"


def record(bundle: Path, seconds: float) -> dict[str, list[object]]:
    """Rounds of calls until `seconds` have passed; each array's first axis is rounds."""
    from edgekd.data.generic import generic_split
    from edgekd.latency.child import LEAD_IN, LEAD_IN_NS, BundleCall, time_calls, warm_up
    from edgekd.latency.speed_kernel import SpeedKernel
    from edgekd.proof.texts import fixed_texts
    from edgekd.reading import read_json
    from edgekd.runtime.tokenise import load_tokenizer

    length = int(read_json(bundle / "config.json")["edgekd"]["max_length"])
    texts = {"long": fixed_texts(load_tokenizer(bundle), generic_split(), length), "short": (SHORT,)}
    session = {"providers": ["CPUExecutionProvider"]}
    calls = {
        name: BundleCall({"bundle": str(bundle), "texts": chosen, "batch_size": 1}, session)
        for name, chosen in texts.items()
    }
    for call in calls.values():
        warm_up(call)
    kernel = SpeedKernel()
    names = ("t", "kernel_before", "kernel_after", *(f"{n}_{clock}" for n in calls for clock in ("wall", "cpu")))
    taken: dict[str, list[object]] = {name: [] for name in names}
    deadline = time.time() + seconds
    while time.time() < deadline:
        taken["kernel_before"].append(kernel.block())
        for name, call in calls.items():
            times = time_calls(call, CALLS, LEAD_IN, LEAD_IN_NS)
            taken[f"{name}_wall"].append(times.wall)
            taken[f"{name}_cpu"].append(times.cpu)
        taken["kernel_after"].append(kernel.block())
        taken["t"].append(time.time())
    return taken


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that other people might run."""
    others = [multiprocessing.Process(target=_neighbour, args=(seed,), daemon=True) for seed in range(count)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.terminate()
            other.join()


def _neighbour(seed: int) -> None:
    import numpy as np

    rng = np.random.default_rng(seed)
    square, stream = rng.standard_normal((384, 384)), rng.standard_normal(4_000_000)

    def sleep() -> None:
        time.sleep(0.05)

    kinds = (lambda: square @ square, lambda: stream.sum(), lambda: sum(i * i for i in range(20_000)), sleep)
    while True:
        work, until = kinds[rng.integers(len(kinds))], time.monotonic() + rng.exponential(4.0)
        while time.monotonic() < until:
            work()


def main() -> None:
    """Record one trace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--busy", type=int, default=0, help="processes of other load")
    options = parser.parse_args()
    # As in the processes that measure: numpy reads this when it is imported.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    import numpy as np

    with busy(options.busy):
        taken = record(options.bundle, options.seconds)
    arrays = {n: np.array(rows, dtype=np.float64) for n, rows in taken.items()}
    arrays = {n: rows if n == "t" else (rows / 1e6).astype(np.float32) for n, rows in arrays.items()}
    np.savez_compressed(options.out, **arrays)
    print(f"{options.out}: {len(arrays['t'])} rounds")


if __name__ == "__main__":
    main()
