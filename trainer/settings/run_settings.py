"""One frozen, validated object that holds everything that determines a run's result."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.runtime.errors import UsageError
from pipeline.runtime.text import file_name
from pipeline.shards.schema import NEVER
from trainer.models.registry import card
from trainer.nn.notation import parse
from trainer.settings.names import LabelEstimator, Objective, Pooling, Precision

Positive = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(gt=0, le=1)]
Batch = Annotated[int, Field(ge=2)]  # batch normalisation needs at least two examples
Answer = tuple[Annotated[int, Field(ge=0)], Annotated[str, Field(min_length=1)]]
_ROUNDING = 1e-3  # of probabilities that a person writes down


class CoTraining(BaseModel):
    """The settings of a round of co-training (docs/models/cotraining.md); `Settings.epochs` is the number of rounds.

    Attributes:
        k_best: the number of examples that each view labels for the other views, per class and round.
        pool: the number of unlabelled examples, drawn again in each round, that the views label from; 0 for all.
        cost: C, the cost of the support vector machines (ct-svm).
        scale: how features are scaled for a support vector machine: "features" scales each to variance 1, "view"
            divides all features of a view by one number, so that their mean variance is 1 (ct-svm).
        candidates: how many of the most confident examples diverse ones are chosen from, as a multiple of `k_best`; 1
            takes the most confident examples themselves (cotraining).
        granularity: the granularity of the clustering, as a multiple of the value its authors propose; more gives more
            clusters (cotraining).
        passes: the number of passes over the training set each time a network is fitted (cotraining).
        least_steps: the minimum number of steps each time a network is fitted, however small the training set is
            (cotraining).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    k_best: Positive
    pool: Annotated[int, Field(ge=0)] = 0
    cost: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    scale: Literal["features", "view"] = "view"
    candidates: Positive = 2
    granularity: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    passes: Positive = 20
    least_steps: Positive = 200


_ADDED = ("answers", "held_out", "fused")  # after runs were named and checkpoints written without them
BEYOND = (
    "label_estimator", "prior", "pooling", "joint_encoder", "propagation", "mean_alpha", "partial_alpha",
    "consistency", "smoothness", "partial_smoothness", "radius", "information", "agreement", "onset", "averaging",
    "schedule", "samples",
)  # fmt: skip


class Settings(BaseModel):
    """The settings of one replica. Two runs with equal settings give equal results on the same kind of machine.

    Attributes:
        model: the name of the model.
        data: the name of the data set, as recorded in its shard.
        digest: sha256 of the shard's content.
        split: the shard's split; None if it has none.
        modalities: the modalities the model sees; empty for all.
        labels: the number of labelled training examples, with equally many per class; "all" for every known label;
            "shard" for the examples that the shard marks; 0 for none, or none but the answers.
        answers: labels that a person gave (`--labels-from`): pairs of a training row and its class, in ascending order,
            with "?" in place of a class for rows that are never to be asked about again. They join the labelled
            examples, and replace the shard's own labels of these rows. Classes that the shard does not have come after
            its own.
        held_out: (k, n) leaves out the labels of the k-th (from 0) of n parts of the labelled examples, whose rows
            count as unlabelled; None for none.
        seed: the seed that determines the initial weights, the labelled subset, the batch order and the noise.
        alpha: the weight of the classifier's log-likelihood in eq. 6.
        beta: the weight of the divergence in eq. 13 (models with single-modality encoders).
        label_estimator: how an unobserved label enters the bound: "gumbel" draws a Gumbel-softmax sample, "exact" sums
            over all classes.
        temperature: the temperature of the Gumbel-softmax sample.
        prior: p(y) of the bounds: "uniform" as in the paper, "labelled" for the frequencies of the labelled examples
            (each class counts one more than it has), or one probability per class.
        pooling: how the single-modality encoders of a -kl model are combined for examples that lack modalities:
            "geometric" or "product" (`trainer.models.posterior`).
        joint_encoder: whether a -kl model encodes examples that lack nothing by q(a|X), as in the paper, or by the same
            combination of its encoders as all others.
        objective: what is maximised: "bound" for eq. 7 (eq. 13 in a -kl model), "classifier" for log q(y|.) of the
            labelled examples alone (table 6; with eq. 12 in a -kl model).
        epochs: the number of passes over the unlabelled examples, or over the labelled ones if all are labelled; for
            co-trained systems, the number of rounds.
        batch_size: the number of unlabelled examples per step.
        window: the number of rows in memory, and shuffled, at a time when the shard is streamed from disk (derived from
            the memory limit); None if the whole shard is in memory.
        labelled_batch_size: the number of labelled examples per step.
        learning_rate: Adam's learning rate.
        precision: the precision of matrix products in training: "auto" for what suits the device and the networks
            (`trainer.training.precision`), "fp32", "tf32" (on CUDA; float32 on a CPU) or "bf16". Densities and KL terms
            are always float32.
        fused: whether batch normalisation and ReLU are one kernel (`trainer.nn.fused`); on CUDA, with Triton, only.
        iterations: the number of iterations of iterative sampling (eq. 11) at evaluation.
        samples: the number of points of the latent variables over which q(y|.) is averaged; 0 uses their mean
            (docs/design/deviations.md, 9).
        networks: the network of each distribution, in the paper's notation (see `trainer.nn.notation`).
        cotraining: the settings of a round of co-training; None for models that are not co-trained.

    Beyond the paper (docs/guide/training.md); the defaults are the paper's objective and schedule:
        propagation: the weight of -log q(y|.) of the propagated labels (`trainer.data.propagation`) of the unlabelled
            examples, summed over q(y|X) and each q(y|x_m).
        neighbours: the number of nearest neighbours along which labels are propagated.
        mean_alpha: the weight of log q(y|X) of the labelled examples, with the latent variables at their means.
        partial_alpha: the weight of log q(y|x_m) of the labelled examples, summed over the single modalities m.
        consistency: the weight of KL(q(y|X) || q(y|x_m)) of the unlabelled examples, summed over the single modalities
            m.
        smoothness: the weight of the virtual adversarial term of q(y|X).
        partial_smoothness: the weight of the same term of each q(y|x_m) of the unlabelled examples.
        radius: the length of the adversarial step, as a fraction of the mean length of the batch's examples.
        information: the weight of the mutual information between label and example in q(y|X), over the unlabelled
            examples.
        agreement: the weight of the mutual information between the labels that two views give the same unlabelled
            example, summed over pairs of views; the views are q(y|X) and each q(y|x_m).
        onset: the fraction of training after which the terms from consistency to agreement join; until then, training
            follows the paper, with more from labels if any of the three terms above is set.
        averaging: the decay per step of the running average of the weights, which is evaluated and kept instead of the
            weights; 0 for no average.
        schedule: how the learning rate changes: "constant", or "cosine" for half a cosine from the onset down to 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    data: str
    digest: str = ""
    split: int | None = None
    modalities: tuple[str, ...] = ()
    labels: Annotated[int, Field(ge=0)] | Literal["all", "shard"]
    answers: tuple[Answer, ...] = ()
    held_out: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=2)]] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    label_estimator: LabelEstimator = "gumbel"
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    prior: Literal["uniform", "labelled"] | tuple[Probability, ...] = "uniform"
    pooling: Pooling = "geometric"
    joint_encoder: bool = True
    objective: Objective = "bound"
    epochs: Positive
    batch_size: Batch
    labelled_batch_size: Batch = 100
    window: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    precision: Precision = "auto"
    fused: bool = False
    iterations: Positive = 100
    samples: Annotated[int, Field(ge=0, le=1000)] = 0
    propagation: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    neighbours: Positive = 7
    mean_alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    partial_alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    consistency: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    smoothness: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    partial_smoothness: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    radius: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.2
    information: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    agreement: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    onset: Annotated[float, Field(ge=0, lt=1)] = 0.0
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    networks: dict[str, str]
    cotraining: CoTraining | None = None

    @field_validator("networks")
    @classmethod
    def _in_notation(cls, networks: dict[str, str]) -> dict[str, str]:
        try:
            return {name: str(parse(notation)) for name, notation in networks.items()}
        except UsageError as error:
            raise ValueError(error) from None  # pydantic collects ValueError only; `build` unwraps it

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        try:
            return card(model).name
        except UsageError as error:
            raise ValueError(error) from None

    @field_validator("answers")
    @classmethod
    def _once_each(cls, answers: tuple[Answer, ...]) -> tuple[Answer, ...]:
        rows = [row for row, _ in answers]
        if rows != sorted(set(rows)):
            raise ValueError(UsageError("each row has one answer, and rows are in ascending order"))
        return answers

    @field_validator("held_out")
    @classmethod
    def _is_a_part(cls, held_out: tuple[int, int] | None) -> tuple[int, int] | None:
        if held_out is not None and held_out[0] >= held_out[1]:
            raise ValueError(UsageError(f"there is no part {held_out[0]} of {held_out[1]}: parts count from 0"))
        return held_out

    @model_validator(mode="after")
    def _fits_the_model(self) -> "Settings":
        takes_rounds = "cotraining" in (card(self.model).accepts or ())
        if takes_rounds and self.cotraining is None:
            raise ValueError(UsageError(f"{self.model} needs the settings of its rounds in [cotraining]"))
        if not takes_rounds and self.cotraining is not None:
            raise ValueError(UsageError(f"{self.model} is not co-trained, so it takes no [cotraining]"))
        if self.objective == "classifier" and not (self.maximises_bound and self.learns_labels):
            raise ValueError(UsageError(f"{self.model} has no classifier that can be trained without a bound"))
        return self

    def check_classes(self, classes: int) -> None:
        """Checks the settings that say something of each class.

        Raises:
            UsageError: the prior does not have one probability per class, or they do not sum to 1.
        """
        if isinstance(self.prior, str):
            return
        if len(self.prior) != classes or abs(sum(self.prior) - 1) > _ROUNDING:
            raise UsageError(
                f"the prior has {len(self.prior)} probabilities that sum to {sum(self.prior):g}, for {classes} classes",
                "give one per class, which sum to 1, or --set prior=labelled",
            )

    @property
    def has_beta(self) -> bool:
        """Whether the model keeps single-modality encoders near the joint one (eq. 12), and therefore has a beta."""
        return card(self.model).has_beta

    @property
    def learns_labels(self) -> bool:
        """Whether labels take part in training; otherwise only the linear probe on the latents uses them."""
        return card(self.model).learns_labels

    @property
    def maximises_bound(self) -> bool:
        """Whether the model has a bound, and therefore an alpha."""
        return card(self.model).is_generative

    @property
    def turns(self) -> str:
        """What `epochs` counts: "epochs" or "rounds"."""
        return "epochs" if self.cotraining is None else "rounds"

    def beyond(self) -> dict[str, object]:
        """The settings beyond the paper that differ from their defaults."""
        fields = type(self).model_fields
        return {name: value for name in BEYOND if (value := getattr(self, name)) != fields[name].default}

    def name(self) -> str:
        """A folder name that describes the run and ends in a part that makes it unique."""
        parts = [self.data, self.model, *self.modalities]
        given = sum(label != NEVER for _, label in self.answers)
        parts.append(f"labels-{self.labels}{f'-and-{given}' if given else ''}")
        if self.objective != "bound":
            parts.append(self.objective)
        if self.alpha != 1:
            parts.append(f"alpha-{self.alpha:g}")
        if self.has_beta:
            parts.append(f"beta-{self.beta:g}")
        if self.split is not None:
            parts.append(f"split-{self.split}")
        parts += [f"{self.epochs}-{self.turns}", f"seed-{self.seed}", self.fingerprint()[:8]]
        return file_name("-".join(parts))  # a data set can have any name, even ../..

    def fingerprint(self) -> str:
        """The sha256 of all settings; those that a version added count only if they are set."""
        unset = {name for name in _ADDED if not getattr(self, name)}
        return hashlib.sha256(self.model_dump_json(exclude=unset).encode()).hexdigest()

    def stack_key(self) -> str:
        """Equal for replicas that can share a stack: all settings but those of its own data, seed and weights.

        Of streamed data, replicas that hold out other labels stream other numbers of rows, and would read ever further
        apart.
        """
        may_differ = {"seed", "split", "data", "digest", "alpha", "beta"}
        return self.model_dump_json(exclude=may_differ | {"held_out"} if self.window is None else may_differ)


def differences(ours: Settings, theirs: Settings) -> list[str]:
    """The fields that differ, each as `alpha 1 instead of 2`."""
    ours_by_name, theirs_by_name = ours.model_dump(), theirs.model_dump()
    return [
        f"{name} {value} instead of {theirs_by_name[name]}"
        for name, value in ours_by_name.items()
        if value != theirs_by_name[name]
    ]


def refuse_booleans(values: Mapping[str, Any], source: str) -> None:
    """Refuses true and false where a number belongs, which would be taken for 1 and 0.

    Raises:
        UsageError: a setting other than a yes or no is true or false.
    """
    for name, value in values.items():
        annotation = Settings.model_fields[name].annotation if name in Settings.model_fields else bool
        if isinstance(value, bool) and annotation is not bool:
            raise UsageError(f"{source}: {name}: it is a number or a word, not {str(value).lower()}")


def build(values: Mapping[str, Any], source: str = "the settings") -> Settings:
    """Validates values and returns them as settings.

    Args:
        source: where the values come from, for error messages.

    Raises:
        UsageError: a value is missing, unknown or out of range.
    """
    refuse_booleans(values, source)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "settings"
        if first["type"] == "extra_forbidden":
            raise UsageError(
                f"{source}: there is no setting '{where}'",
                f"settings: {', '.join((CoTraining if 'cotraining' in first['loc'][:-1] else Settings).model_fields)}",
            ) from None
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ValueError) and isinstance(cause.args[0], UsageError):
            raise UsageError(f"{source}: {where}: {cause.args[0].message}", cause.args[0].hint) from None
        raise UsageError(f"{source}: {where}: {first['msg']} (got {first['input']!r})") from None
