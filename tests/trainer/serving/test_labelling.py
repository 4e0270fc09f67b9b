"""Labelling over HTTP: every answer is in the CSV before it is acknowledged, and what is no answer is refused."""

import asyncio
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytest.importorskip("httpx", reason="the tests of a server need httpx")

import httpx
from PIL import Image
from starlette.testclient import TestClient

from commands.label import make_labelling
from pipeline.shards.shard import Shard
from pipeline.sources.questions import Question, read_answers
from tests.support.training import CLASSES, make_shard
from trainer.serving.labelling import Labelling, NextStep

TOKEN = "opensesame"
STEP = NextStep("train on them", "mmssl train ... --labels-from ask.csv")


@pytest.fixture
def labelling(tmp_path: Path) -> Labelling:
    """Six rows, the first of which has a picture of x."""
    shard = make_shard(tmp_path / "shard.h5")
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    Image.new("L", (4, 4)).save(tmp_path.parent / "outside.png")
    questions = [Question(row, f"train-{row}", predicted="cup", probability=0.5) for row in range(6)]
    questions[0] = replace(questions[0], files={"x": "x.png"})
    questions[1] = replace(questions[1], files={"x": "../outside.png"})
    return make(tmp_path, questions, shard)


def make(
    folder: Path, questions: list[Question], shard: Shard, new_classes: bool = False, token: str | None = None
) -> Labelling:
    return make_labelling(folder / "ask.csv", questions, shard, lambda _: STEP, new_classes, token)


@pytest.fixture
def client(labelling: Labelling) -> Iterator[TestClient]:
    with TestClient(labelling.application(), base_url="http://localhost") as made:
        yield made


def say(client: TestClient, row: int, label: object) -> httpx.Response:
    return client.post(f"/labels/{row}", json={"label": label})


def written(labelling: Labelling) -> dict[int, str]:
    with (labelling.folder / "ask.csv").open(encoding="utf-8", newline="") as file:
        return {int(row["row"]): row["label"] for row in csv.DictReader(file) if row["label"]}


def test_every_answer_is_in_the_file(labelling: Labelling, client: TestClient) -> None:
    for row, said, kept in (
        (3, "bowl", "bowl"),
        (0, "Cup", "cup"),
        (5, "?", "?"),
        (3, "", ""),
        (1, " spoon ", "spoon"),
    ):
        reply = say(client, row, said)
        assert reply.status_code == 200, reply.text
        assert reply.json() == {"row": row, "label": kept, "classes": list(CLASSES), "next": STEP._asdict()}
        assert written(labelling).get(row, "") == kept
    assert written(labelling) == {0: "cup", 1: "spoon", 5: "?"}
    assert labelling.labels == {0: "cup", 1: "spoon", 5: "?"}
    answers = read_answers(labelling.folder / "ask.csv", labelling.shard)
    assert {row: answer.label for row, answer in answers.items()} == {0: "cup", 1: "spoon", 5: None}


@pytest.mark.parametrize(
    ("row", "content", "status", "sentence"),
    [
        (0, {"label": "bowls"}, 422, "there is no class 'bowls'; did you mean bowl?"),
        (9, {"label": "bowl"}, 404, "row 9 is not asked about"),
        (0, {"label": 3}, 422, "an answer is JSON"),
        (0, {"name": "bowl"}, 422, "an answer is JSON"),
        (0, ["bowl"], 422, "an answer is JSON"),
        (0, {"label": "x" * 70_000}, 413, "a request may have"),
    ],
)
def test_what_is_no_answer_is_refused(
    labelling: Labelling, client: TestClient, row: int, content: Any, status: int, sentence: str
) -> None:
    assert say(client, 2, "cup").status_code == 200
    reply = client.post(f"/labels/{row}", json=content)
    assert (reply.status_code, sentence in reply.json()["error"]) == (status, True), reply.text
    assert client.post("/labels/0", content=b"\xff{").status_code == 400
    assert client.post("/labels/0", content=b'{"label": "\\ud800"}').status_code == 400
    assert written(labelling) == {2: "cup"}


def test_a_class_of_its_own_is_taken_where_it_may_be(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "shard.h5")
    labelling = make(tmp_path, [Question(row, f"train-{row}") for row in range(2)], shard, new_classes=True)
    with TestClient(labelling.application(), base_url="http://localhost") as client:
        assert say(client, 0, "teapot").json()["classes"] == [*CLASSES, "teapot"]
        assert say(client, 1, "Teapot").json()["label"] == "teapot"
        assert "teapot" in client.get("/").text
    assert written(labelling) == {0: "teapot", 1: "teapot"}


def test_pictures_are_those_of_the_questions_and_of_the_folder(labelling: Labelling, client: TestClient) -> None:
    assert client.get("/pictures/0/x").headers["content-type"] == "image/png"
    for path in ("/pictures/1/x", "/pictures/0/w", "/pictures/7/x", "/pictures/0/..%2fask.csv"):
        assert client.get(path).status_code == 404, path
    page = client.get("/").text
    assert "mmssl train ... --labels-from ask.csv" in page
    assert all(one.id in page for one in labelling.asked)


def test_a_token_is_asked_for(labelling: Labelling) -> None:
    labelling.token = TOKEN
    with TestClient(labelling.application(), base_url="http://localhost") as client:
        assert say(client, 0, "cup").status_code == 401
        reply = client.post("/labels/0", json={"label": "cup"}, headers={"authorization": f"Bearer {TOKEN}"})
        assert reply.status_code == 200, reply.text
    assert written(labelling) == {0: "cup"}


def test_answers_at_once_are_all_kept(labelling: Labelling) -> None:
    async def all_at_once() -> list[int]:
        transport = httpx.ASGITransport(labelling.application())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            replies = await asyncio.gather(
                *(client.post(f"/labels/{row}", json={"label": CLASSES[row % 3]}) for row in range(6))
            )
        return [reply.status_code for reply in replies]

    assert asyncio.run(all_at_once()) == [200] * 6
    assert written(labelling) == {row: CLASSES[row % 3] for row in range(6)}
