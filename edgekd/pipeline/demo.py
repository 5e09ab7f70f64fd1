"""The embedded demo as a request: synthetic data, and a teacher fine-tuned on the spot."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.data.demo.generate import GRAMMAR, demo_encoder, generate_demo, tfidf_baseline
from edgekd.data.read import read_data
from edgekd.data.split import TaskData
from edgekd.settings.profile import Profile, override
from edgekd.settings.request import Request
from edgekd.store import Artefact, Store

if TYPE_CHECKING:
    from edgekd.session import Session

VERSION = 2

# Inside the artefact, whose manifest is none of the user's files.
_FILES = "data"

# What the demo asks for beyond the profile: a few minutes on a laptop, and the whole road even where the teacher fits.
_SETTINGS = {
    "search.always_distill": True,
    # As good as three epochs in batches of 32 at 2e-4, in three quarters of the time.
    "teach.min_steps": 1,
    "teach.training.epochs": 2.25,
    "teach.training.batch_size": 24,
    "teach.training.learning_rate": 3e-4,
    "teach.training.evaluations": 2,
    "teach.training.freeze_words": True,
    "search.widths": [1.0],
    "search.finalists": 6,
    # Texts of one grammar are near-equal to each other, and each slot value still teaches.
    "transfer.near_equal": 1.0,
    "transfer.max_texts": 4000,
    # A laptop is never alone: what the plan measures and what is judged minutes later differ by a tenth and more.
    "budget.headroom": 0.2,
    # On 500 validation texts a point is five answers: chance would bring floats, and latency, back.
    "accept.max_drop": 2.0,
    "distill.stages.0.training.epochs": 1.25,
    "distill.stages.0.training.evaluations": 2,
}


def demo_profile(profile: Profile) -> Profile:
    """The profile with the demo's settings."""
    return override(profile, _SETTINGS)


def kept_request(request: Request) -> Request:
    """The request as its bundle keeps it: the demo's with the demo's settings, which make it again."""
    return request.model_copy(update={"profile": demo_profile(request.profile)}) if request.demo else request


def demo_folder(store: Store) -> Artefact:
    """The generated data, made again when the grammar changes."""

    def build(work: Path) -> None:
        generate_demo(work / _FILES)

    return store.make("demo", VERSION, {"grammar": hashlib.sha256(GRAMMAR.read_bytes()).hexdigest()}, build)


def demo_sources(session: Session, profile: Profile) -> tuple[Path, TaskData]:
    """Generate the data and fine-tune the teacher.

    Raises:
        UnavailableError: The `demo` extra is not installed.
    """
    from edgekd.session import teach_from  # computes, which a dry run needs not

    encoder = demo_encoder()
    data = read_data(demo_folder(session.store).path / _FILES)
    return teach_from(session, str(encoder), data, profile).path, data


def demo_tfidf(store: Store) -> float:
    """Test accuracy of a bag of words on the demo: what a pretrained encoder must beat."""
    data = demo_folder(store)

    def build(work: Path) -> dict[str, float]:
        return {"accuracy": tfidf_baseline(data.path / _FILES)}

    return float(store.make("demo-tfidf", VERSION, {"data": data.id}, build).result["accuracy"])
