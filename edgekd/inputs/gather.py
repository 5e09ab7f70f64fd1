"""From the user's teacher and text to everything the later stages share: tokens, teacher outputs, judged splits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from edgekd.data.augment.apply import Augmented
from edgekd.data.augment.consistency import consistent, consistent_tags
from edgekd.data.outputs import Outputs
from edgekd.data.split import Split, TaskData
from edgekd.data.transfer_set import TransferSet
from edgekd.distill.batches import fingerprint
from edgekd.distill.engine import Engine
from edgekd.distill.label import label, logits_of
from edgekd.distill.on_the_fly import augmentation
from edgekd.distill.scoring import Judged
from edgekd.distill.student import Lesson, lesson
from edgekd.errors import DataError, UsageError
from edgekd.inputs.reading import check_reading
from edgekd.inputs.transfer_stage import Embedder, build_transfer_set
from edgekd.models.checkpoint import load_checkpoint
from edgekd.models.identity import folder_id
from edgekd.models.teacher import PROBLEMS, Encoder, Teacher
from edgekd.runtime.encodings import Encodings
from edgekd.runtime.tags import OUTSIDE, scheme_of, unknown_scheme
from edgekd.runtime.tokenise import token_lengths
from edgekd.settings.distill import Distill
from edgekd.settings.profile import Profile
from edgekd.settings.task import WordTask
from edgekd.store import Store
from edgekd.tasks.base import Task, align_labels
from edgekd.tasks.build import build_task, task_class

# `max_length: auto` covers this share of the texts and is rounded up to a multiple of this.
_COVERED, _ROUNDED = 99.9, 8

# What tokenizers call a token that they do not know; and the share of such tokens from which it is said.
_UNKNOWN, _MOST_UNKNOWN = ("[UNK]", "<unk>"), 0.05


@dataclass(frozen=True)
class Inputs:
    """What the stages after reading share.

    Attributes:
        profile: The request, with `max_length` resolved.
        data: The user's data.
        task: The task, its labels in the order of the teacher's logits.
        teacher_id: Identity of its content.
        max_length: Tokens a text.
        transfer: The transfer set.
        encodings: Its tokens.
        rows: The teacher's logits on it, (rows, labels).
        validation: Judged split to choose by.
        test: Judged split to report on.
        validation_rows: The teacher's logits on validation.
        test_rows: The teacher's logits on test.
        reader: Brings the tokenizer that the tokens were made by: the teacher, but in `own`.
        checkpoint: The encoder that the student starts from, where `distill.init` names one.
        outputs: What the teacher was made of, where it was made of another's outputs.
        own: The same as the student reads it, where it has a tokenizer of its own: `max_length` and all tokens.
    """

    profile: Profile
    data: TaskData
    task: Task
    teacher: Teacher
    teacher_id: str
    max_length: int
    transfer: TransferSet
    encodings: Encodings
    rows: np.ndarray
    validation: Judged
    test: Judged
    validation_rows: np.ndarray
    test_rows: np.ndarray
    reader: Encoder
    checkpoint: Encoder | None = None
    outputs: Outputs | None = None
    own: Inputs | None = None

    @property
    def of_student(self) -> Inputs:
        """The same as the student reads it."""
        return self if self.own is None else self.own

    @property
    def tags(self) -> str:
        """The scheme of the tags, where words are answered; else empty."""
        return self.task.scheme and (self.data.tag_scheme or self.task.scheme)

    @property
    def metric_name(self) -> str:
        """What is reported: the task's metric, or agreement with the teacher where there are no gold labels."""
        return "agreement with the teacher" if self.test.agreement else self.task.metric_name

    def lesson(self) -> Lesson:
        """What the student learns from."""
        return lesson(
            self.task, self.transfer, self.encodings, self.rows, self.validation, self.teacher, self.teacher_id
        )


def prepare(
    store: Store,
    engine: Engine,
    profile: Profile,
    teacher: Teacher,
    data: TaskData,
    *,
    trust_remote_code: bool = False,
) -> Inputs:
    """Tokenise everything and have the teacher label it, once.

    Raises:
        DataError: The labels of teacher and data do not match, or there is nothing to learn from or to judge on.
        UsageError: `--max-length` is beyond the teacher's, task and teacher do not match, or its tokenizer has no mask
            for a stage's `on_the_fly`.
    """
    task = _task(teacher, data)
    if profile.search.always_distill and teacher.hosted is None and profile.distill.init.folder is None:
        raise UsageError(f"--always-distill: {no_student(teacher)}; or leave --always-distill out")
    for stage in profile.distill.stages:
        # Refused now, not when the stage's turn comes.
        augmentation(stage.on_the_fly, teacher)
    if not profile.distill.stages[-1].on_outputs:
        engine.progress.say("warning: the last distill stage trains no task head; let one on logits (kl) follow")
    max_length = resolve_length(profile, teacher, data)
    check_reading(teacher, data, max_length, trust_remote_code=trust_remote_code)
    teacher_id = folder_id(teacher.folder)
    engine.progress.step("transfer set")
    transfer = build_transfer_set(
        store, engine, data, profile.transfer, profile.distill.seed, Embedder(teacher, teacher_id, max_length)
    )
    encodings = task.encode(teacher.tokenizer, transfer.split, max_length)
    if warning := unknown_tokens(teacher.tokenizer, encodings):
        engine.progress.say(f"warning: {warning}")
    rows = logits_of(
        label(store, engine, teacher, teacher_id, encodings, "transfer", precision=engine.native_precision)
    )
    if profile.transfer.consistent and transfer.augmented is not None:
        transfer, encodings, rows = _consistent(task, transfer, encodings, rows)
    judged: list[tuple[Judged, np.ndarray]] = []
    for split, name in ((data.validation, "validation"), (data.test, "test")):
        if split is None or not len(split):
            raise DataError(f"no {name} texts: give more rows, or a file {name}.jsonl")
        tokens = task.encode(teacher.tokenizer, split, max_length)
        teacher_rows = logits_of(label(store, engine, teacher, teacher_id, tokens, name))
        judged.append((_judged(task, split, tokens, teacher_rows), teacher_rows))
    inputs = Inputs(
        _resolved(profile, max_length), data, task, teacher, teacher_id, max_length, transfer, encodings, rows,
        judged[0][0], judged[1][0], judged[0][1], judged[1][1], teacher,
    )  # fmt: skip
    return _with_checkpoint(inputs, profile)


def no_student(teacher: Teacher) -> str:
    """Why a foreign teacher has no students of its own, and what helps."""
    return (
        f"no student can be cut out of a {teacher.model.config.model_type} teacher: name a compact encoder to start "
        "from, as distill.init: {name: checkpoint, folder: ./encoder} in a profile"
    )


def unknown_tokens(tokenizer: Tokenizer, encodings: Encodings) -> str:
    """What is to be said of the tokens that the teacher does not know; empty where they are few."""
    ids = [i for name in _UNKNOWN if (i := tokenizer.token_to_id(name)) is not None]
    unknown = np.isin(encodings.input_ids, ids)
    if unknown.mean() <= _MOST_UNKNOWN:
        return ""
    # Of whole texts, where it is a language and not a letter that is unknown.
    texts = np.add.reduceat(unknown, encodings.offsets[:-1]) >= encodings.lengths / 2
    return (
        f"{100 * unknown.mean():.0f}% of the tokens are unknown to the teacher's tokenizer, and most of "
        f"{int(texts.sum())} texts: is it text of another language?"
    )


def _consistent(
    task: Task, transfer: TransferSet, encodings: Encodings, rows: np.ndarray
) -> tuple[TransferSet, Encodings, np.ndarray]:
    """Leave out the augmented texts of which the teacher says something else than of their originals."""
    made = transfer.augmented
    assert made is not None
    same = _same_answers(task, task.answers(task.decide(rows), encodings), rows, made)
    kept, stay = transfer.consistent(same, "the teacher says something else of them than of their originals")
    return kept, encodings.take(stay), rows[encodings.row_slots(stay)]


def _same_answers(task: Task, answers: Sequence[Any], rows: np.ndarray, made: Augmented) -> np.ndarray:
    """Which augmented texts, the last ones, have their original's answer, (augmented,)."""
    before = len(answers) - len(made)
    pairs = [(answers[parent], new) for parent, new in zip(made.parents.tolist(), answers[before:], strict=True)]
    if made.alignment is not None:
        # A joint answer begins with the intent, which is no word's.
        first = int(task.head == "joint")
        tags = [answer[first:] for answer in answers]
        same = consistent_tags(tags[:before], tags[before:], made.parents, made.alignment, task.scheme)
        return same & np.array([old[:first] == new[:first] for old, new in pairs], dtype=np.bool_)
    if task.output == "flags":
        return np.array([old == new for old, new in pairs], dtype=np.bool_)
    return consistent(rows[:before], rows[before:], made.parents)


def _resolved(profile: Profile, max_length: int) -> Profile:
    return profile.model_copy(update={"workload": profile.workload.model_copy(update={"max_length": max_length})})


def _with_checkpoint(inputs: Inputs, profile: Profile) -> Inputs:
    """The inputs with the encoder that `distill.init` names, if any, and as that reads them."""
    init = profile.distill.init
    if init.folder is None:
        return inputs
    checkpoint = load_checkpoint(init.folder)
    if _same_tokenizer(inputs, checkpoint):
        if inputs.max_length > checkpoint.max_length:
            raise UsageError(
                f"distill.init.folder {init.folder} takes at most {checkpoint.max_length} tokens, the texts have "
                f"{inputs.max_length}: give --max-length {checkpoint.max_length}"
            )
        return replace(inputs, checkpoint=checkpoint)
    _refuse_across_tokenizers(init.folder, profile.distill, inputs.task)
    length = resolve_length(profile, checkpoint, inputs.data)
    tokens = [
        inputs.task.encode(checkpoint.tokenizer, split, length)
        for split in (inputs.transfer.split, inputs.validation.split, inputs.test.split)
    ]
    own = replace(
        inputs, profile=_resolved(profile, length), max_length=length, reader=checkpoint, checkpoint=checkpoint,
        encodings=tokens[0], validation=replace(inputs.validation, encodings=tokens[1]),
        test=replace(inputs.test, encodings=tokens[2]),
    )  # fmt: skip
    return replace(inputs, checkpoint=checkpoint, own=own)


def _same_tokenizer(inputs: Inputs, other: Encoder) -> bool:
    """Whether both give the same ids: equal vocabularies, and equal tokens of every text of the transfer set."""
    if inputs.teacher.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        return False
    tokens = inputs.task.encode(other.tokenizer, inputs.transfer.split, inputs.max_length)
    return fingerprint(tokens) == fingerprint(inputs.encodings)


def _refuse_across_tokenizers(folder: str, distill: Distill, task: Task) -> None:
    """Refuse what compares token with token where teacher and student do not have the same tokens."""
    why = f"the tokenizer of distill.init.folder {folder} is not the teacher's"
    if task.head != "sequence":
        raise UsageError(f"{why}: for {task.spec.name} take an encoder with the teacher's tokenizer")
    for i, stage in enumerate(distill.stages):
        if stage.inside:
            raise UsageError(f"distill.stages.{i}.loss {stage.title}: {why}; only losses on logits or labels remain")
        if stage.mixup is not None:
            raise UsageError(f"distill.stages.{i}.mixup: {why}; leave mixup out")
        if stage.on_the_fly is not None:
            raise UsageError(f"distill.stages.{i}.on_the_fly: {why}; leave on_the_fly out")


def _task(teacher: Teacher, data: TaskData) -> Task:
    """The task with the data's names for the teacher's classes."""
    if (task_class(data.task).head, data.task.output) != (teacher.head, teacher.output):
        silent = teacher.head == "sequence" and teacher.model.config.problem_type is None
        mend = (
            f'write "problem_type": "{PROBLEMS[data.task.output]}" into its config.json if that is how it was trained'
            if silent and task_class(data.task).head == "sequence"
            else f"if that is how they were read, add --task {teacher.task}"
        )
        raise UsageError(
            f"--teacher {teacher.folder} does {teacher.task}, but the data are for {data.task.name}: {mend}"
        )
    _require_one_scheme(teacher, data)
    labels = list(teacher.labels)
    if data.labels and data.task.output != "value":
        for column, name in zip(align_labels(teacher.labels, data.labels), data.labels, strict=True):
            labels[column] = name
    return build_task(data.task, labels)


def _require_one_scheme(teacher: Teacher, data: TaskData) -> None:
    """Refuse tags that are marked otherwise in the data than by the teacher, or in a way that is not read."""
    if not isinstance(data.task, WordTask):
        return
    theirs, ours = _tags(teacher.labels, teacher.head), _tags(data.labels, teacher.head)
    if why := unknown_scheme(theirs):
        raise UsageError(f"--teacher {teacher.folder}, id2label of its config.json: {why}")
    first, second = scheme_of(theirs), scheme_of(ours)
    # I- alone is BIO without spans that touch.
    near = {first, second} == {"BIO", "IO"} and all(tag == OUTSIDE or tag.startswith(("B-", "I-")) for tag in ours)
    if ours and first != second and not near:
        raise UsageError(f"the data's tags are {second}, the teacher's are {first}: write the data's as the teacher's")


def _tags(labels: Sequence[str], head: str) -> tuple[str, ...]:
    """The tags among labels, which follow the intents where there are any."""
    return tuple(labels[labels.index(OUTSIDE) :]) if head == "joint" and OUTSIDE in labels else tuple(labels)


def _judged(task: Task, split: Split, encodings: Encodings, teacher_rows: np.ndarray) -> Judged:
    if split.has_gold:
        return Judged(split, encodings, task.gold(split))
    answers = task.answers(task.decide(teacher_rows), encodings)
    return Judged(split, encodings, answers, agreement=True)


def resolve_length(profile: Profile, reader: Encoder, data: TaskData) -> int:
    """Tokens a text: as asked, or what covers 99.9% of train and unlabeled, rounded up to 8; the model is the cap.

    Raises:
        UsageError: More was asked for than the reader has positions.
    """
    who = "the teacher" if isinstance(reader, Teacher) else str(reader.folder)
    splits = (data.train, data.unlabeled)
    return text_length(profile.workload.max_length, reader.max_length, who, reader.tokenizer, splits)


def text_length(
    asked: Literal["auto"] | int, limit: int, who: str, tokenizer: Tokenizer, splits: Iterable[Split | None]
) -> int:
    """Tokens a text: as asked, or what covers 99.9% of the texts, rounded up to 8 (128 without any), at most `limit`.

    Raises:
        UsageError: More was asked for than `who` takes.
    """
    if asked != "auto":
        if asked > limit:
            raise UsageError(f"--max-length {asked}: {who} takes at most {limit} tokens; ask for no more")
        return asked
    lengths = [token_lengths(tokenizer, split) for split in splits if split is not None and len(split)]
    if not lengths:
        return min(128, limit)
    return min(round_up_length(np.concatenate(lengths)), limit)


def round_up_length(lengths: np.ndarray) -> int:
    """The length that covers 99.9% of the texts, rounded up to a multiple of 8."""
    covered = int(np.percentile(lengths, _COVERED, method="higher"))
    return -(-covered // _ROUNDED) * _ROUNDED
