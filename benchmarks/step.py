"""Speed of a training step, as ratios measured in one run.

    python -m benchmarks.step [--device cpu|cuda] [--threads 2] [--rounds 20] [--out workspace/step.jsonl]

1. The arithmetic rate of a step (operations counted by torch's FlopCounterMode, divided by time) over the rate of a
   large float32 matrix product: how much of the machine the MNIST preset of sshmvae-kl uses.
2. The same for a plain step that joins the labelled and the unlabelled pass: what the machine allows for this size.
3. The time of a step at R = 1 over that of the same step written without a replica axis (`benchmarks.plain`).
4. The time per replica at R = 4 over that at R = 1 (on CUDA: R = 1, 5, 10, 15 and 20, eager, captured, and captured
   with fused batch normalisation).

The data are random values in the shape of hmMNIST; the time of the arithmetic does not depend on them.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Rows, in_turn, matrix_product, middle, spread
from benchmarks.plain import JoinedStep, PlainStep
from benchmarks.random_examples import random_examples
from pipeline.shards.shard import Modality
from trainer.data.machine_memory import prepare_memory
from trainer.data.resident import Resident
from trainer.settings.presets import preset_values
from trainer.settings.run_settings import Settings, build
from trainer.training.precision import precision
from trainer.training.step import Step

ROWS, WIDTH, CLASSES = 60_000, 392, 10
LABELLED, TEST = 100, 1000  # rows
SIZE, CUDA_SIZE = 2048, 8192  # rows and columns of the matrices in the large product


def digits(replicas: int, device: torch.device) -> Resident:
    """Random examples in the shape of hmMNIST."""
    modalities = Modality("x", WIDTH, "bernoulli"), Modality("w", WIDTH, "bernoulli")
    return random_examples(
        modalities, CLASSES, rows=ROWS, labelled=LABELLED, test=TEST, replicas=replicas, device=device
    )


def stack(replicas: int, precision_: str, fused: bool = False) -> list[Settings]:
    """The settings of a stack of sshmvae-kl in the MNIST preset."""
    base = {
        **preset_values("mnist", "sshmvae-kl"),
        "model": "sshmvae-kl",
        "data": "random",
        "beta": 0.1,
        "precision": precision_,
        "fused": fused,
    }
    return [build({**base, "seed": seed}) for seed in range(replicas)]


class Stepper:
    """Takes training steps, one per call."""

    def __init__(self, replicas: int, device: torch.device, eager: bool, precision_: str, fused: bool = False) -> None:
        self.data = digits(replicas, device)
        self.step = Step(stack(replicas, precision_, fused), self.data, device, eager=eager)
        self.number = 0

    def __call__(self) -> None:
        self.step(self.number)
        self.number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--rounds", type=int, default=20, help="number of turns per candidate")
    parser.add_argument("--precision", default="fp32", help="fp32, tf32 or bf16")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON lines")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    prepare_memory()
    device = torch.device(options.device)
    rows = Rows("step", device)
    with precision(stack(1, options.precision)[0], device):
        if device.type == "cuda":
            on_cuda(rows, device, options.rounds, options.precision)
        else:
            on_cpu(rows, device, options.rounds, options.precision)
    rows.write(options.out)


def on_cpu(rows: Rows, device: torch.device, rounds: int, precision_: str) -> None:
    """Measures 1 to 4 on a CPU."""
    one, four = (Stepper(replicas, device, True, precision_) for replicas in (1, 4))
    plain, joined = plain_stepper(one, device), plain_stepper(one, device, JoinedStep)
    with FlopCounterMode(display=False) as counter:
        one()
    operations = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        plain()
    assert counter.get_total_flops() == operations, "the plain step does the same arithmetic"
    with FlopCounterMode(display=False) as counter:
        joined()
    assert counter.get_total_flops() == operations, "so does the joined one"
    candidates: dict[str, Callable[[], object]] = {
        "R = 1": one,
        "plain": plain,
        "joined": joined,
        "R = 4": four,
        "matrix product": matrix_product(device, SIZE),
    }
    seconds = in_turn(candidates, device, rounds)
    medians = {name: middle(values) for name, values in seconds.items()}
    spreads = {name: f"{100 * spread(values):.1f} %" for name, values in seconds.items()}
    rate, best = operations / medians["R = 1"], 2 * SIZE**3 / medians["matrix product"]
    rows.add("rate of a step / rate of a large matrix product", rate / best, ">= 0.75",
             gflops=round(rate / 1e9, 1), best_gflops=round(best / 1e9, 1), operations=operations)  # fmt: skip
    rows.add("rate of a plain step in one joined pass / the same", operations / medians["joined"] / best,
             seconds=round(medians["joined"], 4))  # fmt: skip
    rows.add("step at R = 1 / the same step without a replica axis", medians["R = 1"] / medians["plain"], "<= 1.05",
             seconds=round(medians["R = 1"], 4), plain_seconds=round(medians["plain"], 4), spreads=spreads)  # fmt: skip
    rows.add("time per replica at R = 4 / at R = 1", medians["R = 4"] / 4 / medians["R = 1"], "<= 1.1",
             seconds=round(medians["R = 4"], 4))  # fmt: skip


def on_cuda(rows: Rows, device: torch.device, rounds: int, precision_: str) -> None:
    """Measures eager, captured and fused steps on a GPU."""
    product = in_turn({"product": matrix_product(device, CUDA_SIZE)}, device, rounds)["product"]
    best = 2 * CUDA_SIZE**3 / middle(product)
    rows.add("large matrix product, TFLOP/s", best / 1e12, precision=precision_)
    for kind in ("eager", "captured", "captured and fused"):
        for replicas in (1, 5, 10, 15, 20):
            stepper = Stepper(replicas, device, kind == "eager", precision_, kind.endswith("fused"))
            counting = Stepper(1, device, True, precision_)
            with FlopCounterMode(display=False) as counter:
                counting()
            seconds = in_turn({"step": stepper}, device, 5 * rounds, warm_up=10)["step"]
            rate = replicas * counter.get_total_flops() / middle(seconds)
            rows.add(f"milliseconds a step, {kind}, R = {replicas}", 1e3 * middle(seconds),
                     per_replica_ms=round(1e3 * middle(seconds) / replicas, 4), spread=round(spread(seconds), 4),
                     share_of_matrix_rate=round(rate / best, 4))  # fmt: skip
    plain = plain_stepper(Stepper(1, device, True, precision_), device)
    seconds = in_turn({"plain": plain}, device, 5 * rounds, warm_up=10)["plain"]
    rows.add("milliseconds a step without a replica axis, eager", 1e3 * middle(seconds))


def plain_stepper(like: Stepper, device: torch.device, kind: type[PlainStep] = PlainStep) -> "PlainStepper":
    """A plain stepper over the batches of a stepper."""
    return PlainStepper(like.step, like.data, device, kind)


class PlainStepper:
    """Takes plain steps over the same streams of batches, one per call."""

    def __init__(self, step: Step, data: Resident, device: torch.device, kind: type[PlainStep]) -> None:
        self.streams = step.batches.labelled[0], step.batches.unlabelled[0]
        self.device = device
        self.settings = step.settings
        rate = step.settings.learning_rate
        self.step = kind(data.features["x"], data.features["w"], data.label, CLASSES, rate)
        self.number = 0

    def __call__(self) -> None:
        labelled, unlabelled = (torch.from_numpy(stream.batch(self.number)).to(self.device) for stream in self.streams)
        self.step(labelled, unlabelled, self.settings.alpha, self.settings.beta)
        self.number += 1


if __name__ == "__main__":
    main()
