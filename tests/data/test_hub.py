import datasets
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from edgekd.data.hub import hub_table, read_hub
from edgekd.data.read import read_data
from edgekd.errors import DataError, UnavailableError
from edgekd.settings.request import is_hub_id

FEATURES = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})


def make(count, hidden=False):
    labels = [-1 if hidden else i % 2 for i in range(count)]
    texts = [f"text {i} {hidden}" for i in range(count)]
    return datasets.Dataset.from_dict({"text": texts, "label": labels}, features=FEATURES)


def answer(monkeypatch, result, hub=None):
    """What the hub gives; `hub` is raised where it is asked whether it has the set."""

    def ask(api, source, timeout):
        if hub is not None:
            raise hub

    def load(source, config):
        assert (source, config) == ("owner/name", "small")
        if isinstance(result, Exception):
            raise result
        return datasets.DatasetDict(result)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(HfApi, "dataset_info", ask)


def test_hub_ids():
    assert is_hub_id("nyu-mll/glue")
    assert not any(map(is_hub_id, ("glue", "./data", "/data/x", "a/b/c", "../x")))


def test_a_hub_set_is_read_with_its_class_names(monkeypatch):
    answer(monkeypatch, {"train": make(20), "validation": make(4), "test": make(4, hidden=True), "extra": make(1)})
    data = read_data("owner/name", hub_config="small")
    assert data.labels == ("no", "yes")
    assert data.train is not None
    assert all(
        label == ("no", "yes")[int(text.split()[1]) % 2]
        for text, label in zip(data.train.texts, data.train.labels, strict=True)
    )
    assert "owner/name: split extra is not used" in data.notes
    assert "test left out: all its labels are empty or hidden" in data.notes
    assert any(note.startswith("no test given") for note in data.notes)
    assert len(data.train) + len(data.test) == 20


def test_tags_have_class_names_too():
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-x"])),
        }
    )
    rows = datasets.Dataset.from_dict({"tokens": [["a"]], "ner_tags": [[1]]}, features=features)
    table = hub_table("set[train]", rows)
    assert table.classes == {"ner_tags": ["O", "B-x"]}
    assert table.rows == [{"tokens": ["a"], "ner_tags": [1]}]


def test_an_unsupervised_split_is_unlabelled_text(monkeypatch):
    answer(monkeypatch, {"train": make(20), "unsupervised": make(5, hidden=True)})
    tables, _ = read_hub("owner/name", "small")
    assert list(tables) == ["train", "unlabeled"]


def test_no_network_says_how_to_pass_a_local_copy(monkeypatch):
    answer(monkeypatch, ConnectionError("Couldn't reach the Hub\nand more"))
    with pytest.raises(UnavailableError, match=r"owner/name: .*hub cannot be reached .* pass a local copy") as error:
        read_hub("owner/name", "small")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "error",
    [datasets.exceptions.DatasetNotFoundError("no such set"), ValueError("Config name is missing.\nPick one")],
)
def test_a_wrong_set_or_configuration_is_a_data_error(monkeypatch, error):
    answer(monkeypatch, error)
    with pytest.raises(
        DataError, match=r"owner/name: the hub cannot give this data set: (no such set|Config.*missing\.)$"
    ):
        read_hub("owner/name", "small")


@pytest.mark.parametrize(
    ("answered", "offline"),
    [(None, False), (HfHubHTTPError.__new__(HfHubHTTPError), False), (OSError("no route"), True)],
)
def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch, answered, offline):
    seen = []
    answer(monkeypatch, {"train": make(2)}, answered)
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_: seen.append(datasets.config.HF_HUB_OFFLINE) or {"train": make(2)}
    )
    read_hub("owner/name", None)
    assert seen == [offline]
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_set_without_known_splits(monkeypatch):
    answer(monkeypatch, {"full": make(2)})
    with pytest.raises(DataError, match=r"no split is named .* \(found full\)"):
        read_hub("owner/name", "small")
