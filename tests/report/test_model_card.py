import re

import pytest
import yaml

from edgekd.report.model_card import model_card


def front_matter(card):
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def snippets(card):
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def test_front_matter_is_the_hubs(sample, minimal):
    content = front_matter(model_card(sample))
    assert content["library_name"] == "onnx"
    assert content["pipeline_tag"] == "text-classification"
    assert content["metrics"] == ["accuracy"]
    assert "knowledge-distillation" in content["tags"]
    assert "language" not in content
    assert front_matter(model_card(minimal))["metrics"] == ["f1"]
    (index,) = content["model-index"]
    assert index["name"] == sample.name
    (found,) = index["results"]
    assert found["task"]["type"] == "text-classification"
    assert found["metrics"][0]["value"] == pytest.approx(sample.shipped.score, abs=1e-6)
    assert not {"license", "base_model", "datasets"} & set(content)


def test_front_matter_names_what_came_from_the_hub(sample):
    teacher = sample.teacher.model_copy(update={"hub_id": "me/my-bert", "license": "mit"})
    data = sample.data.model_copy(update={"hub_id": "clinc_oos"})
    content = front_matter(model_card(sample.model_copy(update={"teacher": teacher, "data": data})))
    assert (content["base_model"], content["license"], content["datasets"]) == ("me/my-bert", "mit", ["clinc_oos"])


def test_agreement_is_never_called_accuracy(sample):
    data = sample.data.model_copy(update={"metric": "agreement with the teacher"})
    card = model_card(sample.model_copy(update={"data": data, "criteria": ()}))
    assert "metrics" not in front_matter(card)
    assert "Agreement with the teacher" in card
    assert "accuracy" not in card.replace("agreement with the teacher, not accuracy", "")


def test_only_a_demo_warns_of_synthetic_data(sample):
    assert "Synthetic data" in model_card(sample)
    assert "ynthetic" not in model_card(sample.model_copy(update={"demo": False}))


def test_figures_machine_and_date(sample):
    card = model_card(sample)
    assert "| **student INT8** (this model) | 95.1% | 94.0 to 96.0% |" in card
    assert "measured 2026-03-14 on AMD EPYC 7B13, 1 thread, onnxruntime 1.31.1" in card
    assert "| fixed | 128 tokens | p95 |" in card


def test_user_text_cannot_make_markup(sample):
    card = model_card(sample)
    assert "<script" not in card
    assert "my-&lt;b&gt;bert" in card
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert {line.count(" | ") for line in rows} == {4, 5}


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_snippets_are_python_for_the_task(sample, task):
    data = sample.data.model_copy(update={"task": task})
    card = model_card(sample.model_copy(update={"data": data}))
    found = snippets(card)
    assert len(found) == 3
    for code in found:
        compile(code, "snippet", "exec")
    wanted = {"text-classification": "Sequence", "token-classification": "Token"}[task]
    assert f"ORTModelFor{wanted}Classification" in card
    # Beyond the maximum a text pipeline of transformers fails unless it is told to cut.
    assert ("truncation=True" in card) == (task == "text-classification")
    assert "`deploy/`" in card


def test_minimal(minimal):
    card = model_card(minimal)
    assert "# bare" in card
    assert "## Quality" not in card
    assert "## Latency" not in card
