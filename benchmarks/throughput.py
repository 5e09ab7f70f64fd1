"""Steps a second of the training loop against the `Trainer` subclass that people write today.

    python benchmarks/throughput.py                                        (one CPU thread)
    python benchmarks/throughput.py --device cuda --teacher bert-base --batch 64 --steps 200

KL on logits, a teacher of random weights, a student of a quarter of its FLOPs; random ids of the lengths that
clinc150's 15,000 training texts have. Every recipe takes its turn in every round, and a round starts the recipe
afresh. The clock is the same for all: from the start of one step's loss to that of another, warm-up left out, so that
batches, transfers, forward, backward, clipping and optimiser are inside; validation and saving at the end are not.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from record import write_record
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

from edgekd.distill.engine import Engine
from edgekd.distill.loop import train
from edgekd.distill.losses.prediction import kl_divergence
from edgekd.distill.objective import Batch, Objective, Terms, build_objective
from edgekd.distill.predict import predict_rows
from edgekd.models.families import host
from edgekd.models.initialize import random_initial
from edgekd.models.online import OnlineTeacher
from edgekd.models.quiet import quiet_transformers
from edgekd.models.student import StudentModel, from_weights
from edgekd.runtime.encodings import Encodings, ragged_offsets
from edgekd.settings.distill import Stage, Training
from edgekd.settings.shape import EncoderShape

# Tokens a text, and how many of clinc150's training texts have so many (BERT's uncased vocabulary).
LENGTHS = {
    3: 28, 4: 117, 5: 268, 6: 623, 7: 977, 8: 1551, 9: 1866, 10: 1920, 11: 1746, 12: 1542, 13: 1185, 14: 929, 15: 664,
    16: 497, 17: 327, 18: 275, 19: 154, 20: 103, 21: 84, 22: 49, 23: 42, 24: 21, 25: 10, 26: 10, 27: 5, 28: 2, 29: 1,
    30: 1, 31: 1, 32: 1, 33: 1,
}  # fmt: skip

# Width, layers, heads, FFN neurons.
TEACHERS = {"minilm-l6": (384, 6, 12, 1536), "bert-base": (768, 12, 12, 3072)}

TEMPERATURE, LABELS, VOCABULARY = 2.0, 150, 30522

# Least steps a second, over the `Trainer`'s in the same round; the others are shown alone.
TARGETS = {
    "online teacher, same padding": 1.0,
    "online teacher, length buckets": 1.3,
    "as shipped: buckets, cached": 2.0,
}


@dataclass
class Clock:
    """Times `steps` steps after a warm-up.

    Attributes:
        device: "cpu" or "cuda".
        warmup: Steps left out.
        steps: Steps timed.
        seconds: What they took, once they are over.
    """

    device: str
    warmup: int
    steps: int
    seconds: float = 0.0
    _seen: int = 0
    _began: float = 0.0

    @property
    def needed(self) -> int:
        """Steps that a run needs: the clock stops when the loss of the one after the last begins."""
        return self.warmup + self.steps + 1

    def tick(self) -> None:
        """A step's loss begins."""
        if self._seen in (self.warmup, self.warmup + self.steps):
            if self.device == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.seconds, self._began = now - self._began, now
        self._seen += 1


class DistillationTrainer(Trainer):  # type: ignore[misc]
    """The subclass that people write: the teacher's forward under no_grad, KL of the softened logits."""

    def __init__(self, *args: Any, teacher: nn.Module, temperature: float, clock: Clock, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = teacher.to(self.args.device).eval()
        self.temperature, self.clock = temperature, clock

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """Called by `Trainer` at every step."""
        self.clock.tick()
        outputs = model(**inputs)
        # `Trainer` wraps the student alone in autocast: without this the teacher would run in FP32, and slower.
        with torch.no_grad(), self.accelerator.autocast():
            taught = self.teacher(**inputs).logits.float()
        t = self.temperature
        loss = F.kl_div(F.log_softmax(outputs.logits / t, -1), F.softmax(taught / t, -1), reduction="batchmean") * t**2
        return (loss, outputs) if return_outputs else loss


@dataclass(frozen=True)
class OnlineLogitObjective:
    """The product's KL on a teacher that is run beside the student; the product itself caches such logits."""

    teacher: OnlineTeacher
    module: nn.Module | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        """See `Objective`."""
        student = batch.rows(model(**batch.inputs).logits)
        logits = self.teacher(batch.inputs).logits
        assert logits is not None
        return {"kl": kl_divergence(batch.rows(logits), student, TEMPERATURE)}


@dataclass(frozen=True)
class Timed:
    """An objective that tells the clock when a step's loss begins."""

    objective: Objective
    clock: Clock

    @property
    def module(self) -> nn.Module | None:
        """See `Objective`."""
        return self.objective.module

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        """See `Objective`."""
        self.clock.tick()
        return self.objective(model, batch)


@dataclass(frozen=True)
class Bench:
    """What all recipes share.

    Attributes:
        engine: Where to compute.
        texts: Random texts.
        teacher: As transformers runs it.
        student: The student's shape.
        batch: Texts a step.
        precision: "bf16" or "fp32".
        warmup: Steps left out.
        steps: Steps timed.
    """

    engine: Engine
    texts: Encodings
    teacher: BertForSequenceClassification
    student: EncoderShape
    batch: int
    precision: str
    warmup: int
    steps: int
    _kept: dict[str, Any] = field(default_factory=dict)

    @property
    def online(self) -> OnlineTeacher:
        """The same teacher as the product runs it."""
        if "online" not in self._kept:
            hosted = host(self.teacher)
            assert hosted is not None
            shape, weights = hosted
            model = from_weights(shape, weights, _names()).requires_grad_(False)
            self._kept["online"] = OnlineTeacher(self.engine.to_device(model), shape, shape.hidden, shape.depth)
        return self._kept["online"]  # type: ignore[no-any-return]

    @property
    def rows(self) -> Tensor:
        """The teacher's logits, computed before."""
        if "rows" not in self._kept:
            rows = predict_rows(self.online.model, self.texts, self.engine)
            self._kept["rows"] = torch.from_numpy(rows).to(self.engine.device)
        return self._kept["rows"]  # type: ignore[no-any-return]

    def model(self) -> StudentModel:
        """A fresh student, without dropout; its word embedding stays as it is in every recipe."""
        model = from_weights(self.student, random_initial(self.student, 0), _names(), dropout=0.0)
        model.embeddings.word.weight.requires_grad_(False)
        return model

    def clock(self) -> Clock:
        """A clock for one run."""
        return Clock(self.engine.device, self.warmup, self.steps)

    def order(self, seed: int) -> np.ndarray:
        """A random order of the texts, the same for every recipe without buckets."""
        return np.random.default_rng(seed).permutation(len(self.texts))

    def trainer(self, seed: int) -> float:
        """Steps a second of the subclass."""
        clock, cuda = self.clock(), self.engine.device == "cuda"
        with tempfile.TemporaryDirectory() as folder, quiet_transformers():
            arguments = TrainingArguments(
                folder, max_steps=clock.needed, per_device_train_batch_size=self.batch, learning_rate=5e-4,
                warmup_steps=0.1, weight_decay=0.01, max_grad_norm=1.0, bf16=self.precision == "bf16",
                use_cpu=not cuda, train_sampling_strategy="sequential", remove_unused_columns=False,
                save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
                dataloader_pin_memory=cuda, seed=seed,
            )  # fmt: skip
            trainer = DistillationTrainer(
                self.model(), arguments, data_collator=self._collate, train_dataset=list(self.order(seed)),
                teacher=self.teacher, temperature=TEMPERATURE, clock=clock,
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return clock.steps / clock.seconds

    def _collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.texts.batch(indices).items()}

    def loop(self, objective: Callable[[], Objective], *, buckets: bool, seed: int) -> float:
        """Steps a second of the product's loop."""
        clock, texts = self.clock(), len(self.texts)
        spec = Training(
            epochs=clock.needed, batch_size=self.batch, learning_rate=5e-4, dropout=0.0, freeze_words=True,
            evaluations=1, precision=self.precision,
        )  # fmt: skip
        starts = range(0, texts, self.batch)
        batches = [self.order(seed)[i : i + self.batch] for i in starts]
        plain = nullcontext() if buckets else patch("edgekd.distill.loop.epoch_batches", lambda *_: batches)
        with tempfile.TemporaryDirectory() as folder, plain:
            train(
                self.model(), self.texts, Timed(objective(), clock), lambda _: 0.0, spec, self.engine, Path(folder),
                "", seed=seed, max_steps=clock.needed,
            )  # fmt: skip
        return clock.steps / clock.seconds

    def recipes(self) -> dict[str, Callable[[int], float]]:
        """Steps a second by name, each as a function of the round's seed."""

        def online() -> Objective:
            return OnlineLogitObjective(self.online)

        def cached() -> Objective:
            targets = torch.full((len(self.texts),), -100, device=self.engine.device)
            return build_objective(
                Stage(), rows=self.rows, targets=targets, student=None, teacher=lambda: self.online, seed=0
            )

        return {
            "Trainer subclass": self.trainer,
            "online teacher, same padding": lambda seed: self.loop(online, buckets=False, seed=seed),
            "online teacher, length buckets": lambda seed: self.loop(online, buckets=True, seed=seed),
            "cached logits, same padding": lambda seed: self.loop(cached, buckets=False, seed=seed),
            "as shipped: buckets, cached": lambda seed: self.loop(cached, buckets=True, seed=seed),
        }


def _names() -> list[str]:
    return [str(i) for i in range(LABELS)]


def random_texts(seed: int = 0) -> Encodings:
    """15,000 texts of random ids between [CLS] and [SEP], of clinc150's lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.permutation(np.repeat(list(LENGTHS), list(LENGTHS.values())))
    offsets = ragged_offsets(lengths)
    ids = rng.integers(1000, VOCABULARY, int(offsets[-1]), dtype=np.int32)
    ids[offsets[:-1]], ids[offsets[1:] - 1] = 101, 102
    return Encodings(ids, offsets, token_type_ids=np.zeros(len(ids), dtype=np.int8))


def models(name: str) -> tuple[BertForSequenceClassification, EncoderShape]:
    """A teacher of random weights, and a student of half its layers with a quarter of the FFN: 1/4 of the FLOPs."""
    width, layers, heads, ffn = TEACHERS[name]
    torch.manual_seed(0)
    teacher = BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=ffn, num_labels=LABELS,
        )
    ).eval().requires_grad_(False)  # fmt: skip
    hosted = host(teacher)
    assert hosted is not None
    depth = layers // 2
    return teacher, hosted[0].model_copy(update={"heads": (heads,) * depth, "ffn": (ffn // 4,) * depth})


def summarise(rates: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Median, spread and ratio to the `Trainer` subclass in the same round."""
    base, table = rates["Trainer subclass"], []
    for name, found in rates.items():
        ratios = [mine / theirs for mine, theirs in zip(found, base, strict=True)]
        target = TARGETS.get(name)
        table.append(
            {
                "recipe": name, "median": median(found), "min": min(found), "max": max(found),
                "ratio": median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
                "target": target, "reached": None if target is None else median(ratios) >= target,
            }
        )  # fmt: skip
    return table


def markdown(table: Sequence[dict[str, Any]]) -> str:
    """The table as people read it."""
    lines = ["| recipe | steps/s, median (min to max) | ratio (min to max) | target |", "|---|---|---|---|"]
    for row in table:
        target = "" if row["target"] is None else f">= {row['target']:g}: {'reached' if row['reached'] else 'missed'}"
        lines.append(
            f"| {row['recipe']} | {row['median']:.2f} ({row['min']:.2f} to {row['max']:.2f}) "
            f"| {row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f}) | {target} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument("--teacher", choices=list(TEACHERS), default="minilm-l6")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--warmup", type=int, default=5, help="steps of a run that are not timed")
    parser.add_argument("--steps", type=int, default=60, help="steps of a run that are timed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--name", default="throughput", help="name of the result file; empty writes none")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    engine = Engine(options.device, options.threads)
    precision = engine.resolve(Training(epochs=1, learning_rate=1, precision=options.precision)).precision
    teacher, student = models(options.teacher)
    bench = Bench(engine, random_texts(), teacher, student, options.batch, precision, options.warmup, options.steps)
    recipes = bench.recipes()
    rates: dict[str, list[float]] = {name: [] for name in recipes}
    for number in range(options.rounds):
        for name, measure in recipes.items():
            rates[name].append(measure(number))
        print(f"round {number + 1}:", ", ".join(f"{name} {found[-1]:.2f}" for name, found in rates.items()), flush=True)
    table = summarise(rates)
    print(markdown(table))
    content = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "precision": precision, "student": student.describe(), "table": table, "steps_a_second": rates,
    }  # fmt: skip
    if options.name:
        print("written:", write_record(options.name, content))


if __name__ == "__main__":
    main()
