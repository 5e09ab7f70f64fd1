"""Stage `build_transfer_set`: target texts, and what the profile adds to them, made once and kept."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.data.augment.files import read_augmented, write_augmented
from edgekd.data.select.clusters import Embed
from edgekd.data.select.pool import Pool
from edgekd.data.split import TaskData
from edgekd.data.transfer_set import TransferSet, augment_target, choose_generic, open_pool, target_texts
from edgekd.distill.engine import Engine
from edgekd.graph.parity import load_session
from edgekd.graph.quantize import quantize_dynamic
from edgekd.graph.writer import save_model, write_student
from edgekd.latency.machine import detect_instruction_set
from edgekd.models.families import Hosted
from edgekd.models.identity import folder_id
from edgekd.models.online import OnlineTeacher
from edgekd.models.teacher import Encoder
from edgekd.reading import read_json
from edgekd.records.transfer import GenericSummary
from edgekd.runtime.tokenise import encode_texts
from edgekd.settings.augment import BackTranslation, MaskFill
from edgekd.settings.transfer import Transfer
from edgekd.store import Store, write_json

VERSION = 1

# Texts an encoder is given at once.
_BATCH = 32

States = Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]
"""Last hidden states (rows, tokens, width) of a batch of inputs by name, (rows, tokens) each."""


@dataclass(frozen=True)
class Embedder:
    """A teacher whose pooled states generic and target texts are compared in.

    Attributes:
        teacher: The teacher, or an encoder.
        id: Identity of its content.
        max_length: Tokens a text; longer ones are cut.
    """

    teacher: Encoder
    id: str
    max_length: int

    def open(self, engine: Engine, folder: Path) -> Embed:
        """Texts to the mean of their last hidden states, (texts, width): INT8 on a CPU, in FP32 elsewhere.

        Args:
            folder: For the graph that is run on a CPU.
        """
        teacher = self.teacher
        if engine.device == "cpu" and teacher.hosted is not None:
            states = _int8_states(teacher, teacher.hosted, folder, engine.threads)
        else:
            states = _torch_states(teacher, engine)

        def embed(texts: Sequence[str]) -> NDArray[Any]:
            encodings = encode_texts(teacher.tokenizer, texts, None, self.max_length)
            order = np.argsort(encodings.lengths, kind="stable")
            pooled = np.empty((len(texts), teacher.width), np.float32)
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                batch = encodings.batch(rows)
                mask = batch["attention_mask"][:, :, None]
                pooled[rows] = (states(batch) * mask).sum(axis=1) / mask.sum(axis=1)
            return pooled

        return embed


def build_transfer_set(
    store: Store, engine: Engine, data: TaskData, spec: Transfer, seed: int, embedder: Embedder | None = None
) -> TransferSet:
    """Join target texts, and add what the profile asks for; what was chosen or made is kept.

    Args:
        engine: Where models run.
        spec: What to take and what to add.
        seed: Decides which texts are taken where there are too many, and what is made.
        embedder: The teacher, where generic texts are chosen in its space.

    Raises:
        DataError: Nothing to learn from, or a pool that holds nothing new.
        UsageError: What is asked for does not go with the task.
    """
    target = target_texts(data, spec, seed)
    if not spec.adds:
        return target
    key = _key(target, data, spec, seed, embedder)
    made = store.make("transfer", VERSION, key, lambda work: _add(work, engine, target, data, spec, seed, embedder))
    found = target
    if spec.generic is not None:
        chosen = read_json(made.path / "generic.json")
        found = found.with_generic(chosen["texts"], chosen["notes"], data.word_split)
    if spec.augment:
        found = found.with_augmented(read_augmented(made.path / "augmented.parquet"))
    generic = made.result.get("generic")
    return found if generic is None else replace(found, selection=GenericSummary.model_validate(generic))


def _add(
    work: Path,
    engine: Engine,
    target: TransferSet,
    data: TaskData,
    spec: Transfer,
    seed: int,
    embedder: Embedder | None,
) -> dict[str, Any]:
    """Choose generic texts and make new ones; each is kept as soon as it is finished."""
    result: dict[str, Any] = {}
    if spec.generic is not None:
        path = work / "generic.json"
        if not path.is_file():
            with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
                embed = None if embedder is None else embedder.open(engine, Path(folder))
                with engine.progress.bar("generic text: choose", 0):
                    chosen = choose_generic(spec.generic, target, data, spec.near_equal, embed)
            write_json(
                path, {"texts": chosen.texts, "notes": chosen.notes, "report": chosen.summary.model_dump(mode="json")}
            )
        result["generic"] = read_json(path)["report"]
    if spec.augment and not (work / "augmented.parquet").is_file():
        made = augment_target(target, data, spec, seed, engine.device, engine.progress)
        write_augmented(work / "augmented.parquet", made)
    return result


def _key(target: TransferSet, data: TaskData, spec: Transfer, seed: int, embedder: Embedder | None) -> dict[str, Any]:
    """What decides the added texts: contents, not paths."""
    near = spec.generic is not None and spec.generic.method in ("cascade", "clusters")
    generic = None
    if spec.generic is not None:
        generic = spec.generic.model_dump(mode="json", exclude={"path"}) | {"pool": _pool_id(open_pool(spec.generic))}
    policies = []
    for policy in spec.augment:
        models = {"masked_lm"} if isinstance(policy, MaskFill) else set()
        models |= {"there", "back"} if isinstance(policy, BackTranslation) else set()
        ids = {name: folder_id(Path(getattr(policy, name)).expanduser()) for name in sorted(models)}
        policies.append(policy.model_dump(mode="json") | ids)
    return {
        "data": data.fingerprint,
        "target": hashlib.sha256(json.dumps(target.split.keys()).encode()).hexdigest(),
        "generic": generic,
        "teacher": embedder.id if near and embedder is not None else None,
        "max_length": embedder.max_length if near and embedder is not None else None,
        "near_equal": spec.near_equal,
        "augment": policies,
        "copies": spec.copies,
        "augment_pairs": spec.augment_pairs,
        "seed": seed,
    }


def _pool_id(pool: Pool) -> str:
    """SHA-256 of the pool's files, in their order."""
    digest = hashlib.sha256()
    for path in pool.files:
        with path.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def _int8_states(teacher: Encoder, hosted: Hosted, folder: Path, threads: int) -> States:
    shape, weights = hosted
    body = shape.model_copy(update={"head": None})
    names = body.weight_shapes()
    exact, quantised = folder / "encoder.onnx", folder / "encoder_int8.onnx"
    save_model(write_student(body, {name: weights[name] for name in names}), exact)
    quantize_dynamic(exact, quantised, instruction_set=detect_instruction_set())
    session = load_session(quantised, threads)
    wanted = {node.name for node in session.get_inputs()}

    def states(batch: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        feeds = {name: array for name, array in batch.items() if name in wanted}
        found: NDArray[Any] = session.run(None, feeds)[0]
        return found

    return states


def _torch_states(teacher: Encoder, engine: Engine) -> States:
    online, device = OnlineTeacher.of(teacher), torch.device(engine.device)
    online.model.to(device)

    def states(batch: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        inputs = {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
        with torch.inference_mode():
            hidden = online(inputs, hidden=True).hidden_states
        assert hidden is not None
        found: NDArray[Any] = hidden[-1].float().cpu().numpy()
        return found

    return states
