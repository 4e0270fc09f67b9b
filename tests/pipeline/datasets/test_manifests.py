"""Manifests are typed and complete; their files are found, verified, or fetched from a server of the test's own."""

import contextlib
import hashlib
import http.server
import logging
import shutil
import socket
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.datasets import manifests
from pipeline.datasets.manifests import Manifest, Record, RemoteFile, fetch, load, names, verify
from pipeline.runtime.errors import DataError, StorageError

CONTENT = hashlib.sha256(b"").digest() * 100_000  # 3.2 MB: several pieces


class Handler(http.server.BaseHTTPRequestHandler):
    """/good serves CONTENT, with ranges; the other paths each fail in their own way."""

    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        wanted = self.headers.get("Range")
        server.seen.append((self.path, wanted))
        assert self.headers["Accept-Encoding"] == "identity"
        content = {"/wrong": b"x" * len(CONTENT), "/short": b"<html>", "/endless": CONTENT + bytes(10**7)}.get(
            self.path, CONTENT
        )
        if self.path == "/missing":
            return self.send_error(404)
        if wanted and self.path not in ("/no-range", "/cut-no-range"):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            content = content[start:]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.path.startswith("/cut") and server.cuts > 0:
            server.cuts -= 1
            content = content[: len(content) // 2]  # and the connection closes
        self.wfile.write(content)
        return None

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client has seen enough
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str | None]] = []
        self.cuts = 0
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def manifest(*urls: str) -> Manifest:
    file = RemoteFile(
        name="a.bin", urls=urls, size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest(), trust="made here"
    )
    return Manifest(name="made", title="Made up", homepage="https://example.org", licence="none", files=(file,))


def whole_pieces(size: int) -> int:
    """How much of `size` bytes is kept when the connection breaks off after them."""
    return size - size % 2**16


def in_folder(raw: Path) -> list[str]:
    return sorted(path.name for path in (raw / "made").iterdir())


# --- files without an address ---------------------------------------------------------------------------------------


def test_a_file_of_which_no_address_is_known_is_found_or_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = manifest("http://example.org/a")
    made = made.model_copy(update={"files": (made.files[0].model_copy(update={"urls": ()}),)})
    with pytest.raises(DataError, match=r"cannot get .*: no address of it is known$") as caught:
        fetch(made, tmp_path / "raw")
    assert f"put it into {tmp_path / 'raw' / made.name}/" in str(caught.value.hint)
    place = tmp_path / "shared" / made.name / made.files[0].name
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    monkeypatch.setenv("MMSSL_DATA", str(tmp_path / "shared"))
    assert list(fetch(made, tmp_path / "raw").values()) == [place]


# --- records ---------------------------------------------------------------------------------------------------------


def test_every_manifest_with_files_is_valid() -> None:
    assert "mnist" in names()
    for name in names():
        folder = Path(manifests.__file__).parents[2] / "data_manifests"
        content = tomllib.loads((folder / f"{name}.toml").read_text("utf-8"))
        assert content["name"] == name
        for file in content["files"]:
            RemoteFile.model_validate(file)


def test_mnist_equals_the_published_facts() -> None:
    mnist = load("mnist")
    assert {file.name: file.md5 for file in mnist.files} == {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    for file in mnist.files:
        assert file.urls == (
            f"https://ossci-datasets.s3.amazonaws.com/mnist/{file.name}",
            f"https://storage.googleapis.com/cvdf-datasets/mnist/{file.name}",
        )


def test_mnist_equals_the_real_files(real_data: Path) -> None:
    if not (real_data / "mnist").is_dir():
        pytest.skip(f"MNIST is not in {real_data}")
    for file in load("mnist").files:
        path = real_data / "mnist" / file.name
        verify(file, path)
        assert hashlib.md5(path.read_bytes()).hexdigest() == file.md5


@pytest.mark.parametrize("name", ["cifar", "", "../pyproject", "mnist.toml"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="there is no data set"):
        load(name)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"sha256": "abc"},
        {"urls": ("ftp://example.org/a",)},
        {"name": "../a"},
        {"name": ".a"},
        {"colour": "red"},
    ],
)
def test_a_record_that_means_nothing_is_refused(change: dict[str, object]) -> None:
    good = manifest("http://example.org/a").files[0].model_dump()
    RemoteFile.model_validate(good)
    with pytest.raises(ValidationError):
        RemoteFile.model_validate(good | change)


def test_a_manifest_of_another_kind() -> None:
    class Title(Record):
        title: str

    with pytest.raises(ValidationError, match="homepage"):
        load("mnist", Title)


# --- files that are there --------------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_used(tmp_path: Path, server: Server) -> None:
    path = tmp_path / "made" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert fetch(manifest(f"{server.url}/good"), tmp_path) == {"a.bin": path}
    assert server.seen == []


def test_a_file_of_the_users_is_used_in_place(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine" / "made" / "a.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    monkeypatch.setenv("MMSSL_DATA", str(tmp_path / "mine"))
    assert fetch(manifest(f"{server.url}/good"), tmp_path / "raw") == {"a.bin": path}
    assert server.seen == []
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize(("content", "words"), [(CONTENT[:-1], "3,199,999 bytes"), (b"x" * len(CONTENT), "sha256")])
@pytest.mark.parametrize("place", ["raw", "mine"])
def test_a_wrong_file_is_named_and_kept(
    content: bytes, words: str, place: str, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / place / "made" / "a.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    monkeypatch.setenv("MMSSL_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataError, match=words) as caught:
        fetch(manifest(f"{server.url}/good"), tmp_path / "raw")
    assert str(path) in caught.value.message
    assert path.read_bytes() == content
    assert server.seen == []


# --- downloads -------------------------------------------------------------------------------------------------------


def test_a_download(tmp_path: Path, server: Server) -> None:
    paths = fetch(manifest(f"{server.url}/good"), tmp_path)
    assert paths["a.bin"].read_bytes() == CONTENT
    assert in_folder(tmp_path) == ["a.bin"]
    assert server.seen == [("/good", None)]


@pytest.mark.parametrize("first", ["missing", "wrong", "short", "endless"])
def test_the_second_mirror_is_tried(
    first: str, tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    paths = fetch(manifest(f"{server.url}/{first}", f"{server.url}/good"), tmp_path)
    assert paths["a.bin"].read_bytes() == CONTENT
    assert in_folder(tmp_path) == ["a.bin"]
    assert [path for path, _ in server.seen] == [f"/{first}", "/good"]
    assert f"/{first}" in caplog.text


def test_a_cut_connection_is_resumed(tmp_path: Path, server: Server) -> None:
    server.cuts = 2
    paths = fetch(manifest(f"{server.url}/cut"), tmp_path)
    assert paths["a.bin"].read_bytes() == CONTENT
    first = whole_pieces(len(CONTENT) // 2)
    second = first + whole_pieces((len(CONTENT) - first) // 2)
    assert server.seen == [("/cut", None), ("/cut", f"bytes={first}-"), ("/cut", f"bytes={second}-")]


def test_a_later_call_goes_on_where_an_earlier_one_was_killed(tmp_path: Path, server: Server) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / ".a.bin.part").write_bytes(CONTENT[:1234])
    paths = fetch(manifest(f"{server.url}/good"), tmp_path)
    assert paths["a.bin"].read_bytes() == CONTENT
    assert server.seen == [("/good", "bytes=1234-")]
    assert in_folder(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("part", [b"another file", b"x" * len(CONTENT), CONTENT + b"x", CONTENT])
def test_a_part_of_other_bytes_is_dropped(part: bytes, tmp_path: Path, server: Server) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / ".a.bin.part").write_bytes(part)
    assert fetch(manifest(f"{server.url}/good"), tmp_path)["a.bin"].read_bytes() == CONTENT
    assert in_folder(tmp_path) == ["a.bin"]


def test_a_server_without_ranges_starts_again(tmp_path: Path, server: Server) -> None:
    server.cuts = 1
    assert fetch(manifest(f"{server.url}/cut-no-range"), tmp_path)["a.bin"].read_bytes() == CONTENT
    assert server.seen[1] == ("/cut-no-range", f"bytes={whole_pieces(len(CONTENT) // 2)}-")


def test_a_server_that_always_breaks_off_gives_up(tmp_path: Path, server: Server) -> None:
    server.cuts = 10**6
    with pytest.raises(DataError, match="broke off"):
        fetch(manifest(f"{server.url}/cut-no-range"), tmp_path)
    assert in_folder(tmp_path) == [".a.bin.part"]  # kept, for the next try


def test_no_network_is_one_sentence(tmp_path: Path, server: Server) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        closed_url = f"http://127.0.0.1:{closed.getsockname()[1]}/a"
        with pytest.raises(DataError) as caught:
            fetch(manifest(closed_url, f"{server.url}/missing", f"{server.url}/wrong"), tmp_path)
    message, hint = caught.value.message, caught.value.hint
    assert "\n" not in message
    assert f"{closed_url} (no connection" in message
    assert "/missing (HTTP 404)" in message
    assert "/wrong (it serves other bytes)" in message
    assert hint
    assert str(tmp_path / "made") in hint
    assert "MMSSL_DATA" in hint
    assert not (tmp_path / "made" / "a.bin").exists()


def test_progress_is_logged(
    tmp_path: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(manifests, "_REPORT_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    fetch(manifest(f"{server.url}/good"), tmp_path)
    assert "a.bin: 3 of 3 MB" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_a_full_disk(small_disk: Path, server: Server) -> None:
    with pytest.raises(StorageError, match="the disk is full"):
        fetch(manifest(f"{server.url}/good"), small_disk)
    assert not (small_disk / "made" / "a.bin").exists()
    shutil.rmtree(small_disk / "made")
