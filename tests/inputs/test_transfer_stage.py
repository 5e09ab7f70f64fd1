import dataclasses
import json
import random

import pytest

from edgekd.data.read import read_data
from edgekd.errors import DataError, UsageError
from edgekd.inputs import transfer_stage as stage
from edgekd.inputs.gather import prepare
from edgekd.inputs.transfer_stage import Embedder, build_transfer_set
from edgekd.models.identity import folder_id
from edgekd.models.teacher import load_teacher
from edgekd.settings.profile import override
from edgekd.settings.transfer import Transfer


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Sentences with words of one intent, and as many of another domain."""
    path, rng = tmp_path_factory.mktemp("pool") / "pool.jsonl", random.Random(0)
    words = ["play song album loud band jazz please", "bond market share price trade index profit"]
    near, far = ([" ".join(rng.sample(group.split(), 4)) for _ in range(150)] for group in words)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in near + far))
    return path


@pytest.fixture(scope="module")
def embedder(tiny_teacher):
    return Embedder(load_teacher(tiny_teacher), folder_id(tiny_teacher), 24)


def with_generic(pool, **changes):
    return Transfer.model_validate({"generic": {"path": str(pool), "size": 40} | changes})


@pytest.mark.parametrize("method", ["cascade", "clusters", "ngrams"])
def test_generic_texts_like_the_target_are_added(shared_session, intent_data, pool, embedder, method):
    made = build_transfer_set(
        shared_session.store,
        shared_session.engine,
        read_data(intent_data),
        with_generic(pool, method=method),
        0,
        embedder,
    )
    added = made.split.texts[-made.counts["generic"] :]
    assert made.counts["generic"] == 40
    assert (
        sum(any(word in text for word in ("play", "song", "album", "loud", "band", "jazz")) for text in added) >= 30
    )  # of 40; 20 at random
    assert made.selection.kl_reduction > 0
    assert made.selection.pool_size == 300


def test_int8_states_order_texts_as_those_of_torch_do(shared_session, embedder, tmp_path):
    texts = ["play a song", "rain and wind", "wake me early", "qxz zzx"]
    int8 = embedder.open(shared_session.engine, tmp_path)(texts)
    foreign = dataclasses.replace(embedder.teacher, hosted=None)
    exact = dataclasses.replace(embedder, teacher=foreign).open(shared_session.engine, tmp_path)(texts)
    assert int8.shape == exact.shape == (4, 32)
    cosine = (int8 * exact).sum(1) / ((int8**2).sum(1) * (exact**2).sum(1)) ** 0.5
    assert cosine.min() > 0.99


def test_what_was_chosen_outlives_a_failure_after_it(
    shared_session, intent_data, pool, embedder, monkeypatch, tmp_path
):
    spec = Transfer.model_validate(with_generic(pool, seed=7).model_dump() | {"augment": [{"name": "typos"}]})
    data, calls = read_data(intent_data), []
    choose = stage.choose_generic
    monkeypatch.setattr(stage, "choose_generic", lambda *given: calls.append(1) or choose(*given))
    with monkeypatch.context() as broken:
        broken.setattr(stage, "augment_target", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_transfer_set(shared_session.store, shared_session.engine, data, spec, 0, embedder)
    made = build_transfer_set(shared_session.store, shared_session.engine, data, spec, 0, embedder)
    again = build_transfer_set(shared_session.store, shared_session.engine, data, spec, 0, embedder)
    assert len(calls) == 1
    assert made.split.texts == again.split.texts
    assert made.counts["generic"] == 40
    assert 100 < made.counts["augmented"] <= 160
    assert len(made.split) == sum(made.counts.values())


def test_texts_that_change_the_teachers_mind_are_left_out(shared_session, intent_data, tiny_teacher, fast_profile):
    changes = {"transfer.augment": [{"name": "delete", "ratio": 0.7}, {"name": "typos", "ratio": 1.0}]}
    teacher, data = load_teacher(tiny_teacher), read_data(intent_data)
    found = {}
    for consistent in (False, True):
        profile = override(fast_profile, changes | {"transfer.consistent": consistent})
        found[consistent] = prepare(shared_session.store, shared_session.engine, profile, teacher, data)
    every, kept = found[False], found[True]
    assert 0 < kept.transfer.counts["augmented"] < every.transfer.counts["augmented"]
    assert len(kept.rows) == len(kept.encodings) == len(kept.transfer.split)
    before = len(kept.rows) - kept.transfer.counts["augmented"]
    parents = kept.transfer.augmented.parents
    assert (kept.rows[parents].argmax(1) == kept.rows[before:].argmax(1)).all()
    assert "says something else" in kept.transfer.notes[-1]


def test_tags_follow_their_words(shared_session, tag_data, tiny_encoder, fast_profile):
    data = read_data(tag_data)
    spec = Transfer.model_validate({"augment": [{"name": "slot_swap"}, {"name": "swap"}]})
    made = build_transfer_set(shared_session.store, shared_session.engine, data, spec, 0)
    assert made.counts["augmented"] > 50
    assert len(made.split.words) == len(made.split)


def test_pairs_are_not_edited_unless_asked(shared_session, tmp_path):
    for name in ("train", "validation", "test"):
        rows = [{"sentence1": f"a b {name}{i}", "sentence2": "c d", "label": str(i % 2)} for i in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data, spec = read_data(tmp_path), {"augment": [{"name": "swap"}]}
    with pytest.raises(UsageError, match="pairs"):
        build_transfer_set(shared_session.store, shared_session.engine, data, Transfer.model_validate(spec), 0)
    allowed = Transfer.model_validate(spec | {"augment_pairs": True})
    assert build_transfer_set(shared_session.store, shared_session.engine, data, allowed, 0).counts["augmented"] > 0


def test_missing_pool_names_the_flag(shared_session, intent_data):
    with pytest.raises(DataError, match=r"--generic .*nope\.txt: no such file or folder"):
        build_transfer_set(
            shared_session.store, shared_session.engine, read_data(intent_data), with_generic("nope.txt"), 0
        )
