"""Requests take turns."""

import asyncio
import threading

import pytest

from edgekd.serving.turns import Turns


def turns(predict, workers=1):
    return Turns(predict, workers, longest=128)


def echo(texts, all_scores):
    return [{"label": text} for text in texts]


def test_answers_come_in_the_order_of_the_texts():
    async def run():
        queue = turns(echo, 3)
        texts = [f"text {i}" for i in range(100)]
        jobs = [queue.submit(texts[: 10 * n], False) for n in range(11)]
        return [[answer["label"] for answer in await job.done] for job in jobs], queue.open

    found, still = asyncio.run(run())
    assert found == [[f"text {i}" for i in range(10 * n)] for n in range(11)]
    assert still == 0


def test_a_small_request_waits_for_a_part_of_a_large_one():
    computed = []

    def predict(texts, all_scores):
        computed.append(texts[0])
        return echo(texts, all_scores)

    async def run():
        queue = turns(predict)
        large, small = queue.submit(["large"] * 160, False), queue.submit(["small"], False)
        await asyncio.gather(large.done, small.done)

    asyncio.run(run())
    assert computed == ["large", "small", *["large"] * 9]


def test_parts_are_bounded_by_what_they_cost():
    sizes = []

    def predict(texts, all_scores):
        sizes.append(len(texts))
        return echo(texts, all_scores)

    async def run():
        queue = turns(predict)
        await queue.submit(["x" * 100_000] * 64, False).done
        await queue.submit([["x" * 64, "y" * 200]] * 64, False).done

    asyncio.run(run())
    # 128 characters of a text cost something: 32 of them are as many as may be, and 16 texts before that.
    assert sizes == [16] * 4 + [16] * 4
    assert [len(part) for part in Turns(echo, 1, longest=2048)._parts(["x" * 9000] * 5)] == [2, 2, 1]


def test_what_nobody_waits_for_is_not_computed():
    computed, release = [], threading.Event()

    def predict(texts, all_scores):
        computed.append(texts[0])
        release.wait(10)
        return echo(texts, all_scores)

    async def run():
        queue = turns(predict)
        first, left, last = (queue.submit([name] * 20, False) for name in ("first", "left", "last"))
        left.done.cancel()
        first.done.cancel()
        release.set()
        await last.done
        return queue.open

    assert asyncio.run(run()) == 0
    assert computed == ["first", "last", "last"]


def test_a_fault_is_the_requests_own():
    def predict(texts, all_scores):
        if texts[0] == "bad":
            raise RuntimeError("broken")
        return echo(texts, all_scores)

    async def run():
        queue = turns(predict)
        bad, good = queue.submit(["bad"] * 40, False), queue.submit(["good"], False)
        with pytest.raises(RuntimeError, match="broken"):
            await bad.done
        return await good.done

    assert asyncio.run(run()) == [{"label": "good"}]


@pytest.mark.parametrize("texts", [[""], ["", "rain"], ["rain", "", ""]])
def test_an_empty_text_has_its_part(texts):
    made = turns(echo)
    assert [text for part in made._parts(texts) for text in part] == texts
    made.shut_down()
