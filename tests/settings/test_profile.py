import pytest

from edgekd.errors import UsageError
from edgekd.profiles import available, load_profile
from edgekd.settings.profile import Profile, override, parse
from edgekd.settings.target import CpuTarget


def test_every_shipped_profile_loads_and_is_named_after_its_file():
    names = available()
    assert {"cpu", "cpu-4t", "cuda", "tensorrt-fp16", "raspberry-pi-5"} <= set(names)
    for name in names:
        assert load_profile(name).name == name


def test_default_profile_is_one_thread_here():
    target = load_profile("cpu").target
    assert isinstance(target, CpuTarget)
    assert (target.threads, target.device) == (1, "local")


def test_wrong_name_gets_did_you_mean():
    with pytest.raises(UsageError, match="did you mean 'cpu-4t'"):
        load_profile("cpu-4")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "x", "budgett": {}}, "budgett: unknown setting, did you mean 'budget'"),
        ({"name": "x", "budget": {"latency": 3}}, "budget.latency: unknown setting, did you mean 'latency_ms'"),
        ({"name": "x", "budget": {"latency_ms": 0}}, "budget.latency_ms"),
        ({"name": "x", "budget": {"latency_ms": float("nan")}}, "budget.latency_ms"),
        ({"name": "x", "target": {"kind": "abacus"}}, "target"),
        ({}, "name"),
        (
            {"name": "x", "search": {"select": "accuracy"}, "distill": {"stages": [{"loss": {"name": "pkd"}}]}},
            "distill.stages.0.loss pkd: search.select accuracy",
        ),
        (
            {
                "name": "x",
                "distill": {"assistants": {"name": "lambda"}, "stages": [{}, {"loss": {"name": "hard"}}]},
            },
            "distill.stages.1.loss hard: distill.assistants lambda",
        ),
    ],
)
def test_wrong_content_is_one_line_that_names_the_field(content, message):
    with pytest.raises(UsageError) as caught:
        parse(content, "p.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_yaml_names_the_line(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("name: x\nbudget: [1, 2")
    with pytest.raises(UsageError, match=r"p\.yaml, line \d: not valid YAML"):
        load_profile(str(path))


def test_yaml_that_is_no_mapping(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("- a\n- b\n")
    with pytest.raises(UsageError, match="expected a mapping"):
        load_profile(str(path))


def test_override_changes_only_what_is_given():
    loaded = load_profile("cpu")
    changed = override(loaded, {"budget.latency_ms": 7.5, "target.threads": None, "workload.max_length": 64})
    assert (changed.budget.latency_ms, changed.workload.max_length) == (7.5, 64)
    assert changed.target == loaded.target


def test_a_dump_is_enough_to_load_again():
    loaded = override(load_profile("cpu-4t"), {"budget.latency_ms": 3})
    assert parse(loaded.model_dump(mode="json"), "again") == loaded


def test_json_schema_for_editors_names_the_targets():
    assert "onnxruntime-cpu" in str(Profile.model_json_schema())


def test_initialisation_by_name():
    assert parse({"name": "x"}, "test").distill.init.name == "slice"
    found = parse({"name": "x", "distill": {"init": {"name": "checkpoint", "folder": "./e"}}}, "test")
    assert found.distill.init.folder == "./e"
    for wrong, place in (
        ({"name": "magic"}, "distill.init"),
        ({"name": "checkpoint"}, "distill.init.folder: name checkpoint needs one"),
    ):
        with pytest.raises(UsageError, match=place):
            parse({"name": "x", "distill": {"init": wrong}}, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "x", "target": {"kind": "onnxruntime"}}, "did you mean 'onnxruntime-(cpu|cuda)'"),
        (
            {"name": "x", "distill": {"init": {"name": "Slice"}}},
            "distill.init.name: no 'Slice' here; did you mean 'slice'",
        ),
        ({"budget": {"latency_ms": 3}}, "^test: name: missing$"),
        ({"name": "x", "target": {"kind": "onnxruntime-cpu", "precisions": ["fp16"]}}, "choose fp32 or int8"),
        ({"name": "x", "target": {"threads": 2}}, "^test: target: kind is missing"),
        ({"name": "x", "distill": {"seed": -1}}, "distill.seed: .*greater than or equal to 0"),
    ],
)
def test_wrong_settings_are_said_in_a_line(content, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse(content, "test")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("distill", "message"),
    [
        ({"stages": [{"loss": {"name": "klx"}}]}, "^test: distill.stages.0.loss: no 'klx' here; did you mean 'kl'[?]$"),
        (
            {"stages": [{"loss": {"name": "kl", "temperature": float("inf")}}]},
            "^test: distill.stages.0.loss.temperature: ",
        ),
        ({"init": "slice"}, "^test: distill.init: expected settings such as"),
        (
            {"stages": [{"loss": {"name": "infonce"}, "training": {"epochs": 1, "learning_rate": 1, "batch_size": 1}}]},
            "^test: distill.stages.0: loss infonce tells a text from the others of its batch",
        ),
    ],
)
def test_one_wrong_field_is_one_complaint(distill, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse({"name": "x", "distill": distill}, "test")
    assert ";" not in str(caught.value).replace("; did you mean", "")
    assert "Value error" not in str(caught.value)


def test_a_request_is_no_profile(tmp_path):
    path = tmp_path / "edgekd.yaml"
    path.write_text("demo: false\nprofile: {name: x}\n")
    with pytest.raises(UsageError, match="edgekd compress -c"):
        load_profile(str(path))


def test_random_words_are_learned():
    for init, frozen in (({"name": "slice"}, True), ({"name": "random"}, False)):
        distill = parse({"name": "x", "distill": {"init": init}}, "test").distill
        assert [stage.training.freeze_words for stage in distill.schedule(kept=0.0)] == [frozen]


def test_a_student_near_its_teacher_learns_gently():
    def rates(kept, **changes):
        distill = parse({"name": "x", "distill": changes}, "test").distill
        return [stage.training.learning_rate for stage in distill.schedule(kept)]

    (usual,) = rates(0.0)
    assert rates(0.39) == [usual]
    assert rates(0.4) == rates(1.0) == pytest.approx([0.4 * usual])
    assert rates(0.9, near_rate=1.0) == [usual]
    assert rates(0.9, init={"name": "random"}) == [usual], "random weights are not near anything"
