from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edgekd.distill.losses.attention import attention_loss, map_mse, minilm, minilmv2
from edgekd.distill.mappings import emd_weights
from edgekd.errors import UsageError
from edgekd.settings.losses import AttentionMaps, LayerMapping, MiniLM, MiniLMv2

LENGTHS, TOKENS = (5, 2, 6, 1), 6


def relations(width, seed):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(len(LENGTHS), TOKENS, width, generator=generator) for _ in range(3))


@pytest.fixture
def mask():
    return (torch.arange(TOKENS) < torch.tensor(LENGTHS)[:, None]).long()


def row(a, b, text, head, heads, token):
    """Scores of one token against every token of its text, in plain numbers."""
    size = a.shape[-1] // heads
    part = slice(head * size, (head + 1) * size)
    query = a[text, token, part].tolist()
    keys = [b[text, other, part].tolist() for other in range(LENGTHS[text])]
    return [sum(x * y for x, y in zip(query, key, strict=True)) / math.sqrt(size) for key in keys]


def softmax(scores):
    top = max(scores)
    parts = [math.exp(score - top) for score in scores]
    return [part / sum(parts) for part in parts]


def naive_kl(teacher, student, heads):
    """The formula of MiniLMv2, loop by loop; teacher and student are (A, B)."""
    total = 0.0
    for text, length in enumerate(LENGTHS):
        for head in range(heads):
            for token in range(length):
                p, q = (softmax(row(a, b, text, head, heads, token)) for a, b in (teacher, student))
                kl = sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
                total += kl / (heads * length * len(LENGTHS))
    return total


def naive_maps(teacher, student, teacher_heads, student_heads):
    total = 0.0
    for text, length in enumerate(LENGTHS):
        for token in range(length):
            t = [row(*teacher[:2], text, head, teacher_heads, token) for head in range(teacher_heads)]
            s = [row(*student[:2], text, head, student_heads, token) for head in range(student_heads)]
            if teacher_heads != student_heads:
                t, s = ([[sum(column) / len(x) for column in zip(*x, strict=True)]] for x in (t, s))
            for a, b in zip(t, s, strict=True):
                errors = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
                total += errors / (len(t) * length**2 * len(LENGTHS))
    return total


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_minilmv2_equals_the_naive_loops(mask, heads):
    teacher, student = relations(24, 0), relations(16, 1)
    expected = sum(naive_kl((t, t), (s, s), heads) for t, s in zip(teacher, student, strict=True))
    assert expected > 0.1
    assert float(minilmv2(teacher, student, mask, heads, 8)) == pytest.approx(expected, abs=1e-6, rel=1e-6)


def test_minilm_equals_the_naive_loops(mask):
    teacher, student = relations(24, 0), relations(16, 1)
    expected = naive_kl(teacher[:2], student[:2], 4) + naive_kl((teacher[2],) * 2, (student[2],) * 2, 4)
    assert float(minilm(teacher, student, mask, 4)) == pytest.approx(expected, abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("student_heads", [6, 4, 1])
def test_maps_equal_the_naive_loops(mask, student_heads):
    teacher, student = relations(24, 0), relations(student_heads * 2, 1)
    expected = naive_maps(teacher, student, 6, student_heads)
    found = map_mse(teacher, student, mask, 4, 2)
    assert float(found) == pytest.approx(expected, abs=1e-6, rel=1e-6)


def shape(heads, head_size):
    return SimpleNamespace(heads=heads, head_size=head_size)


# A teacher 24 wide, students whose last layer is narrower than their first.
TEACHER, STUDENT = shape((6, 6, 6, 6), 4), shape((6, 4), 4)
SPECS = [
    AttentionMaps(),
    AttentionMaps(mapping=LayerMapping(name="emd")),
    MiniLM(),
    MiniLMv2(relation_heads=4, chunk=3),
    MiniLMv2(),
]


def student_of(spec):
    return shape((6, 6), 4) if isinstance(spec, MiniLM) else STUDENT


def states(of, seed, grad=False):
    made = {i + 1: relations(n * of.head_size, seed + i) for i, n in enumerate(of.heads)}
    if grad:
        made = {layer: tuple(x.clone().requires_grad_() for x in parts) for layer, parts in made.items()}
    return made


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_gradient_reaches_the_student_alone(mask, spec):
    of = student_of(spec)
    loss = attention_loss(spec, TEACHER, of)
    teacher, student = states(TEACHER, 0, grad=True), states(of, 10, grad=True)
    loss(teacher, student, mask).backward()
    assert all(x.grad is None for parts in teacher.values() for x in parts)
    used = 2 if isinstance(spec, AttentionMaps) else 3
    for layer in loss.student_layers:
        for part in student[layer][:used]:
            assert float(part.grad[mask.bool()].abs().max()) > 0
            assert float(part.grad[~mask.bool()].abs().max()) == 0


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_padding_changes_nothing(mask, spec):
    of = student_of(spec)
    loss = attention_loss(spec, TEACHER, of)
    teacher, student = states(TEACHER, 0), states(of, 10)
    before = loss(teacher, student, mask)
    for parts in (*teacher.values(), *student.values()):
        for part in parts:
            part[~mask.bool()] = 1e4
    assert torch.equal(loss(teacher, student, mask), before)
    longer = [
        {i: tuple(torch.nn.functional.pad(x, (0, 0, 0, 3)) for x in parts) for i, parts in each.items()}
        for each in (teacher, student)
    ]
    torch.testing.assert_close(loss(*longer, torch.nn.functional.pad(mask, (0, 3))), before)
    assert not torch.isclose(loss(teacher, student, torch.ones_like(mask)), before)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_text_without_tokens_counts_as_zero(mask, spec):
    of = student_of(spec)
    loss = attention_loss(spec, TEACHER, of)
    teacher, student = states(TEACHER, 0), states(of, 10, grad=True)
    empty = mask.clone()
    empty[0] = 0
    found = loss(teacher, student, empty)
    found.backward()
    assert bool(torch.isfinite(found))
    assert all(bool(torch.isfinite(part.grad).all()) for part in student[loss.student_layers[-1]][:2])


@pytest.mark.parametrize(
    "spec",
    [
        AttentionMaps(mapping=LayerMapping(name="pairs", pairs=((3, 2),))),
        MiniLM(teacher_layer=3),
        MiniLMv2(teacher_layer=3),
    ],
    ids=str,
)
def test_zero_where_the_student_is_the_teacher(mask, spec):
    loss = attention_loss(spec, TEACHER, shape((6, 6), 4))
    teacher = states(TEACHER, 0)
    assert float(loss(teacher, {2: teacher[3]}, mask)) == pytest.approx(0.0, abs=1e-6)
    assert float(loss(teacher, {2: teacher[2]}, mask)) > 0.1


@pytest.mark.parametrize("chunk", [1, 3, 4, 100])
def test_chunks_do_not_matter(mask, chunk):
    found = []
    for size in (8, chunk):
        student = tuple(x.requires_grad_() for x in relations(16, 1))
        loss = minilmv2(relations(24, 0), student, mask, 8, size)
        loss.backward()
        found.append((loss.detach(), *(x.grad for x in student)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


class _Largest(TorchDispatchMode):
    """Keeps the largest number of elements that any tensor made within it had."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numel = max(self.numel, made.numel())
        return made


def test_memory_is_that_of_one_chunk():
    length, heads, chunk, kept = 64, 8, 2, []
    teacher = tuple(torch.randn(1, length, heads) for _ in range(3))
    student = tuple(torch.randn(1, length, heads, requires_grad=True) for _ in range(3))
    keep = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x)
    with _Largest() as largest:
        with keep:
            loss = minilmv2(teacher, student, torch.ones(1, length), heads, chunk)
        loss.backward()
    assert largest.numel == chunk * length**2
    assert max(kept, default=0) < length**2


def test_a_teacher_in_inference_mode_and_half_precision_are_taken(mask):
    loss = attention_loss(MiniLMv2(), TEACHER, STUDENT)
    teacher, student = states(TEACHER, 0), states(STUDENT, 10, grad=True)
    expected = loss(teacher, student, mask)
    with torch.inference_mode():
        frozen = {layer: tuple(x.clone() for x in parts) for layer, parts in teacher.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(frozen, student, mask)
        found.backward()
    assert torch.equal(found, expected)
    half = {layer: tuple(x.bfloat16() for x in parts) for layer, parts in teacher.items()}
    assert loss(half, student, mask).dtype == torch.float32


def test_several_pairs_are_averaged(mask):
    teacher, student = states(TEACHER, 0), states(STUDENT, 10)
    loss = attention_loss(AttentionMaps(mapping=LayerMapping(name="uniform")), TEACHER, STUDENT)
    assert loss.pairs == ((2, 1), (4, 2))
    each = [map_mse(teacher[t], student[s], mask, 4, 4) for t, s in loss.pairs]
    torch.testing.assert_close(loss(teacher, student, mask), sum(each) / 2)


@pytest.mark.parametrize("seed", [0, 20, 40])
def test_emd_weighs_by_the_plan_of_its_own_costs(mask, seed):
    teacher, student = states(TEACHER, seed), states(STUDENT, seed + 10)
    loss = attention_loss(AttentionMaps(mapping=LayerMapping(name="emd")), TEACHER, STUDENT)
    costs = torch.stack(
        [torch.stack([map_mse(teacher[t], student[s], mask, 4, 4) for s in (1, 2)]) for t in (1, 2, 3, 4)]
    )
    torch.testing.assert_close(loss(teacher, student, mask), (emd_weights(costs) * costs).sum())


@pytest.mark.parametrize(("depth", "layer"), [(1, 1), (2, 1), (6, 5), (12, 11), (24, 20)])
def test_the_teacher_layer_that_is_read(depth, layer):
    teacher = shape((6,) * depth, 4)
    loss = attention_loss(MiniLMv2(), teacher, STUDENT)
    assert (loss.teacher_layers, loss.student_layers) == ((layer,), (2,))
    assert attention_loss(MiniLM(), teacher, shape((1, 6), 4)).pairs == ((depth, 2),)
    assert attention_loss(MiniLMv2(teacher_layer=1), teacher, STUDENT).teacher_layers == (1,)


def test_attention_has_no_layer_zero():
    loss = attention_loss(AttentionMaps(mapping=LayerMapping(name="uniform_consecutive")), TEACHER, STUDENT)
    assert loss.teacher_layers == (1, 2, 3, 4)
    assert attention_loss(AttentionMaps(mapping=LayerMapping(name="last")), TEACHER, STUDENT).pairs == ((4, 2),)


@pytest.mark.parametrize(
    ("teacher", "student", "heads"),
    [
        (shape((12,), 64), shape((12,), 32), 48),  # 768 and 384: 48, as MiniLMv2 has it
        (shape((12,), 64), shape((5,), 64), 32),  # 768 and 320
        (shape((12,), 32), shape((7,), 32), 16),  # 384 and 224: 28 would leave 8, 16 is the most that divides both
        (shape((2,), 2), shape((1,), 3), 1),
    ],
)
def test_relation_heads_of_our_own_choice(teacher, student, heads):
    assert attention_loss(MiniLMv2(), teacher, student).compare.keywords["heads"] == heads


@pytest.mark.parametrize(
    ("spec", "teacher", "student", "message"),
    [
        (MiniLMv2(), None, STUDENT, "loss minilmv2: the teacher's architecture"),
        (AttentionMaps(), None, STUDENT, "loss attention_maps: the teacher's architecture"),
        (
            MiniLMv2(relation_heads=12),
            TEACHER,
            STUDENT,
            "relation_heads 12 does not divide both widths, 24 of the teacher's layer 3 and 16 of .* 1, 2, 4, 8$",
        ),
        (MiniLMv2(relation_heads=16), TEACHER, STUDENT, "relation_heads 16"),
        (MiniLMv2(teacher_layer=5), TEACHER, STUDENT, "loss minilmv2: teacher_layer 5 is not there; .* 1 to 4"),
        (MiniLM(teacher_layer=5), TEACHER, STUDENT, "loss minilm: teacher_layer 5"),
        (MiniLM(), TEACHER, STUDENT, "loss minilm: the teacher's layer 4 has 6 heads, the student's last 4"),
        (
            AttentionMaps(mapping=LayerMapping(name="pairs", pairs=((0, 1),))),
            TEACHER,
            STUDENT,
            "mapping pairs: layer 0 of the teacher",
        ),
        (
            AttentionMaps(mapping=LayerMapping(name="pairs", pairs=((1, 3),))),
            TEACHER,
            STUDENT,
            "mapping pairs: layer 3 of the student",
        ),
    ],
)
def test_what_cannot_be_is_refused(spec, teacher, student, message):
    with pytest.raises(UsageError, match=message):
        attention_loss(spec, teacher, student)
