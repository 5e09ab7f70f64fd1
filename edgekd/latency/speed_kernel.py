"""The speed kernel: work of fixed cost, timed beside the calls. Imports the standard library and numpy."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

KERNEL_VERSION = 1
"""Raised when the speed kernel's work changes: times of two versions cannot be compared."""

# On some systems it ticks so coarsely that a call takes none of it.
HAS_CPU_CLOCK = hasattr(time, "thread_time_ns") and time.get_clock_info("thread_time").resolution < 1e-4
cpu_ns = time.thread_time_ns if HAS_CPU_CLOCK else time.perf_counter_ns

_PRODUCT_SIZE, _PRODUCT_NS = 192, 6_000_000
# More than a core's own caches hold, less than what it shares with its neighbours: as a small model's weights.
_WALK_BYTES = 3 * 2**20
_WALK_NS = 3_000_000


class SpeedKernel:
    """Work of fixed cost that shows how fast the machine is: a matrix product, and a walk through memory.

    The product feels whoever shares the core, the walk whoever shares the caches: a neighbour that only wears out
    the caches slows a model by a third and the product by nothing.
    """

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._left = generator.standard_normal((_PRODUCT_SIZE, _PRODUCT_SIZE), dtype=np.float32)
        self._right = generator.standard_normal((_PRODUCT_SIZE, _PRODUCT_SIZE), dtype=np.float32)
        self._out = np.empty_like(self._left)
        self._stream = generator.standard_normal(_WALK_BYTES // 4, dtype=np.float32)
        self._products = self._repeats(self._multiply, _PRODUCT_NS)
        self._walks = self._repeats(self._walk, _WALK_NS)

    def block(self) -> tuple[float, float]:
        """Mean nanoseconds of CPU time of a product and of a walk; on the wall where there is no such clock."""
        start = cpu_ns()
        self._multiply(self._products)
        middle = cpu_ns()
        self._walk(1)  # brings the memory back that the job has pushed out
        warm = cpu_ns()
        self._walk(self._walks)
        end = cpu_ns()
        return (middle - start) / self._products, (end - warm) / self._walks

    def _multiply(self, times: int) -> None:
        for _ in range(times):
            np.matmul(self._left, self._right, out=self._out)

    def _walk(self, times: int) -> None:
        for _ in range(times):
            self._stream.sum()

    def _repeats(self, work: Callable[[int], None], block_ns: int) -> int:
        fastest = min(_duration_ns(work) for _ in range(20))
        return max(1, round(block_ns / fastest))


def _duration_ns(work: Callable[[int], None]) -> int:
    start = time.perf_counter_ns()
    work(1)
    return max(1, time.perf_counter_ns() - start)
