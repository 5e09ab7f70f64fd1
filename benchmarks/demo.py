"""`make demo` on a fresh clone: how long, how much memory, what verdict.

    python benchmarks/demo.py --times 5 --busy 0 1

Clones the checkout this file is in and runs `make demo` there, with an empty store each time, so often for each number
of busy processes beside it. Records the seconds of installation and run, the peak memory of the largest process, the
verdict and the timings of each stage; the record is written again after every run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from latency_trace import busy
from record import RESULTS, write_record

CHECKOUT = Path(__file__).resolve().parents[1]


def run_demo(clone: Path, cache: Path) -> dict[str, Any]:
    """One run in a clone, and what its bundle says."""
    shutil.rmtree(clone / "bundle", ignore_errors=True)
    environment = os.environ | {"EDGEKD_CACHE": str(cache)}
    environment.pop("PYTHONPATH", None)
    run = subprocess.run(["make", "demo"], cwd=clone, env=environment, capture_output=True, text=True, check=False)
    print(run.stderr[-2000:], run.stdout[-500:])
    spent = re.search(r"installation: (\d+) s; edgekd compress: (\d+) s", run.stdout)
    bundle = clone / "bundle"
    if not (bundle / "result.json").is_file():
        return {"exit_code": run.returncode, "said": run.stderr[-2000:]}
    result = json.loads((bundle / "result.json").read_text())
    plan = json.loads((bundle / "plan.json").read_text())
    return {
        "exit_code": run.returncode,
        "installation_seconds": int(spent[1]) if spent else None,
        "compress_seconds": int(spent[2]) if spent else None,
        "criteria": result["criteria"],
        "quality": result["quality"],
        "speed": result["speed"],
        "chosen": None if plan["chosen"] is None else plan["candidates"][plan["chosen"]],
        "tries": result["tries"],
        "timings": result["timings"],
        "percentiles": result["latency"]["fixed"]["percentiles"],
        "samples_ms": result["latency"]["fixed"]["samples_ms"],
    }


def main() -> None:
    """Run it, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="copy the last bundle here")
    parser.add_argument("--times", type=int, default=1, help="runs for each number of processes")
    parser.add_argument("--busy", nargs="+", type=int, default=[0], help="numbers of processes of other load")
    parser.add_argument("--append", action="store_true", help="keep the runs of the record that is there")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    if options.append:
        runs = json.loads((RESULTS / "demo.json").read_text())["runs"]
    with tempfile.TemporaryDirectory(prefix="edgekd-demo-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(CHECKOUT), str(clone)], check=True)
        for turn in range(options.times):
            for count in options.busy:
                with busy(count):
                    runs.append({"busy": count} | run_demo(clone, Path(folder) / f"cache{turn}-{count}"))
                # Of the largest process among all that make started, in MB; Linux counts in kilobytes.
                peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
                print("written:", write_record("demo", {"peak_memory_mb": peak, "runs": runs}), flush=True)
                shutil.rmtree(Path(folder) / f"cache{turn}-{count}", ignore_errors=True)
        if options.keep:
            shutil.copytree(clone / "bundle", options.keep, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
