"""The network of a bundle: its replicas as one stack, built from the card and filled with the weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import DataError, UsageError
from pipeline.shards.schema import Features, Header, Modality, header_fault
from trainer.evaluation.evaluate import evaluating
from trainer.evaluation.missing_modalities import completer
from trainer.inference.card import ANSWERS_BY_SAMPLES, BundleCard
from trainer.inference.unlikeness import Passes
from trainer.models.factory import Factory
from trainer.models.interface import Classifier, LatentModel
from trainer.models.registry import card as model_card
from trainer.nn.distributions import DiagonalNormal
from trainer.nn.labels import LabelRule
from trainer.nn.rng import Noise
from trainer.settings.run_settings import Settings, build
from trainer.training.precision import precision

MOST_NETWORKS, MOST_CHARACTERS = 64, 1000  # of a card: no network of ours comes near
EXPORT_HINT = "export it again: mmssl export RUN --out FOLDER"
Batch = dict[str, Tensor]  # modality -> [R, B, D]


@dataclass(frozen=True)
class Network:
    """R replicas of one model, ready to answer."""

    model: nn.Module
    noise: Noise
    settings: Settings
    modalities: tuple[Modality, ...]
    completion: str
    device: torch.device

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The modalities' names, in order."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def has_decoders(self) -> bool:
        """Whether the latent variable alone decides what each modality looks like."""
        return not {"iterative", "encoders"}.isdisjoint(cast(Classifier, self.model).completions)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The context in which the other methods are called."""
        with precision(self.settings, self.device), evaluating(self.model, self.noise):
            yield

    def batch(self, features: Mapping[str, Features]) -> Batch:
        """Features `[B, D]` as a batch that all replicas see."""
        return {
            name: torch.from_numpy(values).to(self.device).expand(self.noise.replicas, -1, -1)
            for name, values in features.items()
        }

    def completed(self, given: Batch) -> Batch:
        """The classifier's input for the given modalities, in the model's order."""
        ordered = {name: given[name] for name in self.names if name in given}
        completion = "none" if len(ordered) == len(self.names) else self.completion
        return dict(completer(completion, self.model, self.noise, self.modalities, 0)(ordered))

    def by_replica(self, given: Batch) -> Tensor:
        """q(y|x) of each replica, `[R, B, K]`."""
        return self._classified(self.completed(given))

    def probabilities(self, given: Batch) -> Tensor:
        """The mean over replicas of q(y|x), `[B, K]`."""
        return self.by_replica(given).mean(0)

    def _classified(self, x: Batch, q_a: DiagonalNormal | None = None) -> Tensor:
        return cast(Classifier, self.model).classify(x, self.settings.samples, q_a).float().exp()

    def answers(self, given: Batch) -> tuple[Tensor, Passes]:
        """The probabilities, and what unlikeness is computed from; rows are encoded only once."""
        x, classifier = self.completed(given), cast(Classifier, self.model)
        # Where a latent variable comes before the classifier, both start from it.
        q_a = cast(LatentModel, self.model).encode(x) if hasattr(self.model, "encode") else None
        probabilities = self._classified(x, q_a).mean(0)
        latent = (classifier.latent_mean(x) if q_a is None else q_a.mean).float()
        surprise = {}
        if self.has_decoders:
            decode = cast(LatentModel, self.model).decode
            surprise = {name: -decode(latent, name).log_prob(given[name]).float() for name in given}
        return probabilities, Passes(latent, surprise)

    def latent_mean(self, given: Batch) -> Tensor:
        """The mean of the latent variable, `[R, B, Z]`."""
        return cast(Classifier, self.model).latent_mean(self.completed(given)).float()

    def reconstruct(self, given: Batch, target: str) -> Tensor:
        """The mean of a modality given others, `[B, D]`, averaged over replicas."""
        return cast(Classifier, self.model).reconstruct(self.completed(given), target).float().mean(0)


def read_settings(card: BundleCard, source: str) -> Settings:
    """The settings of a card, within bounds.

    Raises:
        DataError: they are not settings of a model that predicts, or the card's names and widths are not valid.
    """
    header = Header(card.dataset, None, card.classes, tuple(m.modality for m in card.modalities), None, {})
    fault = header_fault(header, schema=2)
    networks = card.settings.get("networks")
    if fault is None and (
        not isinstance(networks, dict)
        or len(networks) > MOST_NETWORKS
        or any(len(str(text)) > MOST_CHARACTERS for text in networks.values())
    ):
        fault = f"it does not have up to {MOST_NETWORKS} networks of up to {MOST_CHARACTERS} characters"
    if fault is not None:
        raise DataError(f"{source}: {fault}", EXPORT_HINT)
    try:
        settings = build(card.settings, source=source)
        check_predicts(settings)
    except (UsageError, RecursionError) as error:
        reason = getattr(error, "message", "a network is nested too deeply").removeprefix(f"{source}: ")
        raise DataError(f"{source}: {reason}", EXPORT_HINT) from None
    if card.completion not in (*model_card(settings.model).completions, "none"):
        raise DataError(f"{source}: {settings.model} does not complete missing modalities by '{card.completion}'")
    return settings if card.format >= ANSWERS_BY_SAMPLES else settings.model_copy(update={"samples": 0})


def check_predicts(settings: Settings) -> None:
    """Checks that the model has a classifier that a bundle can hold.

    Raises:
        UsageError: it has none.
    """
    if not settings.maximises_bound:
        raise UsageError(
            f"{settings.model} is here to be compared with and cannot be exported", "models: sshmvae-kl, sshmvae, ..."
        )
    if not settings.learns_labels:
        raise UsageError(
            f"{settings.model} has no classifier of its own, so it cannot predict", "export a model that learns labels"
        )


def make_network(
    card: BundleCard, settings: Settings, weights: Mapping[str, Tensor], device: torch.device, source: str
) -> Network:
    """Builds the stack of a card around its weights; nothing is allocated for weights that are not there.

    Args:
        weights: by name, `[R, ...]`.

    Raises:
        DataError: the weights do not fit the card, or are not finite.
    """
    if len(weights) < len(card.modalities) or any(t.shape[:1] != (len(card.seeds),) for t in weights.values()):
        raise DataError(
            f"{source}: the weights are not those of {len(card.seeds)} replicas with {len(card.modalities)} modalities",
            EXPORT_HINT,
        )
    noise = Noise([0] * len(card.seeds), device)
    modalities = tuple(m.modality for m in card.modalities)
    try:
        with torch.device("meta"):
            model = _build(settings, modalities, len(card.classes), _Shapes(noise))
    except (UsageError, RecursionError) as error:
        raise DataError(f"{source}: {getattr(error, 'message', 'a network is nested too deeply')}") from None
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    fault = _weights_fault(weights, expected)
    if fault:
        raise DataError(f"{source}: {fault}", EXPORT_HINT)
    model.load_state_dict(dict(weights), assign=True)
    _use_noise(model, noise)
    return Network(model.to(device).eval(), noise, settings, modalities, card.completion, device)


def check_builds(settings: Settings, modalities: tuple[Modality, ...], classes: int) -> None:
    """Checks that the networks fit the data, without any memory for their weights.

    Raises:
        UsageError: they do not.
    """
    try:
        with torch.device("meta"):
            _build(settings, modalities, classes, _Shapes(Noise([settings.seed])))
    except RecursionError:
        raise UsageError("a network is nested too deeply") from None


def _build(settings: Settings, modalities: tuple[Modality, ...], classes: int, noise: Noise) -> nn.Module:
    rule = LabelRule(settings.label_estimator, settings.temperature)
    factory = Factory(
        settings.networks,
        modalities,
        classes,
        noise,
        rule,
        pooling=settings.pooling,
        joint_encoder=settings.joint_encoder,
    )
    model: nn.Module = model_card(settings.model).build(factory)
    return model


class _Shapes(Noise):
    """Draws no initial weights, only their shapes."""

    def __init__(self, noise: Noise) -> None:
        super().__init__(noise.seeds)

    def initial_uniform(self, shape: Sequence[int], limit: float) -> Tensor:  # noqa: ARG002
        return torch.empty(self.replicas, *shape, device="meta")


def _use_noise(model: nn.Module, noise: Noise) -> None:
    """Gives every distribution and dropout the streams of the device that it computes on."""
    for module in model.modules():
        if isinstance(getattr(module, "noise", None), Noise):
            cast(Any, module).noise = noise


def _weights_fault(weights: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> str | None:
    missing = sorted(expected.keys() - weights.keys()) or sorted(weights.keys() - expected.keys())
    if missing:
        return f"the weights do not fit the networks: '{missing[0]}' is in one of them only"
    for name, tensor in weights.items():
        if tensor.shape != expected[name] or tensor.dtype != torch.float32:
            return (
                f"the weights '{name}' are {tuple(tensor.shape)} {tensor.dtype}, "
                f"not {tuple(expected[name])} {torch.float32}"
            )
        if not tensor.isfinite().all():
            return f"the weights '{name}' are not finite"
    return None
