"""Co-training of networks (Cheng et al. 2016) that choose diverse examples, with a fusion network on top of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.runtime.errors import TrainingError
from trainer.baselines.convex_clustering import convex_clusters, diverse
from trainer.baselines.cotraining import Check, CoTrained, LogQ, TrainingSet, group
from trainer.baselines.method import COMMON_SETTINGS, CoTrainingMethod
from trainer.data.interface import Data
from trainer.data.selection import Rows
from trainer.data.streams import Stream
from trainer.models.card import ModelCard
from trainer.nn.distributions import Categorical
from trainer.nn.notation import expand, parse
from trainer.nn.rng import Noise, seed_for
from trainer.settings.run_settings import Settings
from trainer.training.precision import autocast
from trainer.training.terms import LOWER_RATE

BLOCK = 4096  # rows that are predicted at a time
Inputs = Mapping[str, Tensor]  # by name, [rows, D] each


@dataclass(frozen=True)
class NetworkView:
    """q(y|x) of one modality: a network with a single replica."""

    name: str
    network: Categorical
    features: Inputs

    def log_q(self, rows: Rows) -> LogQ:
        return _log_q(self.network, _blocks(self.features, rows))

    def hidden(self, rows: Rows) -> Tensor:
        """The last hidden layer of the network, `[N, H]`."""
        with torch.no_grad():
            return torch.cat([self.network.mlp(block)[0].float() for block in _blocks(self.features, rows)])


@dataclass(frozen=True)
class Fusion:
    """q(y|X): a network on the views' hidden layers, which are not trained further."""

    network: Categorical
    views: Mapping[str, NetworkView]

    def log_q(self, rows: Rows) -> LogQ:
        hidden = {name: view.hidden(rows) for name, view in self.views.items()}
        return _log_q(self.network, _blocks(hidden, np.arange(len(rows))))


class Networks:
    """The system `cotraining`: one network per modality, and a fusion network."""

    completions: ClassVar = ("views",)
    has_classifier: ClassVar = True

    def __init__(self, settings: Settings, data: Data, device: torch.device) -> None:
        self.settings, self.data, self.device = settings, data, device
        self.classes = len(data.classes)
        self.widths = {modality.name: modality.width for modality in data.modalities}

    def fit(self, name: str, training_set: TrainingSet, check: Check) -> NetworkView:
        view = self._view(name)
        self._train(view.network, view.features, training_set.rows, training_set.labels, check)
        return view

    def choose(self, view: NetworkView, rows: Rows, count: int) -> Rows:
        """Of the most confident rows, one from each cluster of the hidden layer, then a second one from each, ..."""
        cotraining = group(self.settings)
        most_confident = rows[: cotraining.candidates * count]
        if len(most_confident) <= count:
            return most_confident
        hidden = view.hidden(most_confident).cpu().numpy().astype(np.float64)
        return most_confident[diverse(convex_clusters(hidden, cotraining.granularity), count)]

    def fuse(self, views: Mapping[str, NetworkView], training_set: TrainingSet, check: Check) -> Fusion:
        fusion = self._fusion(views)
        hidden = {name: view.hidden(training_set.rows) for name, view in views.items()}
        self._train(fusion.network, hidden, np.arange(len(training_set.rows)), training_set.labels, check)
        return fusion

    def tensors(self, trained: CoTrained[NetworkView]) -> dict[str, Tensor]:
        return {
            f"{owner}: {key}": tensor[0]
            for owner, network in _networks(trained).items()
            for key, tensor in network.state_dict().items()
        }

    def from_tensors(self, tensors: Mapping[str, Tensor]) -> CoTrained[NetworkView]:
        views = {name: self._view(name) for name in self.widths}
        trained = CoTrained(views, self._fusion(views))
        for owner, network in _networks(trained).items():
            network.load_state_dict({key: tensors[f"{owner}: {key}"].unsqueeze(0) for key in network.state_dict()})
            network.eval()
        return trained

    def _view(self, name: str) -> NetworkView:
        network = self._network("q(y|x)", self.widths, name)
        return NetworkView(name, network, {name: self.data.features[name]})

    def _fusion(self, views: Mapping[str, NetworkView]) -> Fusion:
        return Fusion(self._network("q(y|X)", {name: view.network.mlp.width for name, view in views.items()}), views)

    def _network(self, name: str, widths: Mapping[str, int], modality: str | None = None) -> Categorical:
        """A new network; its weights and noise depend only on the seed, its name and its modality."""
        seed = int(seed_for(self.settings.seed, f"{name} of {modality}").generate_state(1)[0])
        notation = expand(parse(self.settings.networks[name]), widths, self.classes, modality)
        written = f"q(y|{modality or ','.join(widths)})"
        return Categorical(written, notation, widths, Noise([seed], self.device)).to(self.device)

    def _train(self, network: Categorical, inputs: Inputs, rows: Rows, labels: Rows, check: Check) -> None:
        """Trains with Adam on the cross entropy, over batches of the inputs' `rows`; then sets evaluation mode.

        Raises:
            TrainingError: a weight is not finite.
        """
        settings, cotraining = self.settings, group(self.settings)
        stream = Stream(np.arange(len(rows)), settings.labelled_batch_size, network.noise.seeds[0], "batches")
        steps = max(cotraining.least_steps, cotraining.passes * -(-len(rows) // settings.labelled_batch_size))
        index = torch.from_numpy(rows).to(self.device)
        target = torch.from_numpy(labels).to(self.device)
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, fused=True)
        network.train()
        for number in range(steps):
            check()
            batch = torch.from_numpy(stream.batch(number)).to(self.device)
            x = {name: tensor[index[batch]].unsqueeze(0) for name, tensor in inputs.items()}
            with autocast(settings, self.device):
                (logits,) = network.parameters_of(x)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(logits[0], target[batch]).backward()
            optimizer.step()
        network.eval()
        if not all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values()):
            raise TrainingError(f"training stopped: not finite: the weights of {network.name}", LOWER_RATE)


def _networks(trained: CoTrained[NetworkView]) -> dict[str, Categorical]:
    assert isinstance(trained.fusion, Fusion)
    return {f"view {name}": view.network for name, view in trained.views.items()} | {"fusion": trained.fusion.network}


def _blocks(inputs: Inputs, rows: Rows) -> list[dict[str, Tensor]]:
    """The inputs of these rows in blocks, `[1, B, D]` each."""
    device = next(iter(inputs.values())).device
    index = torch.from_numpy(rows).to(device)
    blocks = [index[start : start + BLOCK] for start in range(0, max(len(index), 1), BLOCK)]
    return [{name: tensor[block].unsqueeze(0) for name, tensor in inputs.items()} for block in blocks]


def _log_q(network: Categorical, blocks: list[dict[str, Tensor]]) -> LogQ:
    with torch.no_grad():
        return torch.cat([network.parameters_of(x)[0][0].log_softmax(-1) for x in blocks]).cpu().numpy()


# A network per modality, and one on top of their hidden layers, which are what X stands for in q(y|X).
CARD = ModelCard(
    name="cotraining",
    title="co-training",
    build=Networks,
    networks={
        "mnist": {"q(y|x)": "x-D512BR-D512BR, DK", "q(y|X)": "(X)-D512BR, DK"},
        "rgbd": {"q(y|x)": "x-D1024BR-D1024BR-Dropout0.5, DK", "q(y|X)": "(X)-D1024BR-Dropout0.5, DK"},
    },
    method=CoTrainingMethod(Networks),
    presets={  # all values are ours: the paper only quotes this system's results
        "mnist": {"epochs": 20, "cotraining": {"k_best": 10, "pool": 5000}},
        "rgbd": {"epochs": 10, "cotraining": {"k_best": 5, "pool": 5000, "least_steps": 600}},
        "digits": {"epochs": 10, "cotraining": {"k_best": 5}},
        "sample": {"epochs": 5, "cotraining": {"k_best": 2}},
    },
    accepts=COMMON_SETTINGS
    | {"labelled_batch_size", "learning_rate", "precision", "networks"}
    | {f"cotraining.{name}" for name in ("k_best", "pool", "candidates", "granularity", "passes", "least_steps")},
)
