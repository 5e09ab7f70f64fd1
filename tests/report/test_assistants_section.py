"""The report's part on assistants."""

from html import escape

from edgekd.assistants.choose import by_exhaustion, by_ratio, by_tradeoff, none_because, scored
from edgekd.records.assistants import Assistants
from edgekd.report.assistants_section import assistants
from tests.assistants.test_choose import gap

SCORES = (0.90, 0.91, 0.92, 0.925, 0.93)


def text_of(sample, choice, **changes):
    found = Assistants(
        **{"strategy": "lambda", "student_share": 0.1, "choice": choice, "finetune_flops": 2e12} | changes
    )
    result = sample.model_copy(update={"assistants": found})
    assert type(result).model_validate_json(result.model_dump_json()) == result
    return "".join(str(part) for part in assistants(result) if part is not None)


def test_every_candidate_with_its_t_each_rules_pick_and_the_cost(sample):
    between = gap()
    choice = by_tradeoff(between, scored(between.candidates(), SCORES), 0.25, lambda i, j: 0.0, 1000)
    shown = text_of(sample, choice, flops={"elastic run": 3e12})
    first = choice.considered[0]
    for piece in (
        first.shape.describe(), "90.0%", f"{0.9 + 0.25 * (1 - first.share):.4f}", f"taken: {choice.reason}",
        "t, lambda 0.25", "t, lambda 0.2<", "lambda 0.1 would take", "elastic run", "3e+12 FLOPs", "1.50 times",
    ):  # fmt: skip
        assert piece in shown, piece
    assert "Student through it" not in shown


def test_none_has_no_empty_columns(sample):
    shown = text_of(sample, none_because(gap(), "no gain on record"))
    assert "taken: no gain on record" in shown
    assert "t, lambda" not in shown
    assert "nothing" in shown


def test_one_that_only_leads_to_the_chosen_one_is_taken_without_a_reason(sample):
    choice = by_ratio(gap((2,), (1,), (64,)))
    assert len(choice.taken) == 2
    shown = text_of(sample, choice)
    assert shown.count(f"taken: {escape(choice.reason)}") == 1
    assert ">taken<" in shown


def test_student_through_each_is_shown_where_it_was_trained(sample):
    between = gap()
    found = [a.model_copy(update={"reached": score}) for a, score in zip(between.candidates(), SCORES, strict=True)]
    shown = text_of(sample, by_exhaustion(between, found))
    assert "Student through it" in shown
    assert "92.5%" in shown


def test_nothing_without_assistants(minimal):
    assert assistants(minimal) == []
