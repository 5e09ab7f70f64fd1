"""Teacher, assistants, student on the fake target: every strategy, its report, its cost, what must not change."""

import itertools
from types import SimpleNamespace

import pytest

from edgekd.assistants import chain as chains
from edgekd.assistants.chain import lengthened, make_chain, training_flops
from edgekd.assistants.choose import PaidRecord, Regime
from edgekd.errors import UsageError
from edgekd.pipeline import quality
from edgekd.pipeline.build import train_student
from edgekd.pipeline.compress import compress
from edgekd.pipeline.sources import gather
from edgekd.plan.weights import first_weights
from edgekd.records.plan import Candidate
from edgekd.settings.distill import Distill, Stage, Training
from edgekd.settings.profile import override
from edgekd.settings.request import Request
from edgekd.settings.shape import Slice

STUDENT = Slice(layers=(0,), heads=(2,), ffn=(16,))


@pytest.fixture(scope="module")
def request_(tiny_teacher, intent_data, fast_profile):
    return Request(teacher=str(tiny_teacher), data=str(intent_data), profile=fast_profile)


def candidate(shape, choice=STUDENT, width=None):
    changes = {"heads": choice.heads, "ffn": choice.ffn} | ({"hidden": width, "embedding": width} if width else {})
    return Candidate(
        kind="student", precision="fp32", shape=shape.model_copy(update=changes), choice=choice, kept=0.5,
        predicted_ms=1.0, measured_ms=None, fits=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def chain_of(shared_session, request_):
    """A function from `distill.assistants` to the chain, and what it was made for."""

    def make(width=None, epochs=10, **assistants):
        changes = {"distill.assistants": assistants, "distill.stages.0.training.epochs": epochs}
        profile = override(request_.profile, changes)
        inputs = gather(shared_session, request_.model_copy(update={"profile": profile}))
        wanted = candidate(inputs.teacher.hosted[0], width=width)
        start = first_weights(shared_session, inputs, wanted)
        return make_chain(shared_session, inputs, wanted, start), start, inputs

    return make


def test_default_and_none_change_nothing_that_a_stored_student_is_known_by(chain_of):
    for name in ("auto", "none"):
        chain, start, inputs = chain_of(name=name)
        assert chain.taken == ()
        assert (chain.start.id, chain.lesson.id) == (start.id, inputs.lesson().id)
        assert chain.found is None or chain.found.flops == {}


def test_auto_says_why_and_what_ratio_would_take(chain_of):
    chain, _, _ = chain_of(name="auto")
    assert "no gain is on record for text-classification" in chain.found.choice.reason
    assert chain.found.choice.picks["ratio"] is not None


def test_auto_takes_the_ratio_where_a_gain_is_on_record(chain_of, monkeypatch):
    regime = Regime(task="text-classification", largest_share=0.3, gain=0.6, interval=(0.1, 1.1), source="x.json")
    monkeypatch.setattr(chains, "paid", lambda: PaidRecord(regimes=(regime,)))
    chain, _, _ = chain_of(name="auto")
    assert len(chain.taken) == 1
    assert "+0.6 points on record (x.json)" in chain.found.choice.reason


def test_ratio_trains_an_assistant_and_the_student_is_cut_out_of_it_and_taught_by_it(chain_of, shared_session):
    chain, start, inputs = chain_of(name="ratio")
    (assistant,) = chain.taken
    assert assistant.share == pytest.approx(2.5 * chain.found.student_share, rel=0.2)
    assert chain.start.shape == start.shape
    assert chain.start.id != start.id
    assert chain.lesson.id != inputs.lesson().id
    assert not (chain.lesson.teacher_rows == inputs.rows).all()
    assert chain.lesson.teacher.hosted[0] == assistant.shape
    made = train_student(shared_session, inputs, chain.start, chain.lesson, inputs.profile.distill, longer=False)
    assert made[-1].result["validation"] > 0.7


def test_relations_are_read_from_the_assistant(shared_session, request_):
    stages = [{"loss": {"name": "minilmv2"}, "max_steps": 4, "training": {"epochs": 1, "learning_rate": 1e-3}}]
    stages += [stage.model_dump(mode="json") for stage in request_.profile.distill.stages]
    changes = {"distill.stages": stages, "distill.assistants": {"name": "ratio"}}
    inputs = gather(shared_session, request_.model_copy(update={"profile": override(request_.profile, changes)}))
    wanted = candidate(inputs.teacher.hosted[0])
    chain = make_chain(shared_session, inputs, wanted, first_weights(shared_session, inputs, wanted))
    made = train_student(shared_session, inputs, chain.start, chain.lesson, inputs.profile.distill, longer=False)
    assert [stage.result["loss"] for stage in made] == ["minilmv2", "kl"]


def test_lambda_scores_every_candidate_in_one_run_and_costs_what_the_formula_says(chain_of):
    chain, _, inputs = chain_of(name="lambda")
    choice = chain.found.choice
    assert all(a.score is not None and a.share > chain.found.student_share for a in choice.considered)
    assert {"lambda 0.1", "lambda 0.15", "lambda 0.2", "lambda 0.3", "ratio", "most accurate"} <= set(choice.picks)
    (run,) = chain.trained["elastic run"]
    length = round(inputs.encodings.lengths.mean())
    sizes = [a.shape.flops(length, whole=False) for a in choice.considered]
    student = chain.start.shape.flops(length, whole=False)
    each = student + sum(sizes) / len(sizes)
    texts = run.result["steps"] * inputs.profile.distill.stages[-1].training.batch_size
    looks = len(run.result["points"]) * (student + sizes[-1]) + student + sum(sizes)
    expected = 3 * texts * each + len(inputs.validation.encodings) * looks
    assert chain.found.flops["elastic run"] == pytest.approx(expected)
    assert len(chain.taken) == 1
    assert sum(chain.found.flops.values()) < 1.5 * chain.found.finetune_flops


def test_a_chain_takes_nothing_for_trained_that_the_elastic_run_did_not_train(chain_of, monkeypatch):
    """What lies between two of its slices is inside its weights, but has never answered a text."""
    between = []

    def beyond(gap, first, trained=()):
        more = next(a for a in gap._path if a.share > first.share and a.choice not in [t.choice for t in trained])
        between.append(more)
        return more, first

    monkeypatch.setattr("edgekd.assistants.choose.Gap.beyond", beyond)
    chain, _, _ = chain_of(name="lambda", epochs=1)
    assert f"assistant of {between[-1].describe()}" in chain.trained


def test_lambda_leaves_a_narrower_student_to_the_ratio(chain_of):
    chain, start, _ = chain_of(width=16, name="lambda")
    assert "less width" in chain.found.choice.reason
    assert "elastic run" not in chain.trained
    assert chain.start.id == start.id  # projected from the teacher, and taught by the assistant
    assert len(chain.taken) == 1


def test_exhaustive_trains_a_student_through_every_candidate(chain_of):
    chain, _, _ = chain_of(name="exhaustive", epochs=2)
    reached = [a.reached for a in chain.found.choice.considered]
    assert len(reached) >= 3
    assert chain.taken[-1].reached == max(reached)


def test_fixed_chain_of_two(chain_of):
    shapes = [
        {"layers": [0, 1, 2], "heads": [4, 2, 3], "ffn": [64, 32, 48]},
        {"layers": [0, 2], "heads": [3, 2], "ffn": [32, 16]},
    ]
    chain, _, _ = chain_of(name="fixed", shapes=shapes, epochs=2)
    assert [list(a.choice.layers) for a in chain.taken] == [[0, 1, 2], [0, 2]]
    assert len(chain.trained) == 2
    with pytest.raises(UsageError, match=r"shapes\.0: the student cannot be cut out of it"):
        chain_of(name="fixed", shapes=shapes[1:] and [shapes[1] | {"heads": [1, 2]}])


def test_lengthened_is_the_last_stage_alone():
    stage = Stage(training=Training(epochs=2, learning_rate=1e-3), max_steps=10)
    first, last = lengthened(Distill(stages=(stage, stage)), 2.5).stages
    assert (first.training.epochs, first.max_steps) == (2, 10)
    assert (last.training.epochs, last.max_steps) == (5, 25)


def test_bundle_reports_the_assistant_and_the_same_compute_without_it(shared_session, request_, tmp_path):
    changes = {"distill.assistants": {"name": "lambda"}, "budget.latency_ms": 0.015, "accept.min_retained": 0.1}
    profile = override(request_.profile, changes | {"distill.stages.0.training.epochs": 2})
    result = compress(shared_session, request_.model_copy(update={"profile": profile}), tmp_path / "b")
    choice = result.assistants.choice
    assert len(choice.taken) == 1
    assert all(a.share < b.share for a, b in itertools.pairwise(choice.considered))
    assert choice.lambdas == (0.1, 0.15, 0.2, 0.3)
    assert result.assistants.strategy == "lambda"
    assert result.row("student, no assistant at the same compute") is not None
    report = (tmp_path / "b" / "report.html").read_text()
    assert "Teacher assistants considered" in report
    assert "t, lambda 0.15" in report
    assert "against training the teacher for as many steps" in report


@pytest.mark.parametrize("longer", [False, True])
def test_no_assistant_gets_what_student_and_chain_took_together(
    chain_of, shared_session, request_, monkeypatch, longer
):
    """After several stages too, and where the student was trained longer."""
    stage = request_.profile.distill.stages[0].model_dump(mode="json")
    profile = override(request_.profile, {"distill.stages": [stage, stage]})
    inputs = gather(shared_session, request_.model_copy(update={"profile": profile}))
    chain, start, _ = chain_of(name="ratio")
    stages = train_student(shared_session, inputs, start, inputs.lesson(), profile.distill, longer=longer)
    asked = []

    def fake(*args):
        asked.append(args[5])
        return [None]

    monkeypatch.setattr(quality, "distill", fake)
    quality._without_assistants(
        SimpleNamespace(inputs=inputs, session=shared_session), SimpleNamespace(stages=stages, longer=longer),
        start, chain,
    )  # fmt: skip
    first, last = (stage.training.epochs for stage in asked[0].stages)
    own = [training_flops(inputs, Distill(stages=(stage,)), start.shape, [made])
           for stage, made in zip(profile.distill.stages, stages, strict=True)]  # fmt: skip
    assert first == 10
    epochs = 20 if longer else 10
    assert last * own[1] / epochs == pytest.approx(own[1] + sum(chain.found.flops.values()))


def test_flops_of_a_stage_with_the_teacher_beside_it_count_the_teacher(chain_of):
    _, start, inputs = chain_of(name="none")

    class Made:
        result = {"steps": 7, "points": [1, 2]}

    training = Training(epochs=1, learning_rate=1e-3, batch_size=4)
    alone, beside = Stage(training=training), Stage(loss={"name": "minilmv2"}, training=training)
    length = round(inputs.encodings.lengths.mean())
    read, whole = (start.shape.flops(length, whole=whole) for whole in (False, True))
    looks = 2 * len(inputs.validation.encodings) * read
    spent = training_flops(inputs, Distill(stages=(alone,)), start.shape, [Made])
    assert spent == pytest.approx(3 * 28 * read + looks)
    # A loss on attention reads every token of the last layer too.
    teacher = 28 * inputs.teacher.hosted[0].flops(length)
    spent = training_flops(inputs, Distill(stages=(beside,)), start.shape, [Made])
    assert spent == pytest.approx(3 * 28 * whole + looks + teacher)
