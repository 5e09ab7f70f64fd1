"""What every stage of a run is given: the store, the engine, and the request's first two steps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.data.read import read_data
from edgekd.data.split import Split, TaskData
from edgekd.distill.adapt import adapt
from edgekd.distill.agnostic import distill_encoder, student_frame
from edgekd.distill.engine import Engine
from edgekd.distill.teach import teach
from edgekd.inputs.gather import text_length
from edgekd.latency.machine import usable_cpus
from edgekd.latency.speed_log import SpeedLog
from edgekd.models.folder import model_folder
from edgekd.models.identity import folder_id
from edgekd.models.shape_text import parse_shape
from edgekd.models.teacher import encoder_max_length, has_head, load_body
from edgekd.models.tokenizer import folder_tokenizer
from edgekd.progress import Progress
from edgekd.settings.columns import Columns
from edgekd.settings.distill import Agnostic, MaskedLM
from edgekd.settings.profile import Profile
from edgekd.settings.task import TaskSpec
from edgekd.store import Artefact, Store


@dataclass(frozen=True)
class Session:
    """Where finished steps are kept, and where computing happens.

    Attributes:
        engine: Device, threads and progress.
    """

    store: Store
    engine: Engine

    @cached_property
    def log(self) -> SpeedLog:
        """The speed log of this machine, in the store's folder."""
        return SpeedLog.of_this_machine(self.store.speed_folder)

    @staticmethod
    def open(store: Store, progress: Progress) -> Session:
        """Train on every CPU that this process may use, OMP_NUM_THREADS at most, or on the GPU if there is one."""
        asked = os.environ.get("OMP_NUM_THREADS", "")
        threads = min(usable_cpus(), int(asked)) if asked.isdecimal() and int(asked) else usable_cpus()
        return Session(store, Engine.detect(threads, progress))


def read(progress: Progress, source: str, task: TaskSpec | None, columns: Columns, hub_config: str | None) -> TaskData:
    """Read the user's data and say what was done to them."""
    data = read_data(source, task=task, columns=columns, hub_config=hub_config)
    rows = ", ".join(f"{len(split)} {split.name}" for split in data.splits)
    progress.say(f"data: {data.task.name}, {len(data.labels)} labels; {rows}")
    for note in data.notes:
        progress.say(f"data: {note}")
    return data


def teach_from(
    session: Session, encoder: str, data: TaskData, profile: Profile, soft: NDArray[np.float32] | None = None
) -> Artefact:
    """Fine-tune a teacher from an encoder (folder or hub id) and labelled data, or probabilities (texts, labels).

    Raises:
        UsageError: There is no such encoder, or it takes fewer tokens than asked for.
        UnavailableError: A hub id, and the hub cannot be reached.
    """
    folder = model_folder(encoder)
    if has_head(folder):
        session.engine.progress.say(
            f"{encoder} is a fine-tuned classifier: its head stays behind, a new one is trained"
        )
    tokenizer = folder_tokenizer(folder)
    splits = (data.train, data.unlabeled)
    length = text_length(profile.workload.max_length, encoder_max_length(folder), encoder, tokenizer, splits)
    identity, spec = folder_id(folder), profile.teach
    if isinstance(spec.adapt, MaskedLM):
        adapted = adapt(session.store, session.engine, folder, identity, data, length, spec.adapt, spec.seed)
        before, after = adapted.result["held_out_before"], adapted.result["held_out_after"]
        session.engine.progress.say(f"adapt: a hidden word costs {before:.2f} nats before, {after:.2f} after")
        folder, identity = adapted.path, adapted.id
    return teach(session.store, session.engine, folder, identity, data, length, spec, soft)


def distill_encoder_from(
    session: Session,
    encoder: str,
    texts: Sequence[str],
    student: str,
    max_length: int | Literal["auto"],
    spec: Agnostic,
) -> Artefact:
    """Distil a general encoder of a shape such as "6x384x1536h12" from an encoder folder and raw texts.

    Raises:
        UsageError: Folder, shape, length and loss do not go together.
        DataError: Too few texts.
    """
    teacher = load_body(encoder)
    shape = parse_shape(student, student_frame(teacher))
    length = text_length(max_length, teacher.max_length, encoder, teacher.tokenizer, [Split("text", list(texts))])
    return distill_encoder(
        session.store, session.engine, teacher, folder_id(teacher.folder), texts, length, shape, spec
    )
