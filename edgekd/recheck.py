"""A finished bundle, measured again: are its files whole, and does it still meet its budget here?"""

from __future__ import annotations

from pathlib import Path

from edgekd.bundle import checksums
from edgekd.data.generic import generic_split
from edgekd.errors import UsageError
from edgekd.latency.measure import Judgement
from edgekd.progress import Progress
from edgekd.report.verdict import read_verdict
from edgekd.request import load_request
from edgekd.runtime.tokenise import load_tokenizer
from edgekd.store import read_json
from edgekd.targets.build import build_target
from edgekd.validate import fixed_texts, judge_latency


def recheck(bundle: Path, budget_ms: float | None, percentile: float | None, progress: Progress) -> Judgement:
    """Check a bundle's files and measure its latency at the fixed length, with generic sentences.

    Args:
        bundle: The bundle.
        budget_ms: The limit; None takes the bundle's.
        percentile: None takes the bundle's.
        progress: Where progress is shown.

    Raises:
        UsageError: A file is missing or does not match its checksum.
        UnavailableError: The target cannot run here.
    """
    verdict = read_verdict(bundle / "verdict.json")
    found = checksums(bundle)
    for name, expected in verdict.files.items():
        if name not in found:
            raise UsageError(f"{bundle / name}: missing; copy the whole bundle again")
        if found[name] != expected:
            raise UsageError(f"{bundle / name}: does not match its checksum in verdict.json; copy the bundle again")
    target = build_target(load_request(bundle / "edgekd.yaml").profile.target)
    target.check()
    length = int(read_json(bundle / "config.json")["edgekd"]["max_length"])
    texts = fixed_texts(load_tokenizer(bundle), generic_split(), length)
    limit = budget_ms if budget_ms is not None else verdict.budget.latency_ms
    q = percentile if percentile is not None else verdict.budget.percentile
    return judge_latency(bundle, texts, target, limit, q, progress, f"validate: p{q:g} at {length} tokens")
