"""Generic text selected from a large pool: sentences a second of each stage, and peak memory.

    python benchmarks/select_pool.py --data ../shared/data                  (one core)
    python benchmarks/select_pool.py --data ../shared/data --hashed         (without an encoder's time)

The pool is made of `generic` of the data folder, repeated with words replaced, and is read from a file; the target is
clinc150, compared in the space of MiniLM-L6 as the product runs it, in INT8. With --hashed, vectors of hashed words
take the encoder's place.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import write_record

from edgekd.data.demo.generate import demo_encoder
from edgekd.data.select.cascade import CANDIDATES, Selection, select
from edgekd.data.select.clusters import TARGET_SAMPLE, Embed
from edgekd.data.select.dedup import deduplicate
from edgekd.data.select.pool import Pool
from edgekd.distill.engine import Engine
from edgekd.inputs.transfer_stage import Embedder
from edgekd.models.teacher import load_body

WIDTH = 384
# Of a repeated sentence's words at most this share is replaced by words of other sentences.
REPLACED = 0.5


def texts_of(file: Path) -> list[str]:
    return [text for chunk in Pool(file) for text in chunk.texts]


def write_pool(generic: Path, size: int, file: Path, seed: int) -> None:
    """Each sentence as it is, then again with other words, until there are `size`."""
    rng = np.random.default_rng(seed)
    sentences = [text.split() for text in texts_of(generic)]
    with file.open("w", encoding="utf-8") as out:
        for i in range(size):
            words = list(sentences[i % len(sentences)])
            if i >= len(sentences):
                for place in rng.integers(len(words), size=rng.integers(1, 2 + int(REPLACED * len(words)))):
                    other = sentences[rng.integers(len(sentences))]
                    words[place] = other[rng.integers(len(other))]
            out.write(json.dumps({"text": " ".join(words)}) + "\n")


def hashed_words(width: int) -> Embed:
    """A cheap stand-in for an encoder: the mean of a random vector a word."""
    table = np.random.default_rng(0).standard_normal((4096, width)).astype(np.float32)

    def embed(texts: Sequence[str]) -> NDArray[Any]:
        rows = [[zlib.crc32(word.encode()) % 4096 for word in text.lower().split()] for text in texts]
        return np.stack([table[row].mean(axis=0) for row in rows])

    return embed


def encoder(folder: Path, threads: int) -> Embed:
    """The demo's encoder as a transfer set's: INT8, the mean of its last hidden states."""
    loaded = load_body(str(demo_encoder()))
    return Embedder(loaded, "", 64).open(Engine("cpu", threads), folder)


def timed(embed: Embed, spent: list[float]) -> Embed:
    """The same, its seconds and texts added up in `spent`."""

    def clocked(texts: Sequence[str]) -> NDArray[Any]:
        started = time.perf_counter()
        vectors = embed(texts)
        spent[0] += time.perf_counter() - started
        spent[1] += len(texts)
        return vectors

    return clocked


def peak_mb() -> float:
    """Peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def clocked(run: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds on the clock and on the processor: far apart, the machine was busy with other work."""
    started, used = time.perf_counter(), time.process_time()
    result = run()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used}, result


def figures(found: Selection, spent: list[float]) -> dict[str, Any]:
    about = found.summary
    stage = about.seconds["survey"] + about.seconds["scan"]
    return {
        "chosen": len(found.texts),
        "seconds_by_stage": about.seconds,
        "ngram_stage_per_second": about.pool_size / stage,
        "embedded": int(spent[1]),
        "embedded_per_second": spent[1] / spent[0],
        "kl_reduction": about.kl_reduction,
        "likeness": [likeness.model_dump() for likeness in about.likeness],
        "chosen_examples": about.chosen_examples,
        "refused_examples": about.refused_examples,
        "notes": found.notes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with generic and clinc150")
    parser.add_argument("--pool", type=int, default=2_000_000)
    parser.add_argument("--wanted", type=int, default=100_000)
    parser.add_argument("--hashed", action="store_true", help="vectors of hashed words in place of an encoder")
    parser.add_argument("--threads", type=int, default=1, help="of the encoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="select_pool", help="of the record")
    options = parser.parse_args()
    target, held_out = (texts_of(options.data / f"clinc150/{split}.jsonl") for split in ("train", "test"))
    spent = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as folder:
        embed = hashed_words(WIDTH) if options.hashed else encoder(Path(folder), options.threads)
        file = Path(folder) / "pool.jsonl"
        # In a process of its own, whose memory is not this one's.
        arguments = (options.data / "generic/train.jsonl", options.pool, file, options.seed)
        writer = multiprocessing.get_context("spawn").Process(target=write_pool, args=arguments)
        writer.start()
        writer.join()
        before = peak_mb()
        seconds, found = clocked(
            lambda: select(
                Pool(file), target, options.wanted, held_out=held_out, embed=timed(embed, spent), seed=options.seed
            )
        )
        result = figures(found, spent) | seconds | {"peak_mb": peak_mb(), "peak_mb_before": before}
        everything = texts_of(file)
        seconds, left = clocked(lambda: deduplicate(everything, held_out))
        result["deduplicate"] = seconds | {"kept": len(left.kept), "near": left.near, "peak_mb": peak_mb()}
    about = {
        "pool": options.pool, "wanted": options.wanted, "candidates": CANDIDATES, "target": len(target),
        "target_embedded": min(len(target), TARGET_SAMPLE), "threads": options.threads,
        "encoder": "hashed words" if options.hashed else "MiniLM-L6, INT8",
    }  # fmt: skip
    print(json.dumps({k: v for k, v in (about | result).items() if "examples" not in k and k != "likeness"}, indent=1))
    print("written:", write_record(options.name, about | result))


if __name__ == "__main__":
    main()
