"""What the report is told of the assistants."""

import pytest

from edgekd.assistants.chain import Chain
from edgekd.assistants.choose import by_ratio, by_tradeoff, scored
from edgekd.pipeline import collect
from tests.assistants.test_choose import gap


def chain_of(strategy, choice):
    return Chain(strategy, 0.1, choice, start=None, lesson=None)


def test_the_t_of_ones_own_lambda_is_shown():
    between = gap()
    candidates = scored(between.candidates(), (0.90, 0.91, 0.92, 0.925, 0.93))
    choice = by_tradeoff(between, candidates, 0.25, lambda i, j: 0.0, 1000)
    first = collect.chain_steps(chain_of("lambda", choice))[0]
    assert list(first.tradeoffs) == ["0.1", "0.15", "0.2", "0.25", "0.3"]
    assert first.tradeoffs["0.25"] == pytest.approx(first.score + 0.25 * (1 - first.share))


def test_the_reason_of_a_chain_of_two_is_told_once():
    choice = by_ratio(gap((2,), (1,), (64,)))
    steps = collect.chain_steps(chain_of("ratio", choice))
    assert [step.taken for step in steps] == [True, True]
    # At the smaller one, which is what the rule chose.
    assert [step.reason for step in steps] == [choice.reason, ""]
