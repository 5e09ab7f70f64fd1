"""`make demo` on a fresh clone: how long, how much memory, what verdict.

    python benchmarks/demo.py

Clones the checkout this file is in, runs `make demo` there with an empty store, and records the seconds of
installation and run, the peak memory of the largest process, the verdict and the timings of each stage.
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
import time
from pathlib import Path

from record import write_record

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="copy the bundle here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgekd-demo-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(CHECKOUT), str(clone)], check=True)
        environment = os.environ | {"EDGEKD_CACHE": str(Path(folder) / "cache")}
        environment.pop("PYTHONPATH", None)
        started = time.monotonic()
        run = subprocess.run(["make", "demo"], cwd=clone, env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
        print(run.stderr[-3000:], run.stdout[-500:])
        spent = re.search(r"installation: (\d+) s; edgekd compress: (\d+) s", run.stdout)
        result = json.loads((clone / "bundle" / "result.json").read_text())
        if options.keep:
            shutil.copytree(clone / "bundle", options.keep, dirs_exist_ok=True)
    content = {
        "exit_code": run.returncode,
        "seconds": seconds,
        "installation_seconds": int(spent[1]) if spent else None,
        "compress_seconds": int(spent[2]) if spent else None,
        # Of the largest process among all that make started, in MB; Linux counts in kilobytes.
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3,
        "criteria": result["criteria"],
        "quality": result["quality"],
        "chosen": next((c for c in result["candidates"] if c["chosen"]), None),
        "tries": result["tries"],
        "timings": result["timings"],
        "percentiles": result["latency"]["fixed"]["percentiles"],
        "samples_ms": result["latency"]["fixed"]["samples_ms"],
    }
    print("written:", write_record("demo", content))


if __name__ == "__main__":
    main()
