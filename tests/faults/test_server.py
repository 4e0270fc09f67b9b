"""A server under load and abuse: right answers to many at once, one sentence for what is refused, and it lives on."""

import http.client
import io
import json
import os
import re
import signal
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytest.importorskip("httpx", reason="the tests of a server need httpx")

import httpx

from commands.encoders import locate, open_encoder
from pipeline.shards.shard import Shard
from tests.support.faults import Tally
from tests.support.served import PictureModel, make_picture_model, serving, tiny_networks
from tests.support.waiting import until
from tests.support.zygote import Zygote
from trainer.inference.loaded_model import open_model
from trainer.serving import server as server_module
from trainer.serving.limits import Limits

CLIENTS = 64
MB = 2**20
TOKEN = "opensesame"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PictureModel:
    with tiny_networks():
        return make_picture_model(tmp_path_factory.mktemp("served"))


@dataclass
class Served:
    """`mmssl serve` as a process of its own."""

    address: str
    process: int
    log: Path

    @property
    def most_memory(self) -> int:
        """The most bytes that it has had in memory so far."""
        status = Path(f"/proc/{self.process}/status").read_text()
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status)[0])

    def connect(self) -> socket.socket:
        parts = urlsplit(self.address)
        return socket.create_connection((parts.hostname, parts.port), timeout=20)


def start(zygote: Zygote, folder: Path, *arguments: object) -> Served:
    log = folder / "serve.log"
    log.touch()
    process = zygote.start("serve", *arguments, "--port", 0, "--device", "cpu", log=log)
    until(lambda: "Ctrl-C stops" in log.read_text() or "exit" in log.read_text(), "no server", folder)
    found = re.search(r"at (http://[\d.]+:\d+)", log.read_text())
    assert found is not None, log.read_text()
    return Served(found[1], process, log)


@pytest.fixture
def served(zygote: Zygote, model: PictureModel, tmp_path: Path) -> Iterator[Served]:
    """A server that has to live, and to end with code 0 when it is asked to."""
    running = start(zygote, tmp_path, model.bundle, "--examples", model.shard)
    yield running
    stop(zygote, running)


def stop(zygote: Zygote, running: Served) -> None:
    """It lives, and ends when it is asked to, with code 0 and without complaint."""
    assert httpx.get(running.address + "/healthz").json() == {"status": "ok"}
    os.kill(running.process, signal.SIGTERM)
    assert zygote.wait(running.process) == 0
    assert running.log.read_text().endswith("stopped\nexit 0\n")
    assert "Traceback" not in running.log.read_text()


def body_of(model: PictureModel, row: int) -> bytes:
    test = Shard.open(model.shard).test
    return json.dumps({"inputs": {name: [test.features(name)[row].tolist()] for name in ("rgb", "depth")}}).encode()


def ask(address: str, body: bytes, **headers: str) -> httpx.Response:
    return httpx.post(f"{address}/predict", content=body, headers={"content-type": "application/json", **headers})


def head(path: str, length: int, *lines: str) -> bytes:
    more = "".join(f"{line}\r\n" for line in lines)
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n{more}\r\n"
    ).encode()


def reply_of(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of what a server says before it closes or falls silent; 0 for nothing at all."""
    received = b""
    connection.settimeout(10)
    try:
        while chunk := connection.recv(2**16):
            received += chunk
            top, _, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", top)
            if length is not None and len(body) >= int(length[1]):
                break
    except (ConnectionError, TimeoutError):
        pass
    status = re.match(rb"HTTP/1.1 (\d+)", received)
    return int(status[1]) if status else 0, received.partition(b"\r\n\r\n")[2]


def test_many_clients_at_once_each_get_their_own_answer(served: Served, model: PictureModel, tally: Tally) -> None:
    loaded, shard = open_model(model.bundle, "cpu", open_encoder, locate), Shard.open(model.shard)
    subsets = (("rgb", "depth"), ("rgb",), ("depth",))
    cases = [(row, given) for row in range(shard.test.rows) for given in subsets]
    expected = {}
    for row, given in cases:
        x = {name: shard.test.features(name)[row : row + 1] for name in given}
        expected[row, given] = loaded.predictions(x).probabilities[0]

    def client(number: int) -> int:
        with httpx.Client(base_url=served.address, timeout=60) as http:
            for k in range(3):
                row, given = cases[(number + 7 * k) % len(cases)]
                if (number + k) % 8 == 0:  # pictures between the vectors
                    files = {name: model.picture(24 + row, name).read_bytes() for name in given}
                    reply = http.post("/predict?probabilities=true", files=files)
                else:
                    inputs = {name: [shard.test.features(name)[row].tolist()] for name in given}
                    reply = http.post("/predict?probabilities=true", json={"inputs": inputs})
                (answer,) = reply.json()["predictions"]
                found = [answer[f"p({name})"] for name in shard.classes]
                np.testing.assert_allclose(found, expected[row, given], atol=2e-5)
                assert answer["given"] == "+".join(given)
        return 3

    with ThreadPoolExecutor(CLIENTS) as pool:
        tally("requests of 64 clients at once, answered right", sum(pool.map(client, range(CLIENTS))))


def test_beyond_the_queue_it_says_when_to_come_back(model: PictureModel) -> None:
    body = body_of(model, 0)
    with serving(model.server(Limits(waiting=2)).application()) as address:
        waiting = [socket.create_connection(("127.0.0.1", urlsplit(address).port), timeout=20) for _ in range(2)]
        for connection in waiting:
            connection.sendall(head("/predict", len(body)) + body[:10])
        until(lambda: httpx.post(address + "/predict", content=b"{}").status_code == 503, "not full", Path())
        refused = ask(address, body)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"] == "2 requests are waiting already"
        assert httpx.get(address + "/healthz").status_code == 200
        for connection in waiting:
            connection.sendall(body[10:])
            assert reply_of(connection)[0] == 200
            connection.close()


def test_slow_clients_are_sent_away_and_others_go_on(model: PictureModel, monkeypatch: pytest.MonkeyPatch) -> None:
    body = body_of(model, 0)
    monkeypatch.setattr(server_module, "HEADER_SECONDS", 0.5)
    with serving(model.server(Limits(seconds=0.7)).application()) as address:
        port = urlsplit(address).port
        silent = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(20)]
        silent[0].sendall(b"POST /predict HTTP/1.1\r\nHost: loc")  # and never more
        silent[1].sendall(head("/predict", len(body)) + body)
        assert reply_of(silent[1])[0] == 200
        silent[1].sendall(b"POST /pre")  # a good request, and one that never ends
        slow = socket.create_connection(("127.0.0.1", port), timeout=20)
        slow.sendall(head("/predict", len(body)) + body[:10])
        busy, end = http.client.HTTPConnection("127.0.0.1", port, timeout=20), time.monotonic() + 2.5
        while time.monotonic() < end:  # on one connection, which nobody closes
            busy.request("POST", "/predict", body, {"content-type": "application/json"})
            reply = busy.getresponse()
            assert (reply.status, bool(reply.read())) == (200, True)
            assert busy.sock is not None
            time.sleep(0.05)
        busy.close()
        status, said = reply_of(slow)
        assert (status, json.loads(said)["error"]) == (408, "the request did not arrive within 0.7 seconds")
        for connection in silent:
            assert connection.recv(1) == b""  # closed
            connection.close()
        slow.close()


def test_a_client_that_reads_nothing_is_sent_away_with_what_it_did_not_read(
    model: PictureModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = Shard.open(model.shard).train.features("rgb").tolist()
    many = json.dumps({"inputs": {"rgb": features * 400}}).encode()  # answered with 3 MB
    monkeypatch.setattr(server_module, "HEADER_SECONDS", 0.5)
    with serving(model.server().application()) as address, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", urlsplit(address).port))
        deaf.sendall(head("/predict?probabilities=true", len(many)) + many)
        time.sleep(4)
        assert ask(address, body_of(model, 0)).status_code == 200
        status, said = reply_of(deaf)
        assert (status, said.endswith(b"]}")) == (200, False)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "in chunks"])
def test_a_large_upload_is_refused_early(served: Served, model: PictureModel, declared: bool) -> None:
    for _ in range(2):
        good = httpx.post(served.address + "/predict", files={"rgb": model.picture(0, "rgb").read_bytes()})
        assert good.status_code == 200
    before, sent, total = served.most_memory, 0, 200 * MB
    with served.connect() as connection:
        if declared:
            connection.sendall(head("/predict", total))
        else:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            opening = b'--b\r\nContent-Disposition: form-data; name="rgb"; filename="a.png"\r\n\r\n'
            connection.sendall(b"%x\r\n%s\r\n" % (len(opening), opening))
        connection.settimeout(0.2)
        try:
            while sent < total and not declared:
                connection.sendall(b"%x\r\n%s\r\n" % (MB, bytes(MB)))
                sent += MB
                if connection in _readable(connection):
                    break
        except (ConnectionError, TimeoutError):
            pass
        status, said = reply_of(connection)
    assert status == 413
    assert json.loads(said)["error"] == "a request may have 32 MB, and this one has more"
    assert sent < total / 2
    assert served.most_memory - before < 80 * MB


def _readable(connection: socket.socket) -> list[Any]:
    import select

    return select.select([connection], [], [], 0)[0]


def bombs() -> dict[str, bytes]:
    """Small files that declare much."""
    file = io.BytesIO()
    Image.new("L", (6_000, 6_000)).save(file, "PNG")
    tiff = io.BytesIO()
    Image.new("L", (6_000, 6_000)).save(tiff, "TIFF", compression="tiff_adobe_deflate")
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        array, {"descr": "|u1", "fortran_order": False, "shape": (2_000_000, 1_000_000, 3)}
    )
    text = b"iCCPa\0\0" + zlib.compress(bytes(100 * MB), 9)  # a colour profile of 100 MB
    chunk = len(text[4:]).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "PNG")
    profile = small.getvalue()[:33] + chunk + small.getvalue()[33:]
    return {"a.png": file.getvalue(), "a.tif": tiff.getvalue(), "a.npy": array.getvalue(), "profile.png": profile}


def test_bombs_are_refused_before_they_are_unpacked(served: Served, model: PictureModel) -> None:
    assert httpx.post(served.address + "/predict", files={"rgb": model.picture(0, "rgb").read_bytes()}).is_success
    for name, content in bombs().items():
        before = served.most_memory
        reply = httpx.post(served.address + "/predict", files={"rgb": (name, content)}, timeout=30)
        assert served.most_memory - before < 60 * MB, name
        if name == "profile.png" and reply.is_success:
            continue  # read without its profile
        assert reply.status_code in (413, 422), (name, reply.text)
        assert name in reply.json()["error"]


NOT_HTTP = {
    "noise": bytes(range(256)) * 8,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a header without an end": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000,
    "a negative length": b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    "two lengths": b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}{}{}",
    "length and chunks": head("/predict", 4, "Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n",
    "broken chunks": b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n",
    "a huge length": head("/predict", 10**30),
    "a form without an end": b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\nabcd",
    "a form without a boundary": b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
    b"Content-Type: multipart/form-data\r\n\r\nab",
}  # fmt: skip
TRICKS = (
    "/static/../pages.py", "/static/%2e%2e/pages.py", "/static/..%2fpages.py", "/static//etc/passwd",
    "/../../etc/passwd",
    "//etc/passwd", "/static/explore.js%00.css", "/static/%5c..%5cpages.py", "/pictures/test/-1/rgb",
    "/pictures/..%2f..%2f/0/rgb", "/pictures/test/0/..%2f..%2fetc%2fpasswd", "/pictures/test/99999999999999999999/rgb",
    "/examples/../predict", "/%ff%fe", "http://evil.example/", "/examples?from=-1", "/examples?from=9" + "9" * 5000,
)  # fmt: skip


def test_what_is_not_http_and_paths_that_lead_elsewhere(served: Served, tally: Tally) -> None:
    for what, sent in NOT_HTTP.items():
        with served.connect() as connection:
            try:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            assert reply_of(connection)[0] in (0, 400, 403, 413, 415, 422, 431), what
        assert httpx.get(served.address + "/healthz").status_code == 200, what
    for path in TRICKS:
        with served.connect() as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            status, said = reply_of(connection)
        assert status in (400, 403, 404, 405, 414, 422), (path, status, said)
        assert b"root:" not in said, path
        assert b"import" not in said, path
    tally("broken requests and odd paths, refused", len(NOT_HTTP) + len(TRICKS))


def test_clients_that_hang_up_leave_nothing_behind(zygote: Zygote, model: PictureModel, tmp_path: Path) -> None:
    served, body = start(zygote, tmp_path, model.bundle, "--waiting", 4), body_of(model, 0)
    for k in range(40):
        with served.connect() as connection:
            connection.sendall((head("/predict", len(body)) + body)[: 60 + 20 * k])
    until(lambda: ask(served.address, body).status_code == 200, "full of those who left", tmp_path)
    stop(zygote, served)


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_what_is_being_answered_is_answered_before_it_stops(
    zygote: Zygote, model: PictureModel, tmp_path: Path, which: signal.Signals
) -> None:
    served = start(zygote, tmp_path, model.bundle)
    body = body_of(model, 0)
    many = json.dumps({"inputs": {"rgb": Shard.open(model.shard).train.features("rgb").tolist() * 400}}).encode()
    arriving, computing = served.connect(), served.connect()
    arriving.sendall(head("/predict", len(body)) + body[:10])
    computing.sendall(head("/predict", len(many)) + many)
    time.sleep(0.3)
    os.kill(served.process, which)
    time.sleep(0.5)
    with pytest.raises(OSError, match="refused"):
        served.connect()
    arriving.sendall(body[10:])
    answers: dict[str, tuple[int, bytes]] = {}

    def read(name: str, connection: socket.socket) -> None:
        answers[name] = reply_of(connection)

    readers = [
        threading.Thread(target=read, args=(name, connection))
        for name, connection in (("arriving", arriving), ("computing", computing))
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    arriving.close()
    computing.close()
    assert {name: status for name, (status, _) in answers.items()} == {"arriving": 200, "computing": 200}
    assert len(json.loads(answers["computing"][1])["predictions"]) == 24 * 400
    assert zygote.wait(served.process) == 0
    assert served.log.read_text().endswith("stopped\nexit 0\n")


def test_other_machines_need_the_token(zygote: Zygote, model: PictureModel, tmp_path: Path) -> None:
    log = tmp_path / "refused.log"
    assert zygote.run("serve", model.bundle, "--host", "0.0.0.0", "--port", 0, log=log) == 2
    assert "requests must bring a token" in log.read_text()
    served = start(zygote, tmp_path, model.bundle, "--host", "0.0.0.0", "--token", TOKEN)
    assert TOKEN not in served.log.read_text()
    for headers, status in (({}, 401), ({"authorization": "Bearer wrong-one"}, 401),
                            ({"authorization": f"Bearer {TOKEN}", "host": "robot.example"}, 200)):  # fmt: skip
        reply = ask(served.address, body_of(model, 0), **headers)
        assert reply.status_code == status, reply.text
    stop(zygote, served)
