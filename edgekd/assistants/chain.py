"""The chain from teacher to student: which assistants there are, their training, and what they teach the student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgekd.assistants.choose import (
    Gap,
    by_exhaustion,
    by_ratio,
    by_tradeoff,
    fixed,
    none_because,
    paid,
    recorded,
    scored,
    standard_error,
)
from edgekd.distill.elastic import ElasticRun, mean_step, train_elastic
from edgekd.distill.label import label, logits_of
from edgekd.distill.student import Lesson, Start, distill, lesson, load_student, start_of
from edgekd.inputs.gather import Inputs
from edgekd.models.initialize import slice_again, slice_weights
from edgekd.plan.planner import Planner
from edgekd.plan.weights import importance_of
from edgekd.records.assistants import Assistant, Assistants, Choice
from edgekd.records.plan import Candidate, Plan
from edgekd.session import Session
from edgekd.settings.distill import Distill
from edgekd.settings.plan import AssistantStrategy
from edgekd.settings.shape import EncoderShape, Slice
from edgekd.store import Artefact

ELASTIC_LENGTH = 1.4
"""Steps of an elastic run over those of a student alone: each slice but the first has its share of them."""

REFRESH = 0.1
"""Share of the steps that a slice of an elastic run is trained on for, alone."""

REFRESH_RATE = 0.4
"""Share of the learning rate that it has then: it begins near its end, and at the whole rate it unlearns."""

# Forward and backward pass of a training step, in forward passes.
_STEP = 3.0


@dataclass(frozen=True)
class Chain:
    """What stands between a teacher and its student.

    Attributes:
        start: The student before training.
        lesson: What the student learns from: the last assistant's answers, or the teacher's.
        found: How the assistants were chosen; None where no student is cut out of the teacher.
        trained: The stages of each assistant that was trained alone, and the elastic run, by name.
    """

    start: Start
    lesson: Lesson
    found: Assistants | None = None
    trained: dict[str, list[Artefact]] = field(default_factory=dict)

    @property
    def taken(self) -> tuple[Assistant, ...]:
        """The assistants, the largest first."""
        return () if self.found is None else self.found.choice.taken


def make_chain(session: Session, inputs: Inputs, candidate: Candidate, start: Start) -> Chain:
    """Choose the assistants as `distill.assistants` says, and train them.

    Args:
        start: It as it is cut out of the teacher.

    Raises:
        UsageError: A fixed chain does not go with teacher and student.
    """
    spec = inputs.profile.distill
    name = spec.assistants.name
    if name == "none" or candidate.choice is None or spec.init.name != "slice":
        return Chain(start, inputs.lesson())
    return _Chains(session, inputs, candidate, start).make()


def check_chain(planner: Planner, plan: Plan) -> None:
    """Refuse a chain of the user's own that does not go with the student that was planned.

    Raises:
        UsageError: See `fixed`.
    """
    spec, choice = planner.inputs.profile.distill.assistants, plan.choice
    if spec.name != "fixed" or choice is None or choice.choice is None or choice.shape is None:
        return
    fixed(gap_of(planner.session, planner.inputs, choice.choice, choice.shape.hidden), spec.shapes)


def gap_of(session: Session, inputs: Inputs, student: Slice, width: int) -> Gap:
    """What lies between the teacher and a student of this width that keeps this of it."""
    assert inputs.teacher.hosted is not None
    layers = importance_of(session, inputs).importance.layers
    return Gap(inputs.teacher.hosted[0], student, width, tuple(int(i) for i in np.argsort(-layers, kind="stable")))


def lengthened(spec: Distill, factor: float) -> Distill:
    """The same with a last stage that is so many times as long."""
    *first, last = spec.stages
    training = last.training.model_copy(update={"epochs": factor * last.training.epochs})
    steps = None if last.max_steps is None else max(1, round(factor * last.max_steps))
    last = last.model_copy(update={"training": training, "max_steps": steps})
    return spec.model_copy(update={"stages": (*first, last)})


def refreshing(spec: Distill) -> Distill:
    """How a slice that was cut out of an elastic run is trained on: a short and gentle last stage."""
    (*_, last) = lengthened(spec, REFRESH).stages
    training = last.training.model_copy(update={"learning_rate": REFRESH_RATE * last.training.learning_rate})
    stage = last.model_copy(update={"training": training})
    return spec.model_copy(update={"stages": (stage,), "near_rate": 1.0})  # however near: the rate is gentle already


def training_flops(inputs: Inputs, spec: Distill, shape: EncoderShape, stages: Sequence[Artefact]) -> float:
    """Floating-point operations in the layers of what was trained: its steps, its looks, and a teacher beside it.

    Args:
        inputs: The texts, of which the mean length counts.
        spec: The stages as they were asked for.
    """
    total = 0.0
    for stage, made in zip(spec.stages, stages, strict=True):
        texts = made.result["steps"] * stage.training.batch_size
        total += _STEP * texts * text_flops(inputs, shape, whole=stage.inside)
        total += len(made.result["points"]) * len(inputs.validation.encodings) * text_flops(inputs, shape)
        if stage.online:
            assert inputs.teacher.hosted is not None
            total += texts * text_flops(inputs, inputs.teacher.hosted[0], whole=True)
    return total


def elastic_flops(inputs: Inputs, run: ElasticRun, batch_size: int) -> float:
    """Of an elastic run: its steps, its looks, and the last score of every slice."""
    shape = run.base.config.encoder_shape

    def size(choice: Slice) -> float:
        return text_flops(inputs, shape.model_copy(update={"heads": choice.heads, "ffn": choice.ffn}))

    sizes = [size(choice) for choice in run.slices]
    result, validation = run.artefact.result, len(inputs.validation.encodings)
    steps = _STEP * result["steps"] * batch_size * mean_step(sizes)
    return float(steps + validation * (len(result["points"]) * (sizes[0] + sizes[-1]) + sum(sizes)))


def finetune_flops(inputs: Inputs, spec: Distill) -> float:
    """Of training the teacher for as many steps as the last stage asks, with its looks: the unit of what is spent."""
    assert inputs.teacher.hosted is not None
    stage = spec.stages[-1]
    texts = stage.training.epochs * len(inputs.encodings)
    if stage.max_steps is not None:
        texts = min(texts, stage.max_steps * stage.training.batch_size)
    looks = stage.training.evaluations * len(inputs.validation.encodings)
    # A fine-tune computes every token of every layer: that is how encoders are trained elsewhere.
    return (_STEP * texts + looks) * text_flops(inputs, inputs.teacher.hosted[0], whole=True)


def text_flops(inputs: Inputs, shape: EncoderShape, *, whole: bool = False) -> float:
    """Of a text's forward pass at the mean length, for its logits or, `whole`, for its hidden states."""
    return shape.flops(round(float(np.mean(inputs.encodings.lengths))), whole=whole)


class _Chains:
    def __init__(self, session: Session, inputs: Inputs, candidate: Candidate, start: Start) -> None:
        assert inputs.teacher.hosted is not None
        assert candidate.choice is not None
        self.session, self.inputs, self.start, self.spec = session, inputs, start, inputs.profile.distill
        self.hosted, self.student = inputs.teacher.hosted, candidate.choice
        self.importance = importance_of(session, inputs).importance
        self.gap = gap_of(session, inputs, self.student, start.shape.hidden)
        self.narrow = start.shape.hidden < self.hosted[0].hidden
        self.run: ElasticRun | None = None
        self.trained: dict[str, list[Artefact]] = {}
        self.flops: dict[str, float] = {}

    def make(self) -> Chain:
        choice = self._choose()
        taken = choice.taken
        what = ", then ".join(a.describe() for a in taken) or "none"
        self.session.engine.progress.say(f"assistants ({self.spec.assistants.name}): {what}; {choice.reason}")
        start, lesson = self._through(taken)
        found = Assistants(
            strategy=self.spec.assistants.name,
            student_share=self.gap.share,
            choice=choice,
            flops=self.flops,
            finetune_flops=finetune_flops(self.inputs, self.spec),
        )
        return Chain(start, lesson, found, self.trained)

    def _choose(self) -> Choice:
        spec, gap = self.spec.assistants, self.gap
        if spec.name == "fixed":
            return fixed(gap, spec.shapes)
        if spec.name == "auto":
            task = self.inputs.task.spec.name
            found = recorded(paid(), task, gap.share)
            if found is None:
                kept = f"{100 * gap.share:.0f}%"
                return none_because(gap, f"no gain is on record for {task} and students that keep {kept}")
            chosen = by_ratio(gap)
            reason = f"{found.gain:+.1f} points on record ({found.source}); {chosen.reason}"
            return chosen.model_copy(update={"reason": reason})
        candidates = gap.candidates()
        if spec.name == "ratio" or not candidates:
            return by_ratio(gap)
        if spec.name == "lambda":
            return self._by_tradeoff(spec, candidates)
        reached = [a.model_copy(update={"reached": self._reached(a)}) for a in candidates]
        return by_exhaustion(gap, reached)

    def _by_tradeoff(self, spec: AssistantStrategy, candidates: tuple[Assistant, ...]) -> Choice:
        if self.narrow:
            chosen = by_ratio(self.gap)
            reason = f"a student of less width is no slice of an elastic run; {chosen.reason}"
            return chosen.model_copy(update={"reason": reason})
        session, inputs, task = self.session, self.inputs, self.inputs.task
        stage = lengthened(self.spec, ELASTIC_LENGTH).schedule(kept=0.0)[-1]  # the rate that its smallest slice needs
        slices = [self.student, *(a.choice for a in candidates)]
        run = train_elastic(
            session.store, session.engine, self.hosted, self.importance, slices, task, inputs.lesson(), stage,
            self.spec.seed, f"assistants: elastic run of {len(slices)} slices",
        )  # fmt: skip
        self.run, self.trained["elastic run"] = run, [run.artefact]
        self.flops["elastic run"] = elastic_flops(inputs, run, stage.training.batch_size)
        counts = run.counts[1:]

        def error(i: int, j: int) -> float:
            return standard_error(task.score, counts[i], counts[j])

        known = scored(candidates, run.scores[1:])
        return by_tradeoff(self.gap, known, spec.tradeoff, error, len(inputs.validation.encodings))

    def _reached(self, assistant: Assistant) -> float:
        """Validation metric of the student that is trained through this assistant."""
        start, lesson = self._through(self.gap.beyond(assistant))
        session, title = self.session, f"assistants: student through {100 * assistant.share:.0f}%"
        made = distill(session.store, session.engine, start, self.inputs.task, lesson, self.spec, title)
        name = f"student through {assistant.describe()}"
        self.flops[name] = training_flops(self.inputs, self.spec, start.shape, made)
        return float(made[-1].result["validation"])

    def _through(self, taken: Sequence[Assistant]) -> tuple[Start, Lesson]:
        """Train the assistants, each taught by the one before; the student before training, and its lesson."""
        session, lesson = self.session, self.inputs.lesson()
        before: tuple[Assistant, Start] | None = None
        for number, assistant in enumerate(taken, 1):
            start = self._cut(assistant, before)
            if before is not None or not self._in_run(assistant):
                title = f"assistant {number} of {len(taken)}: distil {100 * assistant.share:.0f}%"
                made = distill(session.store, session.engine, start, self.inputs.task, lesson, self.spec, title)
                name = f"assistant of {assistant.describe()}"
                self.trained[name] = made
                self.flops[name] = training_flops(self.inputs, self.spec, start.shape, made)
                start = start_of(load_student(made[-1].path), start.labels)
            lesson = self._taught_by(start)
            before = (assistant, start)
        if before is None or self.narrow:
            return self.start, lesson
        return self._cut(self.gap.assistant(self.student), before), lesson

    def _cut(self, wanted: Assistant, before: tuple[Assistant, Start] | None) -> Start:
        """First weights: out of the elastic run, else out of the assistant before, else out of the teacher."""
        if self.run is not None and self._in_run(wanted):
            return self.run.cut(wanted.choice, self.start.labels)
        if before is None:
            return Start(*slice_weights(*self.hosted, self.importance, wanted.choice), self.start.labels)
        old, trained = before
        cut = slice_again(trained.shape, trained.weights, self.importance, old.choice, wanted.choice)
        assert cut is not None  # each holds the next: `Gap` makes them so, and `fixed` checks it
        return Start(*cut, trained.labels)

    def _in_run(self, assistant: Assistant) -> bool:
        """Whether the elastic run trained it; the first of a chain may be larger than all that it did."""
        return self.run is not None and assistant.choice in self.run.slices

    def _taught_by(self, assistant: Start) -> Lesson:
        """The lesson with an assistant as its teacher."""
        inputs, shape = self.inputs, assistant.shape
        teacher = replace(
            inputs.teacher, model=assistant.model(), hosted=(shape, assistant.weights), depth=shape.depth,
            heads=max(shape.heads), ffn=max(shape.ffn),
        )  # fmt: skip
        session, encodings = self.session, inputs.encodings
        precision = session.engine.native_precision
        labelled = label(
            session.store,
            session.engine,
            teacher,
            assistant.id,
            encodings,
            "transfer",
            "assistant",
            precision=precision,
        )
        name = f"answers of {shape.describe()}"
        self.flops[name] = len(encodings) * text_flops(inputs, shape)
        return lesson(
            inputs.task, inputs.transfer, encodings, logits_of(labelled), inputs.validation, teacher, assistant.id
        )
