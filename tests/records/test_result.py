import itertools
import json
import math

import pytest
from pydantic import ValidationError

from edgekd.errors import ExitCode, UsageError
from edgekd.records.result import Criterion, Percentile, Result, overall, read_result, thin

WORST_FIRST = ["missed", "inconclusive", "unmeasured", "met"]


def criterion(outcome):
    return Criterion(name=outcome, limit=1, outcome=outcome)


@pytest.mark.parametrize("pair", list(itertools.combinations(WORST_FIRST, 2)))
def test_the_worse_of_two_outcomes_wins_in_either_order(pair):
    worse, better = (criterion(outcome) for outcome in pair)
    assert overall([worse, better]) == overall([better, worse]) == worse.outcome


def test_nothing_asked_is_not_met():
    assert overall([]) == "unmeasured"


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("met", ExitCode.MET),
        ("missed", ExitCode.MISSED),
        ("inconclusive", ExitCode.INCONCLUSIVE),
        ("unmeasured", ExitCode.UNMEASURED),
    ],
)
def test_exit_code_follows_the_outcome(minimal, outcome, code):
    assert minimal.model_copy(update={"criteria": (criterion(outcome),)}).exit_code is code


def test_json_round_trip(sample, tmp_path):
    path = tmp_path / "result.json"
    path.write_text(sample.model_dump_json(), encoding="utf-8")
    assert read_result(path) == sample


def test_a_result_of_schema_1_is_read_without_what_it_told_otherwise(sample, tmp_path):
    path = tmp_path / "result.json"
    old = json.loads(sample.model_dump_json(exclude={"plan", "assistants", "export"}))
    old |= {"schema_version": 1, "candidates": [{"name": "teacher"}], "chain": [], "chain_summary": None}
    old |= {"training": [{"unit": "epoch", "points": [{"at": 1}]}], "parity": {}, "quantisation": {}, "graphs": {}}
    path.write_text(json.dumps(old), encoding="utf-8")
    told = {"plan": None, "assistants": None, "export": None, "training": ()}
    assert read_result(path) == sample.model_copy(update=told)


def test_an_infinite_end_survives_json():
    point = Percentile(q=99, value_ms=8.0, interval=(7.5, math.inf))
    assert point.interval == (7.5, None)
    assert Percentile.model_validate_json(point.model_dump_json()) == point


def test_nan_is_refused():
    with pytest.raises(ValidationError):
        Percentile(q=99, value_ms=math.nan)


def test_unknown_key_names_the_field(sample, tmp_path):
    path = tmp_path / "result.json"
    path.write_text(sample.model_dump_json().replace('"speed"', '"sped"'), encoding="utf-8")
    with pytest.raises(UsageError, match="sped: unknown setting, did you mean 'speed'"):
        read_result(path)


def test_a_result_is_frozen(minimal):
    with pytest.raises(ValidationError):
        minimal.budget_ms = 1.0


def test_thin_keeps_both_ends_and_the_shape():
    thinned = thin([float(i) for i in reversed(range(10_000))])
    assert len(thinned) == 500
    assert (thinned[0], thinned[-1]) == (0.0, 9999.0)
    assert thinned[250] == pytest.approx(5000, rel=0.01)
    assert thin([3.0, 1.0]) == (1.0, 3.0)


def test_chosen_and_shipped(sample, minimal):
    assert sample.chosen is sample.plan.candidates[sample.plan.chosen]
    assert sample.shipped.name == "student INT8"
    assert sample.row("teacher").score == 0.956
    assert minimal.chosen is minimal.shipped is minimal.row("teacher") is None
    assert isinstance(minimal, Result)
