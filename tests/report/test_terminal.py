import io

import pytest
from rich.console import Console

from edgekd.profiles import load_profile
from edgekd.remote.verify import unmeasured_latency
from edgekd.report.terminal import summary
from edgekd.settings.profile import override


def shown(result, folder="./bundle", width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(summary(result, folder))
    return console.export_text()


def lines(text):
    return text.rstrip("\n").split("\n")


def test_it_fits_one_screen(sample):
    text = lines(shown(sample))
    assert len(text) <= 24
    assert max(map(len, text)) <= 100


@pytest.mark.parametrize("outcome", ["missed", "inconclusive", "unmeasured"])
def test_bad_news_fits_one_screen_too(sample, outcome):
    worse = tuple(c.model_copy(update={"outcome": outcome, "explanation": "because " * 9}) for c in sample.criteria)
    data = sample.data.model_copy(update={"metric": "agreement with the teacher"})
    # Without gold labels there is no TF-IDF baseline, and a demo has labels.
    text = shown(
        sample.model_copy(update={"criteria": worse * 3, "data": data, "demo": False, "quality": sample.quality[:6]})
    )
    assert len(lines(text)) <= 24
    assert "41.2" in text
    assert "90.4" in text


@pytest.mark.parametrize("width", [60, 80, 100])
def test_what_the_user_must_do_is_never_cut(sample, width):
    """Nor does it push the rest off a screen of 100 columns, where two reasons take two lines each."""
    latency = unmeasured_latency(override(load_profile("cpu"), {"target.device": "raspberry-pi-5"}), 10, 8.1234)
    quality = latency.model_copy(update={"kind": "quality", "name": "accuracy kept of the teacher's"})
    worse = sample.model_copy(update={"criteria": (latency, quality), "demo": False, "quality": sample.quality[:6]})
    text = shown(worse, width=width)
    assert max(map(len, lines(text))) <= width
    assert " ".join(text.split()).count(f": {latency.explanation}") == 2
    if width == 100:
        assert len(lines(text)) <= 24


def test_the_note_is_never_cut(sample):
    plain = sample.row("student, fine-tuned without distillation").model_copy(update={"score": 0.99})
    rows = tuple(plain if row.name == plain.name else row for row in sample.quality)
    text = shown(sample.model_copy(update={"quality": rows}), width=80)
    assert "More unlabelled text of your domain is what usually helps." in " ".join(text.split())


def test_it_says_what_matters(sample):
    text = shown(sample)
    assert "MET" in text
    assert "10 ms at p95" in text
    assert "student INT8 *" in text
    assert "./bundle: model.onnx" in text
    assert sample.chosen.shape_words in text


def test_a_demo_says_so(sample):
    assert "Synthetic data" in shown(sample)
    assert "ynthetic" not in shown(sample.model_copy(update={"demo": False}))


def test_markup_in_user_text_is_printed_as_it_is(sample):
    first = sample.criteria[0].model_copy(update={"outcome": "missed", "explanation": "[red]x[/red] [/]"})
    assert "[red]x[/red] [/]" in shown(sample.model_copy(update={"criteria": (first,)}))


def test_minimal(minimal):
    text = shown(minimal, None)
    assert "NOT MEASURED" in text
    assert "Files" not in text
