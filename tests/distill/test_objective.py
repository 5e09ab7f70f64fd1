"""A stage's loss in its parts, on a real tiny student and teacher."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgekd.distill.batches import inputs_of
from edgekd.distill.losses.prediction import hard_loss, kl_divergence
from edgekd.distill.objective import Batch, build_objective
from edgekd.distill.on_the_fly import Augmentation
from edgekd.errors import UsageError
from edgekd.models.initialize import random_initial
from edgekd.models.online import OnlineTeacher
from edgekd.models.student import from_weights
from edgekd.runtime.encodings import Encodings
from edgekd.settings.distill import Intermediate, Mixup, Stage, TokenChange, Training
from edgekd.settings.losses import (
    KL,
    NWJ,
    AttentionMaps,
    HardCE,
    HiddenStates,
    InfoNCE,
    JensenShannon,
    LayerMapping,
    MiniLM,
    MiniLMv2,
    MutualInformation,
)
from edgekd.settings.shape import EncoderShape, HeadShape

TRAINING = Training(epochs=1, learning_rate=1e-3, precision="fp32")
LABELS = ("a", "b", "c")


def shape(depth, hidden, heads, kind="sequence"):
    return EncoderShape(
        vocabulary=30, positions=16, token_types=2, embedding=hidden, hidden=hidden, head_size=8,
        heads=(heads,) * depth, ffn=(24,) * depth, head=HeadShape(kind=kind, labels=3, activation="tanh"),
    )  # fmt: skip


def model_of(shape_, seed):
    weights = {k: v + 0.1 * np.random.default_rng(seed).standard_normal(v.shape).astype(np.float32)
               for k, v in random_initial(shape_, seed).items()}  # fmt: skip
    return from_weights(shape_, weights, LABELS, dropout=0.0)


def encodings(count=6):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 9, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Encodings(rng.integers(1, 30, offsets[-1]).astype(np.int32), offsets)


TEACHER = shape(4, 32, 4)


def online(shape_=TEACHER):
    return OnlineTeacher(model_of(shape_, 1).requires_grad_(False), shape_, shape_.hidden, shape_.depth)


def built(stage, student, rows=None, targets=None, teacher=online, augment=None):
    return build_objective(
        stage,
        rows=torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) if rows is None else rows,
        targets=torch.tensor([0, 1, 2, -100, 1, 0]) if targets is None else targets,
        student=student,
        teacher=teacher,
        seed=0,
        augment=augment,
    )


def batch(indices=(4, 1, 3)):
    split = encodings()
    return Batch(split, np.array(indices), inputs_of(split, np.array(indices), torch.device("cpu")))


def test_logits_and_labels_are_those_of_the_batch():
    student, rows = model_of(shape(2, 32, 2), 2), torch.randn(6, 3)
    targets = torch.tensor([0, 1, 2, -100, 1, 0])
    objective = built(Stage(loss=KL(temperature=3), hard_weight=0.5, training=TRAINING), None, rows, targets)
    terms = objective(student, batch())
    logits = student(**batch().inputs).logits
    torch.testing.assert_close(terms["kl"], kl_divergence(rows[[4, 1, 3]], logits, 3.0))
    torch.testing.assert_close(terms["labels"], 0.5 * hard_loss(logits, targets[[4, 1, 3]]))


def test_a_stage_is_the_weighted_sum_of_its_losses():
    """Distiller's objective: each part as it is alone, times its weight, from one run of teacher and student."""
    whole, student = shape(2, 16, 2), model_of(shape(2, 16, 2), 2)
    asked = {
        "hidden_mse": (0.5, HiddenStates(name="hidden_mse", mapping=LayerMapping(name="last"))),
        "hidden_mse 3": (2.0, HiddenStates(name="hidden_mse", mapping=LayerMapping(name="pairs", pairs=((1, 1),)))),
        "minilmv2": (3.0, MiniLMv2()),
        "js": (0.25, JensenShannon(queue=0)),
    }
    runs, taught = [], online()

    def counted(*args, **kwargs):
        runs.append(kwargs)
        return taught(*args, **kwargs)

    teacher = type("Counted", (), {"shape": taught.shape, "width": 32, "depth": 4, "__call__": staticmethod(counted)})()
    stage = Stage(
        loss=KL(temperature=3), weight=0.7, hard_weight=0.2, training=TRAINING,
        intermediate=[Intermediate(loss=loss, weight=weight) for weight, loss in asked.values()],
    )  # fmt: skip
    objective = built(stage, whole, teacher=lambda: teacher)
    terms = objective(student, batch())
    assert list(terms) == ["kl", *asked, "labels"]
    assert len(runs) == 1
    assert (runs[0]["hidden"], runs[0]["last_layer"]) == (True, 4)
    alone = built(Stage(loss=KL(temperature=3), hard_weight=0.2, training=TRAINING), whole)(student, batch())
    torch.testing.assert_close(terms["kl"], 0.7 * alone["kl"])
    torch.testing.assert_close(terms["labels"], alone["labels"])
    for i, (name, (weight, loss)) in enumerate(asked.items(), 1):
        # What is learned beside the student has a seed of its own.
        part = build_objective(
            Stage(loss=loss, training=TRAINING), rows=None, targets=torch.empty(0), student=whole, teacher=online,
            seed=i,
        )  # fmt: skip
        torch.testing.assert_close(terms[name], weight * part(student, batch())[loss.name])
    assert {name.split(".")[0] for name in objective.module.state_dict()} == {"0", "1", "2"}


def test_labels_with_an_intermediate_loss_and_a_part_of_no_weight():
    student = model_of(shape(2, 32, 2), 2)
    inner = [Intermediate(loss=MiniLMv2(), weight=2.0), Intermediate(loss=MutualInformation(), weight=0.0)]
    stage = Stage(loss=HardCE(), weight=0.5, intermediate=inner, training=TRAINING)
    objective = built(stage, shape(2, 32, 2))
    terms = objective(student, batch())
    alone = built(Stage(loss=HardCE(), training=TRAINING), None)(student, batch())
    assert set(terms) == {"minilmv2", "labels"}
    torch.testing.assert_close(terms["labels"], 0.5 * alone["labels"])
    assert objective.module is None


def test_mixed_texts_count_for_every_part():
    whole, student = shape(2, 32, 2), model_of(shape(2, 32, 2), 2)
    inner = [Intermediate(loss=MiniLMv2(), weight=2.0)]
    stage = Stage(intermediate=inner, mixup=Mixup(weight=0.5), training=TRAINING)
    torch.manual_seed(0)
    both = built(stage, whole)(student, batch())
    parts = []
    for other in (Stage(mixup=Mixup(weight=0.5), training=TRAINING), Stage(loss=MiniLMv2(), mixup=Mixup(weight=0.5))):
        torch.manual_seed(0)
        parts.append(built(other, whole)(student, batch())["mixup"])
    torch.testing.assert_close(both["mixup"], parts[0] + 2 * parts[1])


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"weight": 0}, "all weights of the stage are 0"),
        (
            {"weight": 0, "intermediate": [{"loss": {"name": "minilmv2"}, "weight": 0}]},
            "all weights of the stage are 0",
        ),
        ({"intermediate": [{"loss": {"name": "kl"}}]}, "kl is on the outputs"),
        ({"loss": {"name": "pkd"}, "intermediate": [{"loss": {"name": "mi"}}]}, "pkd is one itself"),
        ({"intermediate": [{"loss": {"name": "mi"}, "weight": -1}]}, "greater than or equal to 0"),
        (
            {"intermediate": [{"loss": {"name": "js"}}], "training": TRAINING.model_copy(update={"batch_size": 1})},
            "js tells a text",
        ),
    ],
)
def test_sums_that_cannot_be(fields, line):
    with pytest.raises(ValueError, match=line):
        Stage.model_validate(fields)


def test_labels_alone_need_no_teacher():
    objective = built(Stage(loss=HardCE(), training=TRAINING), None, teacher=lambda: pytest.fail("no teacher needed"))
    student = model_of(shape(2, 32, 2), 2)
    assert set(objective(student, batch())) == {"labels"}


EMD = LayerMapping(name="emd")
INNER = [
    HiddenStates(name="hidden_mse"), HiddenStates(name="hidden_mse", mapping=EMD),
    HiddenStates(name="hidden_cosine", mapping=LayerMapping(name="last_k")), HiddenStates(name="pkd"),
    HiddenStates(name="hidden_ce", mapping=LayerMapping(name="uniform_consecutive")),
    MutualInformation(queue=4), InfoNCE(mapping=EMD, queue=4), NWJ(queue=4), JensenShannon(queue=4),
    JensenShannon(critic="transformer", hidden=16, size=8),
    AttentionMaps(mapping=LayerMapping(name="uniform_last")), AttentionMaps(mapping=EMD),
    MiniLMv2(), MiniLMv2(relation_heads=2, teacher_layer=2),
]  # fmt: skip


@pytest.mark.parametrize("width", [32, 16])
@pytest.mark.parametrize(
    "loss", INNER, ids=lambda spec: f"{spec.name}-{getattr(getattr(spec, 'mapping', None), 'name', '')}"
)
def test_every_inner_loss_trains_student_and_module(loss, width):
    student_shape = shape(3, width, 2)
    student = model_of(student_shape, 2).train()
    objective = built(Stage(loss=loss, training=TRAINING), student_shape)
    parts = [student] + ([objective.module] if objective.module is not None else [])
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], lr=1e-2)
    losses = []
    for _ in range(25):
        ((name, term),) = objective(student, batch(range(6))).items()
        assert name == loss.name
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
        losses.append(term.item())
    assert np.mean(losses[-5:]) < losses[0]
    if objective.module is not None and list(objective.module.parameters()):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.module.parameters())


def test_student_equal_to_teacher_has_nothing_to_learn():
    twin = model_of(TEACHER, 1)
    for loss in (
        HiddenStates(name="hidden_mse", mapping=LayerMapping(name="uniform")),
        AttentionMaps(),
        MiniLM(),
        MiniLMv2(),
    ):
        terms = built(Stage(loss=loss, training=TRAINING), TEACHER)(twin, batch())
        # MiniLMv2 compares the student's last layer with the teacher's last but one.
        limit = 1e-6 if loss.name != "minilmv2" else np.inf
        assert abs(terms[loss.name].item()) < limit


def test_padding_and_partners_do_not_change_a_texts_own_part():
    student = model_of(shape(2, 32, 2), 2)
    objective = built(Stage(loss=MiniLMv2(), training=TRAINING), shape(2, 32, 2))
    alone = [objective(student, batch([i]))["minilmv2"].item() for i in range(3)]
    assert objective(student, batch([0, 1, 2]))["minilmv2"].item() == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.parametrize("loss", [KL(), HiddenStates(name="hidden_mse"), MiniLMv2()], ids=lambda spec: spec.name)
def test_mixup_gives_teacher_and_student_the_same_text(loss):
    twin = model_of(TEACHER, 1)
    stage = Stage(loss=loss, mixup=Mixup(weight=2.0), training=TRAINING)
    rows = twin(**inputs_of(encodings(), np.arange(6), torch.device("cpu"))).logits.detach()
    if loss.name == "minilmv2":
        stage = stage.model_copy(update={"loss": MiniLMv2(teacher_layer=4)})
    if loss.name == "hidden_mse":
        stage = stage.model_copy(update={"loss": HiddenStates(name="hidden_mse", mapping=LayerMapping(name="uniform"))})
    torch.manual_seed(0)
    terms = built(stage, TEACHER, rows)(twin, batch(range(6)))
    assert set(terms) == {loss.name, "mixup"}
    assert abs(terms["mixup"].item()) < 1e-5
    other = model_of(TEACHER, 5)
    torch.manual_seed(0)
    assert built(stage, TEACHER, rows)(other, batch(range(6)))["mixup"].item() > 1e-3


def seen_by(model):
    """The token ids of every call of a model, and the model."""
    ids = []
    model.register_forward_pre_hook(lambda _, args, kwargs: ids.append(kwargs["input_ids"]), with_kwargs=True)
    return ids


@pytest.mark.parametrize("kind", ["sequence", "token"])
@pytest.mark.parametrize(
    "loss",
    [KL(), HiddenStates(name="hidden_mse", mapping=LayerMapping(name="uniform")), MiniLMv2(teacher_layer=4)],
    ids=lambda s: s.name,
)
def test_both_see_the_same_changed_text_beside_the_text_itself(loss, kind):
    whole = shape(4, 32, 4, kind)
    twin, teacher = model_of(whole, 1), online(whole)
    taught, read = seen_by(teacher.model), seen_by(twin)
    split = encodings()
    if kind == "token":  # a row for the second token of each text, and one for its third
        places, offsets = np.tile([1, 2], len(split)), 2 * np.arange(len(split) + 1)
        split = replace(
            split,
            answer_positions=places,
            answer_words=places - 1,
            answer_offsets=offsets,
            words=np.full(len(split), 2),
        )
    some = Batch(split, np.array([4, 1, 3]), inputs_of(split, np.array([4, 1, 3]), torch.device("cpu")))
    stage = Stage(loss=loss, on_the_fly=TokenChange(name="mask_tokens", ratio=0.5, weight=2.0), training=TRAINING)
    rows = torch.randn(int(split.rows[-1]), 3)

    def terms(model):
        torch.manual_seed(0)
        augment = Augmentation(stage.on_the_fly, (1, 2), 29)
        return built(stage, whole, rows, torch.zeros(len(rows)).long(), lambda: teacher, augment)(model, some)

    found = terms(twin)
    assert set(found) == {loss.name, "on_the_fly"}
    assert abs(found["on_the_fly"].item()) < 1e-5
    ids = some.inputs["input_ids"]
    assert torch.equal(read[0], ids)
    assert not torch.equal(read[1], ids)
    assert torch.equal(taught[-1], read[1])
    assert (read[1][read[1] != ids] == 29).all()
    if loss.name == "kl":
        torch.testing.assert_close(
            found["kl"], kl_divergence(some.of(rows), some.rows(twin(**some.inputs).logits), loss.temperature)
        )
        assert len(taught) == 1
    other = model_of(whole, 5)
    heavy = terms(other)["on_the_fly"].item()
    stage = stage.model_copy(update={"on_the_fly": TokenChange(name="mask_tokens", ratio=0.5)})
    assert heavy == pytest.approx(2 * terms(other)["on_the_fly"].item())
    assert heavy > 1e-3


def test_changed_texts_have_no_gold_label_and_do_not_stay_in_the_queue():
    student = model_of(shape(2, 32, 2), 2).train()
    training = {"training": TRAINING, "hard_weight": 0.5, "loss": MutualInformation(queue=8)}
    plain, changed = Stage(**training), Stage(**training, on_the_fly=TokenChange(name="mask_tokens"))
    first, second = built(plain, shape(2, 32, 2)), built(
        changed, shape(2, 32, 2), augment=Augmentation(changed.on_the_fly, (), 29)
    )  # fmt: skip
    torch.testing.assert_close(first(student, batch())["labels"], second(student, batch())["labels"])
    assert torch.equal(first.module.queue, second.module.queue)
    assert int(second.module.count) == 3


def test_a_foreign_teacher_answers_changed_texts():
    class Foreign(torch.nn.Module):
        def forward(self, input_ids, attention_mask, output_hidden_states):
            logits = torch.nn.functional.one_hot(input_ids[:, 0] % 3, 3).float()
            return type("Output", (), {"logits": logits, "hidden_states": None})

    stage = Stage(on_the_fly=TokenChange(name="mask_tokens"), training=TRAINING)
    teacher = OnlineTeacher(Foreign(), None, 32, 4)
    objective = built(stage, shape(2, 32, 2), teacher=lambda: teacher, augment=Augmentation(stage.on_the_fly, (), 29))
    assert set(objective(model_of(shape(2, 32, 2), 2), batch())) == {"kl", "on_the_fly"}


def test_the_queue_takes_a_batch_once_and_unmixed():
    stage = Stage(loss=MutualInformation(queue=8), mixup=Mixup(), training=TRAINING)
    objective = built(stage, shape(2, 32, 2))
    first = objective(model_of(shape(2, 32, 2), 2).train(), batch(range(3)))
    assert int(objective.module.count) == 3
    states = online()(batch(range(3)).inputs, hidden=True).hidden_states
    mask = batch(range(3)).mask.unsqueeze(-1)
    layer = objective.module.pairs[0][0]
    pooled = (states[layer] * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(objective.module.queue[0, :3], pooled)
    assert set(first) == {"mi", "mixup"}


def test_what_does_not_go_together_is_refused():
    foreign = OnlineTeacher(torch.nn.Identity(), None, 32, 4)
    with pytest.raises(UsageError, match="mixup"):
        built(Stage(mixup=Mixup(), training=TRAINING), shape(2, 32, 2), teacher=lambda: foreign)
    with pytest.raises(UsageError, match="mixup"):
        built(Stage(mixup=Mixup(), training=TRAINING), shape(2, 32, 2, kind="token"))
    with pytest.raises(UsageError, match="minilmv2"):
        built(Stage(loss=MiniLMv2(), training=TRAINING), shape(2, 32, 2), teacher=lambda: foreign)
    with pytest.raises(UsageError, match="kl"):
        built(Stage(training=TRAINING), shape(2, 32, 2), rows=torch.zeros(6, 1))
