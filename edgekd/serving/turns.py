"""Requests that take turns on few workers, a part of each at a time, so that none waits for the whole of another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from edgekd.runtime.model import Text

Answers = list[dict[str, Any]]
# (texts, all scores) -> one answer a text.
Predict = Callable[[Sequence[Text], bool], Answers]

# Texts of a part, and what they may cost together: what others wait for at most before their own turn.
_TEXTS, _CHARACTERS = 16, 4096


@dataclass(eq=False)
class Job:
    """One request's texts: the parts not begun, the answers so far, and what is awaited."""

    parts: deque[list[Text]]
    all_scores: bool
    done: asyncio.Future[Answers]
    answers: Answers = field(default_factory=list)


class Turns:
    """Computes jobs, a part of each in turn. All methods belong to one event loop.

    Attributes:
        workers: Parts computed at the same time.
        open: Jobs that run or wait.
    """

    def __init__(self, predict: Predict, workers: int, longest: int) -> None:
        """Args: longest: Characters of a text that cost anything; the rest is cut."""
        self.workers, self.open = workers, 0
        self._predict, self._longest = predict, longest
        self._pool = ThreadPoolExecutor(workers, "model")
        self._waiting: deque[Job] = deque()
        self._running = 0

    def submit(self, texts: Sequence[Text], all_scores: bool) -> Job:
        """Put a request in the queue. Cancelling `done` takes it out again; a part that has begun is finished."""
        job = Job(self._parts(texts), all_scores, asyncio.get_running_loop().create_future())
        if not job.parts:
            job.done.set_result([])
            return job
        self.open += 1
        job.done.add_done_callback(self._close)
        self._waiting.append(job)
        self._start()
        return job

    def shut_down(self) -> None:
        """End the workers; what has begun is finished."""
        self._pool.shutdown()

    def _close(self, _: object) -> None:
        self.open -= 1

    def _start(self) -> None:
        while self._running < self.workers and self._waiting:
            job = self._waiting.popleft()
            if job.done.done():
                continue
            self._running += 1
            part = asyncio.get_running_loop().run_in_executor(
                self._pool, self._predict, job.parts.popleft(), job.all_scores
            )
            part.add_done_callback(partial(self._ended, job))

    def _ended(self, job: Job, part: asyncio.Future[Answers]) -> None:
        self._running -= 1
        error = part.exception()
        if not job.done.done():
            if error is not None:
                job.done.set_exception(error)
            else:
                job.answers += part.result()
                if job.parts:
                    self._waiting.append(job)
                else:
                    job.done.set_result(job.answers)
        self._start()

    def _parts(self, texts: Sequence[Text]) -> deque[list[Text]]:
        parts: deque[list[Text]] = deque()
        cost = 0
        for text in texts:
            own = sum(min(len(one), self._longest) for one in ([text] if isinstance(text, str) else text))
            if not parts or cost + own > _CHARACTERS or len(parts[-1]) == _TEXTS:
                parts.append([])
                cost = 0
            parts[-1].append(text)
            cost += own
        return parts
