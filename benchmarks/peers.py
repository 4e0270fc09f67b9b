"""Our training beside that of libraries for the same models: MultiVae and pixyz, extra `peers`.

    python -m benchmarks.peers [--rounds 5] [--steps 20] [--out workspace/peers.jsonl]

Each trains JMVAE-kl, the one model of ours that all three have or can say, with the layer sizes of our MNIST preset on
random rows in the shape of hmMNIST: batches of 512 rows, float32, Adam, one thread. Every round starts each in a
process of its own, in turn. A step is the library's own: forward, backward, update. An epoch is 10,240 rows through the
library's own loop and loading of data; evaluation is left out. Time is the process's own, so that others on the machine
count little; memory is the process's peak. Ours is also measured in bfloat16, and in a stack of four, per replica.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import Rows

ROWS, WIDTH, BATCH, HIDDEN, LATENT = 10_240, 392, 512, 512, 64
ALPHA = 0.1  # weight of the divergence between the joint and the single encoders
OURS = ("ours", "ours, bfloat16", "ours, stack of 4, bfloat16")
PEERS = ("multivae", "pixyz")
WARM_UP = 3
Candidate = tuple[Callable[[], object], Callable[[], object], int]  # one step, one epoch, the replicas in it


def rows() -> tuple[Tensor, Tensor]:
    """Random black and white rows of both halves, `[N, 392]`: MultiVae takes no greys."""
    x, w = torch.rand(2, ROWS, WIDTH, generator=torch.Generator().manual_seed(0)).round()
    return x, w


def mlp(*widths: int) -> nn.Sequential:
    """D...BR layers of these widths."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Both(nn.Module):
    """(x-D512BR-D512BR, w-D512BR-D512BR)-D512BR."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.w = mlp(WIDTH, HIDDEN, HIDDEN), mlp(WIDTH, HIDDEN, HIDDEN)
        self.joined = mlp(2 * HIDDEN, HIDDEN)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        joined: Tensor = self.joined(torch.cat([self.x(x), self.w(w)], -1))
        return joined


def ours(replicas: int, precision: str) -> Candidate:
    from pipeline.shards.shard import Modality
    from trainer.data.machine_memory import prepare_memory
    from trainer.data.resident import Resident
    from trainer.data.selection import Examples
    from trainer.settings.presets import preset_values
    from trainer.settings.run_settings import build
    from trainer.training.step import Step

    prepare_memory()
    x, w = rows()
    numbers = torch.arange(ROWS).numpy()
    examples = Examples(labelled=numbers[:0], unlabelled=numbers, test=numbers[:BATCH], labelled_ids=())
    modalities = (Modality("x", WIDTH, "bernoulli"), Modality("w", WIDTH, "bernoulli"))
    label = torch.zeros(ROWS, dtype=torch.int64)
    data = Resident(
        {"x": x, "w": w}, {}, label, torch.arange(ROWS), modalities, tuple("0123456789"), (examples,) * replicas
    )
    values = {**preset_values("mnist", "jmvae-kl"), "model": "jmvae-kl", "data": "random", "beta": ALPHA}
    values |= {"batch_size": BATCH, "labels": 0, "precision": precision}
    step = Step([build({**values, "seed": seed}) for seed in range(replicas)], data, torch.device("cpu"))
    taken = iter(range(10**9))

    def epoch() -> None:
        for _ in range(step.batches.per_epoch):
            step(next(taken))

    return lambda: step(next(taken)), epoch, replicas


def multivae() -> Candidate:
    from multivae.data.datasets.base import DatasetOutput, MultimodalBaseDataset
    from multivae.models import JMVAE, JMVAEConfig
    from multivae.models.nn import BaseJointEncoder
    from multivae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    def gaussian(owner: Any, hidden: nn.Module) -> None:
        owner.latent_dim, owner.hidden = LATENT, hidden
        owner.mean, owner.variance = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)

    def said(owner: Any, h: Tensor) -> Any:
        return ModelOutput(embedding=owner.mean(h), log_covariance=owner.variance(h))

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            gaussian(self, mlp(WIDTH, HIDDEN, HIDDEN))

        def forward(self, x: Tensor) -> Any:
            return said(self, self.hidden(x))

    class JointEncoder(BaseJointEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            gaussian(self, Both())

        def forward(self, x: dict[str, Tensor]) -> Any:
            return said(self, self.hidden(x["x"], x["w"]))

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.latent_dim = LATENT
            self.network = nn.Sequential(mlp(LATENT, HIDDEN, HIDDEN), nn.Linear(HIDDEN, WIDTH))

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.network(z))

    names = ("x", "w")
    config = JMVAEConfig(
        n_modalities=2, latent_dim=LATENT, input_dims=dict.fromkeys(names, (WIDTH,)), alpha=ALPHA, warmup=1,
        decoders_dist=dict.fromkeys(names, "bernoulli"),
    )  # fmt: skip
    model = JMVAE(config, {m: Encoder() for m in names}, {m: Decoder() for m in names}, JointEncoder())
    data = dict(zip(names, rows(), strict=True))
    settings = BaseTrainerConfig(
        per_device_train_batch_size=BATCH, learning_rate=1e-3, output_dir="/tmp/multivae", no_cuda=True
    )
    trainer = BaseTrainer(model, MultimodalBaseDataset(data), training_config=settings)
    trainer.prepare_training()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = endless(data)

    def step() -> None:
        optimizer.zero_grad()
        model(DatasetOutput(data=next(batches)), epoch=1).loss.backward()
        optimizer.step()

    return step, lambda: trainer.train_step(1), 1


def pixyz() -> Candidate:
    from pixyz.distributions import Bernoulli, Normal
    from pixyz.losses import KullbackLeibler
    from pixyz.models import Model
    from torch.utils.data import DataLoader, TensorDataset

    class Gaussian(Normal):  # type: ignore[misc]
        def __init__(self, name: str, given: list[str], hidden: nn.Module) -> None:
            super().__init__(var=["z"], cond_var=given, name=name)
            self.hidden = hidden
            self.mean, self.variance = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)

        def forward(self, **given: Tensor) -> dict[str, Tensor]:
            h = self.hidden(*(given[name] for name in self.cond_var))
            return {"loc": self.mean(h), "scale": F.softplus(self.variance(h)).sqrt()}

    class Pixels(Bernoulli):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            super().__init__(var=[name], cond_var=["z"], name="p")
            self.network = nn.Sequential(mlp(LATENT, HIDDEN, HIDDEN), nn.Linear(HIDDEN, WIDTH))

        def forward(self, z: Tensor) -> dict[str, Tensor]:
            return {"probs": torch.sigmoid(self.network(z))}

    q = Gaussian("q", ["x", "w"], Both())
    alone = [Gaussian(f"q_{m}", [m], mlp(WIDTH, HIDDEN, HIDDEN)) for m in ("x", "w")]
    decoders = [Pixels(m) for m in ("x", "w")]
    prior = Normal(loc=torch.zeros(()), scale=torch.ones(()), var=["z"], features_shape=[LATENT], name="p_prior")
    loss = KullbackLeibler(q, prior)
    for decoder, single in zip(decoders, alone, strict=True):
        loss = loss - decoder.log_prob().expectation(q) + ALPHA * KullbackLeibler(q, single)
    model = Model(
        loss=loss.mean(), distributions=[q, *alone, *decoders], optimizer=torch.optim.Adam,
        optimizer_params={"lr": 1e-3},
    )  # fmt: skip
    x, w = rows()
    loader = DataLoader(TensorDataset(x, w), BATCH, shuffle=True)
    batches = endless({"x": x, "w": w})
    return lambda: model.train(next(batches)), lambda: [model.train({"x": a, "w": b}) for a, b in loader], 1


def endless(data: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Batches in order, over and over."""
    while True:
        for start in range(0, ROWS, BATCH):
            yield {name: values[start : start + BATCH] for name, values in data.items()}


def candidate(name: str) -> Candidate:
    if name in PEERS:
        return {"multivae": multivae, "pixyz": pixyz}[name]()
    return ours(4 if "stack" in name else 1, "bf16" if "bfloat16" in name else "fp32")


def measure(name: str, steps: int) -> dict[str, float]:
    """CPU seconds of a step and of an epoch per replica, and the process's peak memory in MB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step, epoch, replicas = candidate(name)
    seconds = []
    for number in range(WARM_UP + steps):
        begun = time.process_time()
        step()
        if number >= WARM_UP:
            seconds.append(time.process_time() - begun)
    begun = time.process_time()
    epoch()
    whole = time.process_time() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"step": sorted(seconds)[len(seconds) // 2] / replicas, "epoch": whole / replicas, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--one", choices=[*OURS, *PEERS], help="measure one of them in this process, and print JSON")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON lines")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.steps)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (*OURS, *PEERS)}
    for _ in range(options.rounds):
        for name, values in found.items():
            command = [sys.executable, "-m", "benchmarks.peers", "--one", name, "--steps", str(options.steps)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            values.append(json.loads(done.stdout.splitlines()[-1]))
    table = Rows("peers", torch.device("cpu"))
    for peer in PEERS:
        for name in OURS:
            for what in ("step", "epoch", "memory"):
                ratios = sorted(
                    of_ours[what] / of_peer[what] for of_ours, of_peer in zip(found[name], found[peer], strict=True)
                )
                goal = {"memory": ""}.get(what, "<= 0.35" if "stack" in name else "<= 0.67" if name == "ours" else "")
                table.add(
                    f"{what}: {name} / {peer}", ratios[len(ratios) // 2], *([goal] if goal else []),
                    quartiles=[round(ratios[len(ratios) // 4], 3), round(ratios[-1 - len(ratios) // 4], 3)],
                    ours=round(middle(found[name], what), 4), theirs=round(middle(found[peer], what), 4),
                )  # fmt: skip
    table.write(options.out)


def middle(values: list[dict[str, float]], what: str) -> float:
    """The median of a measurement over rounds."""
    return sorted(value[what] for value in values)[len(values) // 2]


if __name__ == "__main__":
    main()
