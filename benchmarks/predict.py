"""`edgekd predict` against the runtime it calls: texts a second of one file, in turns.

    python benchmarks/predict.py --bundle ./bundle [--texts test.jsonl] [--count 20000] [--rounds 3]

Both are processes of their own that read the same file and write the same answers; what a process needs until its first
answer is measured with one text, and taken off both.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from cold_start import parser_of, read_texts
from record import write_record

GOALS = {"ratio": 0.95}
RUNTIME = """
import json, sys
from edgekd.runtime import load
model = load(sys.argv[1])
texts = [json.loads(line)["text"] for line in open(sys.argv[2], encoding="utf-8")]
answers = model.predict(texts, batch_size=32)
rows = ({"text": text} | answer for text, answer in zip(texts, answers))
sys.stdout.writelines(json.dumps(row, ensure_ascii=False) + "\\n" for row in rows)
"""


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = read_texts(options.texts, options.count)
    with tempfile.TemporaryDirectory() as folder:
        many, one = Path(folder) / "many.jsonl", Path(folder) / "one.jsonl"
        rows = [json.dumps({"text": texts[i % len(texts)]}) + "\n" for i in range(options.count)]
        many.write_text("".join(rows), encoding="utf-8")
        one.write_text(rows[0], encoding="utf-8")
        ways = {
            "predict": [sys.executable, "-m", "edgekd", "predict", str(options.bundle)],
            "runtime": [sys.executable, "-c", RUNTIME, str(options.bundle)],
        }
        rounds = []
        for _ in range(options.rounds):
            taken = {name: seconds([*way, str(many)]) - seconds([*way, str(one)]) for name, way in ways.items()}
            rounds.append({name: options.count / value for name, value in taken.items()})
            print(", ".join(f"{name} {value:.0f} texts/s" for name, value in rounds[-1].items()))
    ratios = [found["predict"] / found["runtime"] for found in rounds]
    print(f"predict / runtime: {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print(write_record("predict", {"texts_per_s": rounds, "ratio": median(ratios), "ratios": ratios, "goals": GOALS}))


if __name__ == "__main__":
    main()
