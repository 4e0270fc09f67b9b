"""One frozen, validated object holds everything that decides a run's result; the paper's values are presets."""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.runtime.errors import UsageError
from trainer.models.registry import card
from trainer.nn.notation import parse
from trainer.settings.names import LabelEstimator, Objective, Precision

Positive = Annotated[int, Field(ge=1)]
Batch = Annotated[int, Field(ge=2)]  # batch normalisation needs two


class CoTraining(BaseModel):
    """What a round of co-training does (docs/compared.md); `Settings.epochs` says how many rounds there are.

    Attributes:
        k_best: examples that each view labels for the others, a class and a round.
        pool: unlabelled examples, drawn anew each round, among which they are chosen; 0 for all.
        cost: C of the support vector machines (ct-svm).
        scale: before a support vector machine, "features" brings each feature to variance 1, "view" divides a whole
            view by one number, so that its features' mean variance is 1 (ct-svm).
        candidates: the most confident examples among which diverse additions are chosen, a multiple of `k_best`;
            1 takes the most confident ones (cotraining).
        granularity: of the clustering, in multiples of its authors' choice; more gives more clusters (cotraining).
        passes: over what it learns from, each time that a network is fitted (cotraining).
        least_steps: of each fit, however little there is to learn from (cotraining).
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


BEYOND = (
    "label_estimator", "mean_alpha", "partial_alpha", "consistency", "smoothness", "radius", "information", "agreement",
    "onset", "averaging", "schedule", "samples",
)  # fmt: skip


class Settings(BaseModel):
    """The settings of one replica. Two runs with equal settings on one kind of machine give equal results.

    Attributes:
        model: the model's name.
        data: the data set's name, as its shard has it.
        digest: sha256 of the shard's content.
        split: the shard's split, where it has one.
        modalities: those the model sees; empty for all.
        labels: labelled training examples, equal per class; "all", or "shard" for those that the shard marks.
        seed: decides initial weights, label subset, batch order and noise.
        alpha: weight of the classifier's log-likelihood in eq. 6.
        beta: weight of the divergence in eq. 13 (models with single-modality encoders).
        label_estimator: an unobserved label is a Gumbel-softmax sample, or summed over exactly.
        temperature: of the Gumbel-softmax sample.
        objective: eq. 7 (or 13), or log q(y|.) of the labelled examples alone (table 6; with eq. 12 in the -kl model).
        epochs: passes over the unlabelled examples (over the labelled ones where there are no others); the rounds of
            the co-trained systems.
        batch_size: unlabelled examples a step.
        window: rows that are in memory, and shuffled, at a time, where the shard is streamed from disk
            (`trainer.data.streaming` derives it from the memory limit); None where all of it is in memory.
        labelled_batch_size: labelled examples a step.
        learning_rate: Adam's.
        precision: of matrix products: float32, TF32 (CUDA; on a CPU it is float32) or bfloat16. Densities and KL terms
            are always float32.
        iterations: of iterative sampling (eq. 11) at evaluation.
        samples: of latent variables at evaluation; 0 takes their mean (docs/deviations.md, 9).
        networks: by distribution, in the notation of `trainer.nn.layers`.
        cotraining: of the co-trained systems, which alone have it.

    Beyond the paper, whose own values are the defaults (docs/beyond.md):
        mean_alpha: weight of log q(y|X) of the labelled examples with latent variables at their means.
        partial_alpha: weight of log q(y|x_m) of the labelled examples, for each modality m alone.
        consistency: weight of KL(q(y|X) || q(y|x_m)) of the unlabelled examples, for each modality m alone.
        smoothness: weight of the virtual adversarial term of q(y|X).
        radius: its reach, as a share of an example's length.
        information: weight of the mutual information of the label and the unlabelled examples in q(y|X).
        agreement: weight of the mutual information of the labels that two of q(y|X) and every q(y|x_m) give to the same
            unlabelled example.
        onset: share of the training that is the paper's, before the six terms above join (mean_alpha to agreement).
        averaging: decay, a step, of the running average of the weights that is evaluated in their place; 0 for none.
        schedule: of the learning rate: constant, or, from the onset on, down to 0 along half a cosine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    data: str
    digest: str = ""
    split: int | None = None
    modalities: tuple[str, ...] = ()
    labels: Positive | Literal["all", "shard"]
    seed: Annotated[int, Field(ge=0)] = 0
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    label_estimator: LabelEstimator = "gumbel"
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    objective: Objective = "bound"
    epochs: Positive
    batch_size: Batch
    labelled_batch_size: Batch = 100
    window: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    precision: Precision = "tf32"
    iterations: Positive = 100
    samples: Annotated[int, Field(ge=0)] = 0
    mean_alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    partial_alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    consistency: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    smoothness: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
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
            raise ValueError(error) from None  # the one kind that pydantic collects

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        try:
            return card(model).name
        except UsageError as error:
            raise ValueError(error) from None

    @model_validator(mode="after")
    def _fits_the_model(self) -> "Settings":
        takes_rounds = "cotraining" in (card(self.model).accepts or ())
        if takes_rounds and self.cotraining is None:
            raise ValueError(UsageError(f"{self.model} needs the settings of its rounds, [cotraining]"))
        if not takes_rounds and self.cotraining is not None:
            raise ValueError(UsageError(f"{self.model} is not co-trained: it has no [cotraining]"))
        if self.objective == "classifier" and not (self.maximises_bound and self.learns_labels):
            raise ValueError(UsageError(f"{self.model} has no classifier to be trained without its bound"))
        return self

    @property
    def has_beta(self) -> bool:
        """Whether the model has single-modality encoders kept near the joint one (eq. 12), and with them beta."""
        return card(self.model).has_beta

    @property
    def learns_labels(self) -> bool:
        """Whether labels take part in training; for the others they only serve the probe that reads the latents."""
        return card(self.model).learns_labels

    @property
    def maximises_bound(self) -> bool:
        """Whether the model has a bound, and with it alpha."""
        return card(self.model).is_generative

    @property
    def turns(self) -> str:
        """What `epochs` counts."""
        return "epochs" if self.cotraining is None else "rounds"

    def beyond(self) -> dict[str, object]:
        """The settings beyond the paper that are in use."""
        fields = type(self).model_fields
        return {name: value for name in BEYOND if (value := getattr(self, name)) != fields[name].default}

    def name(self) -> str:
        """A folder's name that says what the run is, and ends in what makes it unique."""
        parts = [self.data, self.model, *self.modalities]
        parts.append(f"labels-{self.labels}")
        if self.objective != "bound":
            parts.append(self.objective)
        if self.alpha != 1:
            parts.append(f"alpha-{self.alpha:g}")
        if self.has_beta:
            parts.append(f"beta-{self.beta:g}")
        if self.split is not None:
            parts.append(f"split-{self.split}")
        parts += [f"{self.epochs}-{self.turns}", f"seed-{self.seed}", self.fingerprint()[:8]]
        return re.sub(r"[^\w.+-]", "_", "-".join(parts)).lstrip(".")  # a data set may have any name, even ../..

    def fingerprint(self) -> str:
        """sha256 of the settings."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def stack_key(self) -> str:
        """Equal for replicas that can be trained in one stack: all but seed, split, shard, alpha and beta."""
        return self.model_dump_json(exclude={"seed", "split", "data", "digest", "alpha", "beta"})


def differences(ours: Settings, theirs: Settings) -> list[str]:
    """`alpha 1 instead of 2`, one line a field that differs."""
    ours_by_name, theirs_by_name = ours.model_dump(), theirs.model_dump()
    return [
        f"{name} {value} instead of {theirs_by_name[name]}"
        for name, value in ours_by_name.items()
        if value != theirs_by_name[name]
    ]


def build(values: Mapping[str, Any], source: str = "the settings") -> Settings:
    """Validated settings.

    Raises:
        UsageError: a value is missing, unknown or out of range; `source` is where the values came from.
    """
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
