"""The report's part on assistants."""

from edgekd.records.chain import ChainStep, ChainSummary
from edgekd.report.assistants import assistants


def text_of(result):
    return "".join(str(part) for part in assistants(result) if part is not None)


def step(name, share, taken=False, **known):
    return ChainStep(name=name, taken=taken, reason="the best t" if taken else "", share=share, **known)


def test_every_candidate_with_its_t_each_rules_pick_and_the_cost(sample):
    result = sample.model_copy(
        update={
            "chain": (
                step("small one", 0.15, score=0.9, tradeoffs={"0.1": 0.985, "0.2": 1.07}),
                step("large one", 0.5, taken=True, score=0.95, tradeoffs={"0.1": 1.0, "0.2": 1.05}),
            ),
            "chain_summary": ChainSummary(
                strategy="lambda", student_share=0.1, reason="the best t", flops={"elastic run": 3e12},
                picks={"lambda 0.1": "large one", "ratio": "none"}, finetune_flops=2e12,
            ),
        }
    )  # fmt: skip
    shown = text_of(result)
    for piece in (
        "small one", "15.0%", "90.0%", "1.0700", "taken: the best t", "t, lambda 0.2", "lambda 0.1 would take",
        "elastic run", "3e+12 FLOPs", "1.50 times",
    ):  # fmt: skip
        assert piece in shown, piece
    assert "Student through it" not in shown


def test_none_has_no_empty_columns(sample):
    shown = text_of(
        sample.model_copy(update={"chain": (ChainStep(name="none", taken=True, reason="no gain on record"),)})
    )
    assert "taken: no gain on record" in shown
    assert "t, lambda" not in shown


def test_one_that_only_leads_to_the_chosen_one_is_taken_without_a_reason(sample):
    before = step("large one", 0.5, taken=True).model_copy(update={"reason": ""})
    shown = text_of(sample.model_copy(update={"chain": (step("small one", 0.2, taken=True), before)}))
    assert shown.count("taken: the best t") == 1
    assert ">taken<" in shown


def test_student_through_each_is_shown_where_it_was_trained(sample):
    shown = text_of(sample.model_copy(update={"chain": (step("a", 0.2, taken=True, reached=0.877),)}))
    assert "Student through it" in shown
    assert "87.7%" in shown


def test_nothing_without_assistants(sample):
    assert assistants(sample.model_copy(update={"chain": ()})) == []
