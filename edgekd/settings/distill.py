"""How teachers and students are trained, by name. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from edgekd.settings.base import Seed, Spec
from edgekd.settings.losses import KL, AgnosticLossSpec, Information, LossSpec, MiniLMv2
from edgekd.settings.plan import AssistantStrategy

# A student that keeps this share of the teacher's layers, by parameters, starts near it.
_NEAR = 0.4


class Training(Spec):
    """A training schedule: AdamW, linear warm-up, then linear decay to zero.

    Attributes:
        epochs: Passes over the training texts.
        batch_size: Texts a step.
        learning_rate: Peak learning rate.
        head_rate: Learning rate of the task head over the body's: a new head has further to go.
        warmup: Share of the steps before the peak.
        weight_decay: AdamW's, on matrices only.
        dropout: Dropout of hidden states; None keeps the model's own.
        freeze_words: Leave the word embedding as it is: a fifth of a short text's step goes into it, and a student
            has the fine-tuned teacher's.
        max_grad_norm: Gradient clipping.
        evaluations: Looks at validation, evenly spread over the run.
        patience: Looks without a better score before stopping early; the best weights are kept.
        precision: "bf16", "fp32", or "auto": bf16 where the device computes it natively.
    """

    epochs: float = Field(gt=0)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(gt=0)
    head_rate: float = Field(default=1.0, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    freeze_words: bool = False
    max_grad_norm: float = Field(default=1.0, gt=0)
    evaluations: int = Field(default=8, ge=1)
    patience: int = Field(default=4, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class NoAdaptation(Spec):
    """The encoder is taught as it is."""

    name: Literal["none"] = "none"


class MaskedLM(Spec):
    """The encoder first learns to guess hidden words of train and unlabeled.

    Attributes:
        ratio: Share of a text's tokens that it must guess.
        training: The schedule.
    """

    name: Literal["mlm"] = "mlm"
    ratio: float = Field(default=0.15, gt=0, lt=1)
    training: Training = Training(epochs=5, learning_rate=1e-4, evaluations=5, patience=3)


AdaptSpec = Annotated[NoAdaptation | MaskedLM, Field(discriminator="name")]


class Teach(Spec):
    """How `edgekd teach` fine-tunes an encoder on labels.

    Attributes:
        adapt: Whether it is fitted to the text first.
        pool: What the head of a text reads: the first token's state, the mean over the tokens, or "auto": with fewer
            than 30 labelled texts a class what the encoder was made for, by its `1_Pooling/config.json`; else the
            first.
        probe: A head on the mean begins as a logistic regression on the untrained encoder's features, so that
            fine-tuning need not bend them to a head that knows nothing (LP-FT, Kumar et al., 2022, arXiv:2202.10054),
            and learns as fast as the rest; words stay as they are. For classes of texts.
        min_steps: Steps at least: few texts make few in an epoch.
        training: The schedule.
        seed: Decides the head's first weights, the order of the texts and dropout.
    """

    adapt: AdaptSpec = NoAdaptation()
    pool: Literal["auto", "first", "mean"] = "auto"
    probe: bool = True
    min_steps: int = Field(default=500, ge=1)
    training: Training = Training(epochs=4, learning_rate=1e-4, head_rate=10)
    seed: Seed = 0


class Mixup(Spec):
    """Each text's word embeddings mixed with another's, for teacher and student alike (MixKD, Liang et al., 2021).

    Attributes:
        alpha: The share is drawn from Beta(alpha, alpha), once a batch.
        weight: Of the mixed texts' loss beside the texts' own.
    """

    alpha: float = Field(default=0.4, gt=0)
    weight: float = Field(default=1.0, gt=0)


class TokenChange(Spec):
    """A share of each text's tokens changed at every step.

    Attributes:
        name: "mask_tokens": hidden behind the mask token. "swap_tokens": replaced by tokens drawn from the batch; for
            tokenizers without a mask.
        ratio: Share of the tokens, at least one a text; special ones are left alone.
        weight: Of the changed texts' loss beside the texts' own.
    """

    name: Literal["mask_tokens", "swap_tokens"]
    ratio: float = Field(default=0.15, gt=0, lt=1)
    weight: float = Field(default=1.0, gt=0)


class Intermediate(Spec):
    """A loss on hidden states or attention beside a stage's own, with a layer mapping of its own.

    Attributes:
        loss: Which.
        weight: Of it in the stage's sum.
    """

    loss: LossSpec
    weight: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _inner(self) -> Intermediate:
        if self.loss.family not in ("hidden", "attention"):
            raise ValueError(f"loss: {self.loss.name} is on the outputs; give it a stage, or make it the stage's own")
        return self


class Stage(Spec):
    """One stage of distillation: some texts, a weighted sum of losses, a schedule.

    The sum is Distiller's (He et al., 2021): weight x loss + sum of the intermediate ones + hard_weight x cross-entropy
    on the labels.

    Attributes:
        loss: What is compared between teacher and student.
        weight: Of `loss`.
        intermediate: Losses on hidden states and attention that are added to one on outputs.
        data: "transfer" is the whole transfer set; "labelled" only its texts with a gold label.
        hard_weight: Weight of cross-entropy on the gold labels, for the texts that have one.
        mixup: Train on mixed texts too.
        on_the_fly: Train on changed texts too, changed anew at every step and answered by the teacher.
        training: The schedule.
        max_steps: Stop the schedule at so many steps; None runs all epochs.
    """

    loss: LossSpec = KL()
    weight: float = Field(default=1.0, ge=0)
    intermediate: tuple[Intermediate, ...] = ()
    data: Literal["transfer", "labelled"] = "transfer"
    hard_weight: float = Field(default=0.0, ge=0)
    mixup: Mixup | None = None
    on_the_fly: TokenChange | None = None
    training: Training = Training(epochs=4, learning_rate=5e-4, dropout=0.0, freeze_words=True)
    max_steps: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_loss(self) -> Stage:
        if self.loss.family == "labels" and self.hard_weight:
            raise ValueError("hard_weight: the loss is cross-entropy on the labels already")
        if self.loss.family == "labels" and self.mixup is not None:
            raise ValueError("mixup: mixed texts have no gold label; choose a loss on the teacher's outputs")
        if self.intermediate and self.loss.family not in ("labels", "prediction"):
            raise ValueError(f"intermediate: {self.loss.name} is one itself; make it one of them, beside kl for one")
        if self.weight + sum(part.weight for part in self.intermediate) + self.hard_weight <= 0:
            raise ValueError("weight: all weights of the stage are 0, so that nothing is learned")
        for loss in (self.loss, *(part.loss for part in self.intermediate)):
            if isinstance(loss, Information) and self.training.batch_size < 2:
                raise ValueError(f"loss {loss.name} tells a text from the others of its batch: batch_size 1 has none")
        if self.on_the_fly is not None and self.loss.family == "labels":
            raise ValueError("on_the_fly: changed texts have no gold label; choose a loss on the teacher's outputs")
        if self.on_the_fly is not None and self.mixup is not None:
            raise ValueError("on_the_fly: a stage has changed texts or mixed ones; leave mixup out, or give it a stage")
        return self

    @property
    def on_outputs(self) -> bool:
        """Whether its own loss is on labels or logits, and counts: such a stage trains the head."""
        return self.loss.family in ("labels", "prediction") and self.weight > 0

    @property
    def inside(self) -> bool:
        """Whether the insides of teacher and student are compared: hidden states or attention."""
        return bool(self.intermediate) or not self.on_outputs

    @property
    def online(self) -> bool:
        """Whether the teacher is run beside the student: its logits on the texts as they are do not do."""
        return self.inside or self.mixup is not None or self.on_the_fly is not None

    @property
    def title(self) -> str:
        """The names of its losses."""
        return " + ".join([self.loss.name, *(part.loss.name for part in self.intermediate)])

    @model_serializer(mode="wrap")
    def _without_usual(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Stages read as they did before there was a choice: what was trained is kept by them.
        content: dict[str, Any] = default(self)
        usual = {"on_the_fly": None, "weight": 1.0, "intermediate": ()}
        return {
            name: value for name, value in content.items() if name not in usual or getattr(self, name) != usual[name]
        }


class Init(Spec):
    """The student's first weights.

    Attributes:
        name: "slice": cut out of the teacher by importance, and projected where the plan's width is narrower. "random":
            BERT's random initialisation at the plan's shape. "checkpoint": a compact encoder that others have trained:
            the student has its shape, and a new task head.
        folder: The checkpoint, as `save_pretrained` writes it: config.json, model.safetensors, tokenizer.json. One with
            a tokenizer other than the teacher's keeps it; then only losses on a text's logits are possible.
    """

    name: Literal["slice", "random", "checkpoint"]
    folder: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _own_fields(self) -> Init:
        if (self.name == "checkpoint") != (self.folder is not None):
            raise ValueError("folder: name checkpoint needs one, and no other name has one")
        return self


class Distill(Spec):
    """How the student learns from the teacher.

    Attributes:
        init: The student's first weights.
        stages: In their order; each starts from the weights that the one before left.
        assistants: Which models between teacher and student are trained first, each taught by the one before.
        near_rate: Learning rate of a student that keeps two fifths of its teacher's layers or more, over that of the
            others: it starts near the teacher, and unlearns at a rate that those which lost much need.
        seed: Decides the order of the texts, dropout and new weights.
    """

    init: Init = Init(name="slice")
    stages: tuple[Stage, ...] = Field(default=(Stage(),), min_length=1)
    assistants: AssistantStrategy = AssistantStrategy(name="auto")
    near_rate: float = Field(default=0.4, gt=0)
    seed: Seed = 0

    @model_validator(mode="after")
    def _cut(self) -> Distill:
        if self.init.name != "slice" and self.assistants.name not in ("none", "auto"):
            raise ValueError(
                f"assistants {self.assistants.name}: the student is cut out of its assistant, but init is "
                f"{self.init.name}; take init slice, or assistants none"
            )
        return self

    def schedule(self, kept: float) -> tuple[Stage, ...]:
        """The stages as they are run.

        Random words are learned, whatever `freeze_words` says; a student near its teacher learns at `near_rate`.

        Args:
            kept: Share of the teacher's parameters in its layers that the student was cut with; 0 if it was not.
        """
        changes: dict[str, Any] = {}
        if self.init.name == "random":
            changes["freeze_words"] = False
        stages = []
        for stage in self.stages:
            rate = stage.training.learning_rate
            if self.init.name == "slice" and kept >= _NEAR:
                changes["learning_rate"] = self.near_rate * rate
            stages.append(stage.model_copy(update={"training": stage.training.model_copy(update=changes)}))
        return tuple(stages)


class Agnostic(Spec):
    """How a general encoder learns from another without labels.

    Attributes:
        loss: On what is inside both, hidden states or attention, or on what both say of hidden words.
        training: The schedule.
        max_steps: Stop the schedule at so many steps; None runs all epochs.
        held_out: Share of the texts that are not trained on and judge.
        seed: Decides which those are, the order of the others, dropout and new weights.
    """

    loss: AgnosticLossSpec = MiniLMv2()
    training: Training = Training(epochs=3, learning_rate=5e-4, dropout=0.0, warmup=0.05, patience=8)
    max_steps: int | None = Field(default=None, ge=1)
    held_out: float = Field(default=0.05, gt=0, lt=1)
    seed: Seed = 0

    @model_validator(mode="after")
    def _headless(self) -> Agnostic:
        if self.loss.family in ("labels", "prediction"):
            raise ValueError(f"loss: {self.loss.name} needs a task head; take one on hidden states or attention")
        return self
