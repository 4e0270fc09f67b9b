"""A bundle's classifier with all that `mmssl predict` does around it, as one network of tensors: what is exported.

Values are scaled, a row's missing modalities are completed as the model completes them, and the replicas' probabilities
are averaged. One network answers every subset of the modalities, row by row: where a model has encoders, those that a
row has are combined (`trainer.models.posterior`); the other models see zeros.
"""

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.shards.schema import Modality, Scaling
from trainer.inference.network import Network
from trainer.models.interface import Classifier
from trainer.nn.presence import Incomplete

MARGIN = 1e-3  # how far a scaled value may lie outside its distribution: scaling may round


class ClassifierNetwork(nn.Module):
    """Vectors as a person has them to probabilities.

    It takes one tensor `[N, D]` per modality, in the model's order, and then which rows have which of them, bool
    `[N, M]`; a row of NaN is missing as well, and what rows hold that lack a modality is not read. It gives `[N, K]`.

    A row that `mmssl predict` refuses gets NaN: one with no modality at all, with values that are not finite, or with
    values outside the modality's distribution.
    """

    def __init__(self, network: Network, scaling: Mapping[str, Scaling]) -> None:
        super().__init__()
        self.modalities, self.replicas = network.modalities, network.noise.replicas
        self.combines = network.completion == "encoders" and len(network.modalities) > 1
        self.samples = network.settings.samples
        self.model = _without_unused(network)
        for m, modality in enumerate(network.modalities):
            one = scaling.get(modality.name)
            self.register_buffer(f"mean_{m}", None if one is None else torch.from_numpy(one.mean.copy()))
            self.register_buffer(f"deviation_{m}", None if one is None else torch.from_numpy(one.deviation.copy()))

    def forward(self, *inputs: Tensor) -> Tensor:
        *values, present = inputs
        x, there, refused = dict[str, Tensor](), dict[str, Tensor](), present.new_zeros(present.shape[:1])
        for m, (modality, given) in enumerate(zip(self.modalities, values, strict=True)):
            rows = present[:, m] & ~given.isnan().all(1)
            scaled = self._scaled(m, given)
            refused = refused | (rows & _outside(scaled, modality).any(1))
            x[modality.name] = torch.where(rows.unsqueeze(1), scaled, 0.0).expand(self.replicas, -1, -1)
            there[modality.name] = rows
        answered = torch.stack(list(there.values())).any(0) & ~refused
        if self.combines:
            x = Incomplete(x, {name: rows.expand(self.replicas, -1) for name, rows in there.items()})
        probabilities = cast(Classifier, self.model).classify(x, self.samples).float().exp().mean(0)
        return torch.where(answered.unsqueeze(1), probabilities, torch.nan)

    def _scaled(self, m: int, values: Tensor) -> Tensor:
        mean, deviation = getattr(self, f"mean_{m}"), getattr(self, f"deviation_{m}")
        return values if mean is None else (values - mean) / deviation


def _outside(values: Tensor, modality: Modality) -> Tensor:
    """Which values are none of the modality's, `[N, D]`."""
    wrong = ~(values.abs() < torch.inf)  # NaN too
    if modality.distribution != "gaussian":
        wrong = wrong | (values < -MARGIN)
    return wrong | (values > 1 + MARGIN) if modality.distribution == "bernoulli" else wrong


def _without_unused(network: Network) -> nn.Module:
    """A copy of the model, which shares its weights, without the networks that no prediction needs: decoders, ..."""
    called = set[nn.Module]()
    hooks = [module.register_forward_hook(lambda one, *_: called.add(one)) for module in network.model.modules()]
    try:
        with network.computing():
            every = {m.name: torch.zeros(network.noise.replicas, 1, m.width) for m in network.modalities}
            for given in (every, *({name: values} for name, values in every.items())):
                network.probabilities(given)
    finally:
        for hook in hooks:
            hook.remove()
    unused = [name for name, part in network.model.named_children() if called.isdisjoint(part.modules())]
    weights: Any = {id(tensor): tensor for tensor in (*network.model.parameters(), *network.model.buffers())}
    copied = copy.deepcopy(network.model, memo=weights | {id(network.noise): network.noise})
    for name in unused:
        delattr(copied, name)
    return copied.eval()
