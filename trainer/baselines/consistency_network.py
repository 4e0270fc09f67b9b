"""A network trained to agree with its own average on unlabelled rows (mean teacher, Tarvainen and Valpola 2017).

It is what one builds today without a generative model: one network over all modalities. Training leaves some of them
out at random, so that it also works when one is missing. The settings are fixed, and nothing is chosen on the test
examples.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.baselines.rival_task import LogQ, Subset, Task, joined, singles_and_all
from trainer.nn.rng import seed_for

HIDDEN = 256  # units of each of the two hidden layers
RATE = 1e-3  # Adam's learning rate
EPOCHS = 40  # passes over the training rows
LEAST_STEPS = 500  # however few rows there are
BATCH = 128  # labelled rows per step, and rows of which the labels are not used
DROPOUT = 0.3  # probability that a modality of a row is left out
NOISE = 0.1  # deviation of the input noise, as a fraction of each feature's
DECAY = 0.99  # of the teacher's running average, per step
CONSISTENCY = 10.0  # weight of the squared difference to the teacher, once it is ramped up
RAMP = 0.4  # fraction of training over which that weight grows

Weights = list[Tensor]  # weight [D, H] and bias [H] of each layer in turn


def consistency_network(task: Task) -> dict[Subset, LogQ]:
    """Trains the network, and predicts the test examples from each modality alone and from all of them.

    Missing modalities are zero, which is the mean of the standardised features.
    """
    network = _train(task)
    mean, deviation = _scaling(task)
    test = (torch.from_numpy(joined(task.test, task.everything)) - mean) / deviation
    predictions = {}
    for given in singles_and_all(task.modalities):
        kept = torch.tensor([[name in given for name in task.modalities]])
        x = (test * kept[:, _owners(task)]).to(task.device)
        with torch.no_grad():
            predictions[given] = _logits(network, x).log_softmax(-1).cpu().numpy()
    return predictions


def _train(task: Task) -> Weights:
    """The teacher: the running average of the trained network's weights."""
    seed = int(seed_for(task.seed, "consistency network").generate_state(1, np.uint64)[0]) >> 1
    random = torch.Generator(task.device).manual_seed(seed)
    owners = _owners(task).to(task.device)
    mean, deviation = _scaling(task)
    x = ((torch.from_numpy(joined(task.train, task.everything)) - mean) / deviation).to(task.device)
    labelled = torch.from_numpy(task.labelled).to(task.device)
    labels = torch.from_numpy(task.labels).to(task.device)

    student = _initial((len(owners), HIDDEN, HIDDEN, task.classes), random)
    teacher = [weight.detach().clone() for weight in student]
    optimizer = torch.optim.Adam(student, lr=RATE)
    steps = max(LEAST_STEPS, EPOCHS * math.ceil(len(x) / BATCH))
    order = torch.empty(0, dtype=torch.int64, device=task.device)

    def seen(rows: Tensor, dropped: bool) -> Tensor:
        values = x[rows] + NOISE * torch.empty_like(x[rows]).normal_(generator=random)
        return values * _kept(len(rows), len(task.modalities), random)[:, owners] if dropped else values

    for step in range(steps):
        if len(order) < min(BATCH, len(x)):  # the next pass, in another order
            order = torch.randperm(len(x), generator=random, device=task.device)
        rows, order = order[:BATCH], order[BATCH:]
        drawn = torch.randint(len(labelled), (BATCH,), generator=random, device=task.device)
        examples = labelled[drawn]
        ramp = math.exp(-5 * (1 - min(1.0, step / (RAMP * steps))) ** 2)
        with torch.no_grad():
            target = _logits(teacher, seen(rows, dropped=False)).softmax(-1)
        difference = _logits(student, seen(rows, dropped=True)).softmax(-1) - target
        loss = F.cross_entropy(_logits(student, seen(examples, dropped=True)), labels[examples])
        loss = loss + CONSISTENCY * ramp * difference.square().sum(-1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        decay = min(DECAY, 1 - 1 / (step + 1))  # a plain mean at first
        with torch.no_grad():
            for average, weight in zip(teacher, student, strict=True):
                average.lerp_(weight, 1 - decay)
    return teacher


def _initial(widths: Sequence[int], random: torch.Generator) -> Weights:
    """Weights of He's uniform initialisation and biases of 0."""
    weights: Weights = []
    for inputs, outputs in itertools.pairwise(widths):
        limit = math.sqrt(6 / inputs)
        weight = torch.empty(inputs, outputs, device=random.device).uniform_(-limit, limit, generator=random)
        weights += [weight.requires_grad_(), torch.zeros(outputs, device=random.device, requires_grad=True)]
    return weights


def _logits(weights: Weights, x: Tensor) -> Tensor:
    """The network's logits `[B, K]` of rows `[B, D]`."""
    for layer in range(0, len(weights), 2):
        x = x @ weights[layer] + weights[layer + 1]
        x = x.relu() if layer + 2 < len(weights) else x
    return x


def _kept(rows: int, modalities: int, random: torch.Generator) -> Tensor:
    """Which modalities each row keeps, `[B, M]`: each is left out with probability `DROPOUT`, but never all."""
    kept = torch.empty(rows, modalities, device=random.device).uniform_(generator=random) >= DROPOUT
    one = torch.randint(modalities, (rows, 1), generator=random, device=random.device)
    only_one = torch.zeros_like(kept).scatter_(1, one, True)
    return torch.where(kept.any(1, keepdim=True), kept, only_one)


def _owners(task: Task) -> Tensor:
    """The number of the modality that each feature belongs to, `[D]`."""
    widths = torch.tensor([task.train[name].shape[1] for name in task.modalities])
    return torch.arange(len(widths)).repeat_interleave(widths)


def _scaling(task: Task) -> tuple[Tensor, Tensor]:
    """The mean and the deviation of each feature over the training rows, `[D]` each; 1 for a constant feature."""
    x = torch.from_numpy(joined(task.train, task.everything)).double()
    deviation = x.std(0, correction=0)
    return x.mean(0).float(), torch.where(deviation > 1e-6 * deviation.max(), deviation, 1.0).float()
