"""Measurements that are kept for later runs: one that other load spoiled, only until the machine is quieter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgekd.latency.measure import MAX_DISTURBED, expected_lack
from edgekd.progress import Progress
from edgekd.store import Artefact, Store
from edgekd.targets.base import Target


class Watch:
    """Whether a target's machine is quieter than when something was measured: asked once a run.

    A run that measured some of what it rests on again and some not would mix what does not go together.

    Args:
        target: Where is measured.

    Attributes:
        used: What this run rests on already: it stays what it is until the run ends.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.used: set[str] = set()
        self._quiet: bool | None = None

    def quiet(self) -> bool:
        """Whether what is measured now would probably be kept; the first time it looks for some seconds."""
        if self._quiet is None:
            self._quiet = expected_lack(self.target) <= MAX_DISTURBED
        return self._quiet


def keep_measured(
    store: Store,
    watch: Watch,
    stage: str,
    version: int,
    key: Mapping[str, Any],
    build: Callable[[Path], Mapping[str, Any]],
    *,
    what: str,
    progress: Progress,
    disturbed: Callable[[Mapping[str, Any]], float] = lambda result: float(result["disturbed"]),
    useful: Callable[[Mapping[str, Any]], bool] = lambda _: True,
) -> Artefact:
    """Measure, or read what was measured before; what is spoiled is used with a warning, however often.

    One that other load spoiled is measured again by a run that finds the machine quiet, and the less disturbed of the
    two is kept. Where it never is, measuring again and again would cost a minute a run and tell no more, and a run that
    was killed would plan another student than the one it has trained.

    Args:
        store: Where it is kept.
        watch: Says whether the machine is quieter now.
        stage: See `Store.make`.
        version: See `Store.make`.
        key: See `Store.make`.
        build: Measures; see `Store.make`.
        what: Is measured, for the warning.
        progress: Where the warning is shown.
        disturbed: Of the result, the share of the rounds asked for that no quiet one was had for.
        useful: Whether a result is worth using although it is spoiled; one that is not is made again by any later run.
    """
    made = store.make(stage, version, key, build)
    if made.id in watch.used:
        return made
    if made.reused and disturbed(made.result) > MAX_DISTURBED and (not useful(made.result) or watch.quiet()):
        made = store.make(
            stage, version, key, build, again=lambda old, new: not useful(old) or disturbed(new) < disturbed(old)
        )
    watch.used.add(made.id)
    if disturbed(made.result) > MAX_DISTURBED:
        progress.say(
            f"warning: other load spoiled {100 * disturbed(made.result):.0f}% of the measurement of {what}, "
            "which may be off; a run on a quieter machine measures it again"
        )
    return made
