import re
from html.parser import HTMLParser

import pytest

from edgekd.records.plan import Candidate
from edgekd.records.result import Latency
from edgekd.report.html import render, write_html

VOID = {"meta", "br", "path", "use"}


class Page(HTMLParser):
    """Collects elements, attributes and text, and checks that tags nest."""

    def __init__(self, content):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def content(sample):
    return render(sample)


@pytest.fixture(scope="module")
def page(content):
    return Page(content)


def titles(content):
    return re.findall(r"<h2>(.*?)</h2>", content)


def test_it_needs_neither_network_nor_script(content, page):
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    loads = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "action", "data")]
    assert loads
    assert all(value.startswith("#") for value in loads)
    assert not re.search(r"url\((?!#)|@import", content)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_user_text_is_escaped(content, page):
    assert "<script" not in content
    assert "my-<b>" not in content
    assert '<script>alert("x")</script> & $\\alpha$ | `tick`' in "".join(page.text)


def test_markup_in_a_figure_is_escaped(sample):
    evil = '<script>alert("x")</script> $\\frac{$'
    curve = sample.training[0].model_copy(update={"name": evil})
    told = render(sample.model_copy(update={"training": (curve,)}))
    assert "<script" not in told
    assert evil in "".join(Page(told).text)


def test_every_section_is_there(content):
    assert titles(content) == [
        "Criteria",
        "Latency against the budget",
        "Quality",
        "How the student was chosen",
        "Training",
        "Export: parity and quantisation",
        "Data and teacher",
        "Machine, versions and files",
        "How to run it again",
    ]
    for name in ("latency", "quality", "frontier", "training"):
        assert f'id="figure-{name}"' in content


def test_the_contents_lead_to_every_section(content, page):
    anchors = [value for name, value in page.attributes if name == "href" and re.fullmatch(r"#[a-z-]+", value)]
    links = re.findall(r'<li><a href="#([a-z-]+)">(.*?)</a></li>', content)
    assert [title for _, title in links] == titles(content)
    assert all(f'<section id="{anchor}"' in content for anchor, _ in links)
    assert len(set(anchors)) >= len(links)


def test_the_plans_limit_stands_beside_the_budget(content):
    frontier = content[content.index('id="figure-frontier"') :]
    assert "limit of the plan" in frontier[: frontier.index("</figure>")]


def test_what_the_axis_leaves_out_is_said(sample):
    # The sample's slowest 12 of 1,600 calls lie far beyond its p99.
    assert re.search(r"The axis ends at [\d.]+ ms: 0\.\d% of calls took longer", render(sample))
    fixed = sample.latency.fixed
    ends = fixed.model_copy(update={"samples_ms": fixed.samples_ms[: len(fixed.samples_ms) // 2]})
    assert "The axis ends" not in render(sample.model_copy(update={"latency": Latency(fixed=ends)}))


def test_the_verdict_comes_first(content, page):
    assert content.index("Ready to deploy") < content.index("<h2>")
    assert "badge met" in content
    assert "Synthetic data" in "".join(page.text)


def test_figures_show_what_they_are_about(content):
    frontier = content[content.index('id="figure-frontier"') :]
    frontier = frontier[: frontier.index("</figure>")]
    assert ">chosen</text>" in frontier
    assert "budget 10 ms" in frontier
    assert "INT8, fits" in frontier
    training = content[content.index('id="figure-training"') :]
    assert "distilled student" in training[: training.index("</figure>")]
    for label in ("p50", "p95", "p99"):
        assert re.search(rf">{label} [\d.]+</text>", content)


def test_figures_follow_the_page_colours(content):
    figures = "".join(re.findall(r"<svg.*?</svg>", content, re.DOTALL))
    assert "var(--ink)" in figures
    assert "var(--budget)" in figures
    assert set(re.findall(r"#[0-9a-f]{6}\b", figures)) == set()


def test_ids_are_unique(page):
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_a_minimal_result_renders(minimal):
    content = render(minimal)
    Page(content)
    assert titles(content) == ["Data and teacher", "Machine, versions and files", "How to run it again"]
    assert "<svg" not in content
    assert "Not measured yet" in content


@pytest.mark.parametrize(
    ("emptied", "gone"),
    [
        ({"criteria": (), "assistants": None, "tries": (), "files": {}, "export": None},
         ["Criteria", "Export: parity and quantisation"]),
        ({"quality": (), "plan": None, "training": (), "latency": Latency()},
         ["Latency against the budget", "Quality", "Training"]),
    ],
)  # fmt: skip
def test_any_part_may_be_missing(sample, emptied, gone):
    content = render(sample.model_copy(update=emptied))
    Page(content)
    assert not set(gone) & set(titles(content))
    assert "How to run it again" in titles(content)


def test_unmeasured_parts_of_a_measurement(sample):
    bare = sample.latency.fixed.model_copy(
        update={"parts": {}, "load_ms": None, "first_call_ms": None, "peak_memory_mb": None, "samples_ms": ()}
    )
    content = render(sample.model_copy(update={"latency": Latency(fixed=bare)}))
    assert 'id="figure-latency"' not in content
    assert "peak memory" not in content
    assert "p95" in content


def test_a_plan_of_the_teacher_alone_is_shown(sample):
    teacher = Candidate(
        kind="teacher",
        precision="fp32",
        shape=None,
        choice=None,
        kept=1.0,
        predicted_ms=None,
        measured_ms=9.0,
        fits=True,
    )
    plan = sample.plan.model_copy(update={"candidates": (teacher,), "chosen": 0})
    content = render(sample.model_copy(update={"plan": plan}))
    assert 'id="figure-frontier"' in content
    assert "unchanged" in content
    assert 'id="figure-frontier"' not in render(sample.model_copy(update={"plan": None}))


def test_the_same_result_gives_the_same_bytes(sample, tmp_path):
    for name in ("a.html", "b.html"):
        write_html(sample, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.html").stat().st_size < 600_000
