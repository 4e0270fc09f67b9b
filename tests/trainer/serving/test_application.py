"""A served model: its answers are those of predicting, and what it cannot take is refused with a sentence."""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytest.importorskip("httpx", reason="the tests of a server need httpx")

from starlette.testclient import TestClient

from commands.serving_pictures import StorePictures
from pipeline.runtime.errors import DataError
from pipeline.shards.schema import Features
from tests.support.training import CPU, W, X, clusters, make_settings, make_shard, run_stack
from trainer.inference.exporting import gather
from trainer.inference.loaded_model import LoadedModel, of_bundle
from trainer.serving.application import Server
from trainer.serving.limits import Limits
from trainer.serving.pictures import Pixels

SMALL = Limits(body=64 * 1024, waiting=2, seconds=0.3, pixels=10_000, rows=50)
TOKEN = "opensesame"


class WidePictures:
    """Takes pictures for x, whose features are their mean colour and the mean of their rows; has none of any row."""

    def __init__(self) -> None:
        self.titles: Mapping[str, str] = {"x": "RGB"}

    def title(self, modality: str) -> str:
        return self.titles.get(modality, modality)

    def size(self, path: Path) -> tuple[int, int]:
        return StorePictures.size(None, path)  # type: ignore[arg-type]

    def prepared(self, modality: str, path: Path) -> Pixels:  # noqa: ARG002
        return np.zeros((4, 4, 3), np.uint8)

    def stored(self, modality: str, ids: Sequence[str]) -> list[Pixels | None]:  # noqa: ARG002
        return [None] * len(ids)


def encode(paths: Any) -> Features:
    from pipeline.datasets.pictures import read_colour

    pixels = [read_colour(path) if isinstance(path, Path) else path for path in paths]
    return np.stack([np.resize(one.mean((0, 1)) / 255, X.width).astype(np.float32) for one in pixels])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, Any]:
    folder = tmp_path_factory.mktemp("served")
    test = clusters("test", [k % 2 for k in range(30)], (X, W), seed=1)
    shard = make_shard(folder / "shard.h5", test=test)
    runs = run_stack(folder, [make_settings("sshmvae-kl", shard, epochs=3, learning_rate=3e-2)], [shard])
    return of_bundle(gather(runs, shard=shard), CPU, lambda _: encode), shard


@pytest.fixture
def serve(model: tuple[LoadedModel, Any]) -> Iterator[Callable[..., TestClient]]:
    """Starts a server in this process."""
    opened = []

    def start(**options: Any) -> TestClient:
        loaded, shard = model
        server = Server(loaded, WidePictures(), shard, **options)
        client = TestClient(server.application(), base_url="http://localhost", raise_server_exceptions=False)
        client.__enter__()
        opened.append(client)
        return client

    yield start
    for client in opened:
        client.__exit__(None, None, None)


def picture(width: int = 8, height: int = 6) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 80, np.uint8)).save(file, "PNG")
    return file.getvalue()


def sentence(reply: Any, status: int, *words: str) -> None:
    assert reply.status_code == status, reply.text
    content = reply.json()
    assert set(content) == {"error", "hint"}
    for word in words:
        assert word in content["error"], content


@pytest.mark.parametrize("given", [("x",), ("w",), ("x", "w")])
def test_json_rows_are_answered_as_predicting_answers_them(
    serve: Callable[..., TestClient], model: tuple[LoadedModel, Any], given: tuple[str, ...]
) -> None:
    loaded, shard = model
    x = {name: shard.test.features(name)[:7] for name in given}
    body = {"inputs": {name: values.tolist() for name, values in x.items()}, "id": list("abcdefg")}
    reply = serve().post("/predict?probabilities=true", json=body)
    assert reply.status_code == 200, reply.text
    columns = loaded.predictions(x).columns(probabilities=True)
    for k, row in enumerate(reply.json()["predictions"]):
        assert list(row) == ["id", *columns]
        assert row.pop("id") == "abcdefg"[k]
        for name, value in row.items():
            expected = columns[name][k]
            assert value == (pytest.approx(expected, abs=2e-6) if isinstance(expected, float) else expected), name


def test_rows_may_lack_different_modalities_and_have_numbers_for_names(serve: Callable[..., TestClient]) -> None:
    rows = {"x": [[0.5] * X.width, None], "w": [None, [0.5] * W.width]}
    predictions = serve().post("/predict", json={"inputs": rows}).json()["predictions"]
    assert [(row["id"], row["given"]) for row in predictions] == [("0", "x"), ("1", "w")]


@pytest.mark.parametrize("field", ["x", "rgb", "RGB"])
def test_a_form_holds_pictures_and_vectors(
    serve: Callable[..., TestClient], model: tuple[LoadedModel, Any], field: str
) -> None:
    files = {field: ("../../etc/passwd\n.png", picture(), "image/png")}
    reply = serve().post("/predict", files=files, data={"w": json.dumps([0.25] * W.width)})
    (row,) = reply.json()["predictions"]
    expected = model[0].predictions({"x": [np.full((6, 8, 3), 80, np.uint8)], "w": [[0.25] * W.width]})
    assert (row["given"], row["label"]) == ("x+w", expected.classes[int(expected.label[0])])
    assert row["probability"] == pytest.approx(float(expected.probability[0]), abs=2e-6)
    assert ".." not in row["id"]
    assert "/" not in row["id"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, ""),
        (b"[]", 422, "inputs"),
        (b'{"inputs": {}}', 422, "no modality"),
        (b'{"inputs": {"x": NaN}}', 400, "null stands for"),
        (b'{"inputs": {"q": [[1]]}}', 422, "no modality 'q'"),
        (b'{"inputs": {"x": [[1]]}}', 422, "shape"),
        (b'{"inputs": {"x": [["1"]]}}', 422, "other than numbers"),
        (b'{"inputs": {"x": "abc"}}', 422, "list of rows"),
        (b'{"inputs": {"x": [[0, 0, 0, 0, 0, 1e999]]}}', 422, "not finite"),
        (b'{"inputs": {"x": [[0, 0, 0, 0, 0, 1' + b"0" * 400 + b"]]}}", 422, "not finite"),
        (b'{"inputs": {"x": [null]}}', 422, "no modality"),
        (b'{"inputs": {"x": [[1]]}, "more": 1}', 422, '"more"'),
        (b'{"inputs": {"x": [[1]]}, "id": ["a", "b"]}', 422, '"id"'),
        (b'{"inputs": {"x": [[0, 0, 0, 0, 0, 1]]}, "id": ["\\ud800"]}', 400, "surrogates not allowed"),
        (b'{"inputs": {"x": [[0, 0, 0, 0, 0, 1]]}, "id": ["\xed\xa0\x80"]}', 400, "surrogates not allowed"),
    ],
)
def test_wrong_json_is_refused(serve: Callable[..., TestClient], body: bytes, status: int, words: str) -> None:
    client = serve()
    sentence(client.post("/predict", content=body, headers={"content-type": "application/json"}), status, words)
    assert client.get("/healthz").json() == {"status": "ok"}


def bomb() -> bytes:
    """A small file that declares many pixels."""
    file = io.BytesIO()
    Image.new("L", (6_000, 6_000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ({"x": ("a.png", b"not a picture")}, 422, "a.png: not a readable picture"),
        ({"x": ("a.png", b"")}, 422, "a.png: not a readable picture: the file is empty"),
        ({"x": ("../b.npy", b"\x93NUMPY")}, 422, "b.npy"),
        ({"w": ("a.png", picture())}, 422, "takes vectors for w"),
        ({"q": ("a.png", picture())}, 422, "no modality 'q'"),
        ({"x": ("wide.png", picture(200, 200))}, 413, "wide.png has 200 x 200 pixels"),
    ],
)
def test_wrong_files_are_refused(
    serve: Callable[..., TestClient], files: dict[str, Any], status: int, words: str
) -> None:
    sentence(serve(limits=SMALL).post("/predict", files=files), status, words)


def test_a_picture_bomb_is_refused_before_it_is_decoded(serve: Callable[..., TestClient]) -> None:
    reply = serve().post("/predict", files={"x": ("bomb.png", bomb())})
    assert reply.status_code in (413, 422)
    assert "bomb.png" in reply.json()["error"]
    assert "pixels" in reply.json()["error"]


def test_other_types_and_empty_forms_are_refused(serve: Callable[..., TestClient]) -> None:
    client = serve()
    sentence(client.post("/predict", content=b"x", headers={"content-type": "text/plain"}), 415, "text/plain")
    sentence(client.post("/predict"), 415)
    sentence(client.get("/predict"), 405, "does not take GET")
    sentence(client.get("/../../etc/passwd"), 404)
    sentence(client.get("/static/..%2f..%2fpages.py"), 404)
    sentence(client.get("/pictures/test/0/..%2f..%2fetc"), 404)
    sentence(client.get("/pictures/test/999/x"), 404)


def test_large_bodies_are_refused_by_what_they_declare_and_by_what_they_are(serve: Callable[..., TestClient]) -> None:
    client = serve(limits=SMALL)
    sentence(client.post("/predict", content=b"0" * 2**17, headers={"content-type": "application/json"}), 413, "MB")
    pieces = (b"0" * 2**14 for _ in range(8))  # without a length
    sentence(client.post("/predict", content=pieces, headers={"content-type": "application/json"}), 413, "MB")
    assert client.get("/healthz").status_code == 200
    many = {"inputs": {"x": [[0] * X.width] * 51}}
    sentence(client.post("/predict", json=many), 413, "51 rows")


def test_the_pages_come_whole_and_load_nothing_from_elsewhere(serve: Callable[..., TestClient]) -> None:
    client = serve()
    for address in ("/", "/api", "/static/explore.js", "/static/serve.css"):
        reply = client.get(address)
        assert reply.status_code == 200
        assert "http://" not in reply.text.replace("http://HOST:PORT", "")
        assert "https://" not in reply.text
        assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_the_description_is_valid_openapi(serve: Callable[..., TestClient]) -> None:
    validate = pytest.importorskip("openapi_spec_validator", reason="openapi-spec-validator is not installed").validate
    for token in (None, TOKEN):
        client = serve(token=token)
        validate(client.get("/openapi.json", headers={"authorization": f"Bearer {TOKEN}"}).json())


def test_a_token_is_asked_for_and_kept(serve: Callable[..., TestClient]) -> None:
    client = serve(token=TOKEN)
    assert client.get("/healthz").status_code == 200
    sentence(client.get("/openapi.json"), 401, "needs its token")
    sentence(client.get("/openapi.json", headers={"authorization": "Bearer wrong"}), 401, "not the server's")
    assert client.get("/openapi.json", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    page = client.get("/?token=wrong", headers={"accept": "text/html"})
    assert (page.status_code, "That was not it" in page.text) == (401, True)
    welcome = client.get(f"/?token={TOKEN}", headers={"accept": "text/html"})
    assert (welcome.status_code, str(welcome.url)) == (200, "http://localhost/")
    assert client.get("/openapi.json").status_code == 200  # by the cookie


def test_an_address_without_end_is_refused(serve: Callable[..., TestClient]) -> None:
    client = serve()
    sentence(client.post(f"/examples/{'9' * 5000}"), 414, "the address has more than 2,000 letters")
    assert client.post(f"/examples/{'9' * 1000}").status_code == 404


def test_web_sites_cannot_use_a_server_without_a_token(serve: Callable[..., TestClient]) -> None:
    client = serve()
    sentence(client.get("/", headers={"host": "evil.example"}), 403, "localhost")
    sentence(client.get("/", headers={"host": "["}), 400, "no address")
    sentence(client.post("/predict", json={}, headers={"origin": "https://evil.example"}), 403, "another site")


def test_examples_are_explored_with_what_is_switched_on(
    serve: Callable[..., TestClient], model: tuple[LoadedModel, Any]
) -> None:
    client, (loaded, shard) = serve(), model
    offered = client.get("/examples").json()
    assert offered["total"] == shard.test.rows
    row = offered["examples"][3]["row"]
    found = client.post(f"/examples/{row}").json()
    assert set(found["answers"]) == {"x", "w", "x+w"}
    for key, answer in found["answers"].items():
        x = {name: shard.test.features(name)[row : row + 1] for name in key.split("+")}
        predictions = loaded.predictions(x)
        assert answer["probabilities"] == pytest.approx(predictions.probabilities[0].tolist(), abs=2e-6)
        near = [shard.train.ids.tolist().index(one["id"]) for one in answer["nearest"]]
        given = {name: shard.train.features(name) for name in key.split("+")}
        distance = np.linalg.norm(loaded.embed(given) - loaded.embed(x), axis=1)
        assert distance[near] == pytest.approx(np.sort(distance)[: len(near)], abs=1e-4)
    sentence(client.post("/examples/9999"), 404, "rows")
    vector = {"x": [shard.test.features("x")[row].tolist()]}
    assert client.post("/explore", json={"inputs": vector}).json()["answers"]["x"]["row"]["given"] == "x"


def test_a_damaged_image_store_is_an_error_and_not_pages_without_pictures(
    model: tuple[LoadedModel, Any], tmp_path: Path
) -> None:
    shard = make_shard(tmp_path / "shards" / "shard.h5", provenance={"images": {"dataset": "objects"}})
    StorePictures(model[0], shard)  # none at hand: pages show names
    (tmp_path / "images" / "objects").mkdir(parents=True)
    with pytest.raises(DataError, match="objects"):
        StorePictures(model[0], shard)
