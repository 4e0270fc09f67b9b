"""What serving costs, and what it stands: `mmssl serve` as a process of its own, asked over HTTP.

    python -m benchmarks.serve [--seconds 60] [--clients 64] [--threads 1] [--rounds 20] [--out rows.jsonl]

Latency: one client with one connection asks for one row, and for the same row a model loaded in this process is asked
as `mmssl predict` asks it; in turn. Two kinds of rows: two picture files through two VGG16, and vectors through the
networks of the paper's MNIST. Load: many clients, each with a connection of its own, ask for rows with both modalities
or one of them for a minute; each answer is compared with what the model says in this process. Memory is the server's
resident set after some seconds of load, and at its end. Weights are random or nearly so, which costs as much.
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import torch

import mmssl
from benchmarks import frame
from benchmarks.encode import picture
from benchmarks.measure import Rows, in_turn
from pipeline.images.store import MODALITIES
from pipeline.shards.schema import Modality
from pipeline.shards.writing import PartData, write_shard
from trainer.inference.bundle_writing import write_bundle
from trainer.inference.exporting import gather
from trainer.inference.loaded_model import LoadedModel

GOAL = "<= 1.3"
WIDTH, CLASSES, KNOWN = 392, 10, 300  # values of each of two modalities, classes, and rows that are asked for
SUBSETS = (("x", "w"), ("x",), ("w",))
WARM_SECONDS = 5  # of load before memory is first read
CLOSE = 1e-5  # probabilities have six digits, and batches of other sizes round otherwise
GROWTH_MB = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="length of the load")
    parser.add_argument("--clients", type=int, default=64, help="clients at once")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch, here and in the server")
    parser.add_argument("--rounds", type=int, default=20, help="number of measurements of latency")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON lines")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = Rows("serve", torch.device("cpu"))
    with tempfile.TemporaryDirectory(prefix="mmssl-") as name:
        folder = Path(name)
        vectors = vector_bundle(folder / "vectors")
        model = mmssl.load(vectors, device="cpu")
        cases = known_cases(model)
        with served(vectors, options.threads) as server:
            latency(rows, "vectors", server, model, cases[0], options)
        with served(vectors, options.threads) as server:
            load(rows, server, cases, options)
        (folder / "frames").mkdir()
        model, _ = frame.make(folder / "frames", "vgg16", 148, torch.device("cpu"))
        files = {str(modality): picture(folder, modality) for modality in MODALITIES}
        with served(folder / "frames" / "model", options.threads) as server:
            case = Case({name: [path] for name, path in files.items()}, *form(files), np.empty(0))
            latency(rows, "two pictures", server, model, case, options)
    rows.write(options.out)


@dataclass(frozen=True)
class Case:
    """A row as the model is asked here, as the server is asked, and the probabilities `[K]` that it has to give."""

    inputs: dict[str, Any]
    body: bytes
    kind: str
    expected: Any


def known_cases(model: LoadedModel) -> list[Case]:
    """Rows with both modalities or one of them, and what the model says of each alone."""
    rng, cases = np.random.default_rng(0), []
    for number in range(KNOWN):
        given = SUBSETS[number % len(SUBSETS)]
        inputs = {name: rng.random((1, WIDTH)).astype(np.float32).round(4) for name in given}
        body = json.dumps({"inputs": {name: values.tolist() for name, values in inputs.items()}}).encode()
        cases.append(Case(inputs, body, "application/json", model.predict_proba(inputs)[0]))
    return cases


def form(files: dict[str, Path]) -> tuple[bytes, str]:
    """A form of picture files, and its content type."""
    parts = [
        f'--frame\r\nContent-Disposition: form-data; name="{name}"; filename="{path.name}"\r\n\r\n'.encode()
        + path.read_bytes()
        for name, path in files.items()
    ]
    return b"\r\n".join([*parts, b"--frame--\r\n"]), "multipart/form-data; boundary=frame"


def vector_bundle(folder: Path) -> Path:
    """A bundle of networks as of the paper's MNIST, after one epoch on noise."""
    rng = np.random.default_rng(0)

    def part(name: str, rows: int) -> PartData:
        features = {name: rng.random((rows, WIDTH), np.float32) for name in ("x", "w")}
        return PartData(features, np.arange(rows) % CLASSES, [f"{name}-{row}" for row in range(rows)])

    folder.mkdir()
    shard = write_shard(
        folder / "shard.h5",
        dataset="noise",
        classes=[f"class {k}" for k in range(CLASSES)],
        modalities=[Modality(name, WIDTH, "bernoulli") for name in ("x", "w")],
        train=part("train", 2000),
        test=part("test", 200),
    )
    (run,) = mmssl.train("sshmvae-kl", shard, out=folder / "runs", device="cpu", preset="mnist", epochs=1, labels=100)
    write_bundle(gather([run], shard=shard), folder / "model")
    return folder / "model"


# --- the server and its clients ---


@dataclass(frozen=True)
class Served:
    """A server's address and process."""

    address: str
    process: psutil.Process

    @property
    def memory(self) -> float:
        """Resident memory in MB."""
        return float(self.process.memory_info().rss) / 2**20

    @property
    def cpu_seconds(self) -> float:
        """Processor time so far, in steps of some milliseconds."""
        times = self.process.cpu_times()
        return float(times.user) + float(times.system)


@contextmanager
def served(bundle: Path, threads: int) -> Iterator[Served]:
    """`mmssl serve` as a user starts it."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "cli", "serve", str(bundle), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield Served(line.rsplit(" at ", 1)[1].strip(), psutil.Process(process.pid))
        finally:
            process.terminate()
            code = process.wait(timeout=60)
    assert code == 0, f"the server ended with code {code}"


class Connection:
    """One client."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        assert parts.hostname is not None
        self._http = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)

    def ask(self, case: Case) -> dict[str, Any]:
        """The server's answer to a row."""
        self._http.request("POST", "/predict?probabilities=true", case.body, {"content-type": case.kind})
        reply = self._http.getresponse()
        content = reply.read()
        if reply.status != 200:
            raise ConnectionError(f"{reply.status}: {content[:200]!r}")
        (answer,) = json.loads(content)["predictions"]
        return dict(answer)


def latency(rows: Rows, what: str, server: Served, model: LoadedModel, case: Case, options: argparse.Namespace) -> None:
    """Times one row, asked over HTTP and in this process."""
    client = Connection(server.address)

    def here() -> object:
        return model.predictions(case.inputs).columns(probabilities=True)

    candidates: dict[str, Callable[[], object]] = {"predict": here, "serve": lambda: client.ask(case)}
    seconds = in_turn(candidates, torch.device("cpu"), options.rounds)
    ratios = [b / a for a, b in zip(seconds["predict"], seconds["serve"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    rows.add(
        f"one row of {what}: asked over HTTP / in the same process", middle, GOAL,
        quartiles=[round(low, 3), round(high, 3)], threads=options.threads,
        serve_ms=round(1e3 * statistics.median(seconds["serve"]), 2),
        predict_ms=round(1e3 * statistics.median(seconds["predict"]), 2), load=round(os.getloadavg()[0], 1),
    )  # fmt: skip
    calls = max(10, min(400, round(5 / statistics.median(seconds["predict"]))))
    here_cpu = cpu_seconds(here, calls, process_time=time.process_time)
    client = Connection(server.address)  # the other one may have been idle for too long
    serve_cpu = cpu_seconds(
        lambda: client.ask(case), calls, process_time=lambda: time.process_time() + server.cpu_seconds
    )
    rows.add(
        f"one row of {what}: processor time over HTTP, client's and server's / in the same process",
        serve_cpu / here_cpu, GOAL,
        serve_ms=round(1e3 * serve_cpu, 2), predict_ms=round(1e3 * here_cpu, 2), calls=calls,
    )  # fmt: skip


def cpu_seconds(call: Callable[[], object], calls: int, process_time: Callable[[], float]) -> float:
    """Processor time of one call."""
    begun = process_time()
    for _ in range(calls):
        call()
    return (process_time() - begun) / calls


def load(rows: Rows, server: Served, cases: list[Case], options: argparse.Namespace) -> None:
    """Many clients at once, for a while."""
    end = time.monotonic() + WARM_SECONDS + options.seconds
    counts = [{"answered": 0, "lost": 0, "wrong": 0} for _ in range(options.clients)]
    waits: list[float] = []
    names = [f"p(class {k})" for k in range(CLASSES)]

    def client(number: int) -> None:
        connection, count, k = Connection(server.address), counts[number], 7 * number
        while time.monotonic() < end:
            case, begun = cases[k % len(cases)], time.perf_counter()
            k += 1
            try:
                answer = connection.ask(case)
            except (OSError, http.client.HTTPException) as error:
                print(f"lost: {error}", file=sys.stderr)
                count["lost"] += 1
                connection = Connection(server.address)
                continue
            waits.append(time.perf_counter() - begun)
            found = np.array([answer[name] for name in names])
            count["wrong" if np.abs(found - case.expected).max() > CLOSE else "answered"] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(options.clients)]
    for thread in threads:
        thread.start()
    time.sleep(WARM_SECONDS)
    before, start, first = server.memory, time.monotonic(), len(waits)
    time.sleep(max(0.0, end - time.monotonic()))
    after, rate = server.memory, (len(waits) - first) / (time.monotonic() - start)
    for thread in threads:
        thread.join()
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    what = f"{options.clients} clients for {options.seconds:g} seconds"
    half, most = (round(1e3 * float(value), 1) for value in np.quantile(waits, (0.5, 0.99)))
    rows.add(f"{what}: rows per second", rate, answered=total["answered"], threads=options.threads,
             wait_ms={"median": half, "99 %": most})  # fmt: skip
    rows.add(f"{what}: answers lost", total["lost"], "0")
    rows.add(f"{what}: answers wrong", total["wrong"], "0", tolerance=CLOSE)
    rows.add(f"{what}: growth of resident memory, MB", after - before, f"<= {GROWTH_MB}",
             start_mb=round(before, 1), end_mb=round(after, 1))  # fmt: skip


if __name__ == "__main__":
    main()
