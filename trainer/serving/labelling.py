"""The application with which a person labels rows: one question after the other, each answer kept before the next."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import anyio.to_thread
import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pipeline.runtime.errors import MmsslError
from pipeline.shards.schema import NEVER
from pipeline.shards.shard import Shard
from trainer.inference.subsets import read_rows
from trainer.serving.access import Guard
from trainer.serving.limits import LimitedBodies, Limits
from trainer.serving.pages import environment, static_route
from trainer.serving.receiving import parsed
from trainer.serving.replies import Refused, gone, not_found, refused

MOST_VALUES = 200  # of a vector that is drawn: a screen has no more columns for it
_BYTES = 64 * 1024  # of an answer
Labels = Mapping[int, str]  # by row: a class, `?` for never to be asked again; rows without an answer are not in it


class NextStep(NamedTuple):
    """What to do with answers, in words and as a command."""

    what: str
    command: str


@dataclass(frozen=True)
class Asked:
    """A row that a person is asked about.

    Attributes:
        row: its number in the training part.
        id: its id in the shard.
        group: its group, or nothing.
        predicted: the class that a model takes it for, or nothing.
        probability: of that class; None if there is none.
        given: the label that the data has, where that is in doubt; otherwise nothing.
        files: by modality, its picture.
    """

    row: int
    id: str
    group: str
    predicted: str
    probability: float | None
    given: str
    files: Mapping[str, Path]


@dataclass
class Labelling:
    """Asks for the labels of some rows, and keeps every answer before it is acknowledged.

    Attributes:
        asked: the rows, in the order in which they are asked about.
        labels: the answers so far.
        keep: writes all answers where they outlive the server.
        understand: the class that a text means, given those that there are; raises if it is none.
        file: the name of what `keep` writes, for people.
        folder: where the pictures lie; none outside it is shown.
        step: what to do with the answers.
        new_classes: whether the page offers to name a class of its own.
    """

    asked: Sequence[Asked]
    labels: Labels
    shard: Shard
    keep: Callable[[Labels], None]
    understand: Callable[[str, Sequence[str]], str]
    file: str
    folder: Path
    step: Callable[[Labels], NextStep]
    new_classes: bool = False
    token: str | None = None

    def __post_init__(self) -> None:
        self.keeping = anyio.Lock()
        self.by_row = {one.row: one for one in self.asked}

    def application(self) -> ASGIApp:
        """The application."""
        routes = [
            Route("/", self._page),
            Route("/healthz", self._health),
            Route("/labels/{row:int}", self._label, methods=["POST"]),
            Route("/pictures/{row:int}/{modality}", self._picture),
            static_route(),
        ]
        app = Starlette(
            routes=routes,
            exception_handlers={MmsslError: refused, HTTPException: not_found(), ClientDisconnect: gone},
        )
        return Guard(LimitedBodies(app, Limits(body=_BYTES)), self.token)

    @property
    def classes(self) -> list[str]:
        """The shard's classes, and those that answers have named."""
        named = (label for label in self.labels.values() if label != NEVER)
        return list(dict.fromkeys([*self.shard.classes, *named]))

    async def _page(self, _: HttpRequest) -> Response:
        content = await anyio.to_thread.run_sync(self._facts)
        # No "<" may end the script that holds it, whatever the names are.
        text = json.dumps(content, ensure_ascii=True).replace("<", "\\u003c")
        page = environment().get_template("label.html.jinja").render(facts=content, as_json=text)
        return HTMLResponse(page, headers={"cache-control": "no-store"})

    async def _health(self, _: HttpRequest) -> Response:
        return JSONResponse({"status": "ok"})

    def _facts(self) -> dict[str, Any]:
        """What the page knows from the beginning."""
        vectors = self._vectors()
        return {
            "dataset": self.shard.dataset,
            "classes": self.classes,
            "new_classes": self.new_classes,
            "file": self.file,
            "next": self.step(self.labels)._asdict(),
            "questions": [
                {
                    "row": one.row,
                    "id": one.id,
                    "group": one.group,
                    "label": self.labels.get(one.row, ""),
                    "predicted": one.predicted,
                    "probability": one.probability,
                    "given": one.given,
                    "modalities": [
                        {"name": m.name, "picture": m.name in one.files, "values": vectors.get((one.row, m.name))}
                        for m in self.shard.modalities
                    ],
                }
                for one in self.asked
            ],
        }

    def _vectors(self) -> Mapping[tuple[int, str], list[float]]:
        """By row and modality, the values of what has no picture, thinned out; none of what a row lacks."""
        found: dict[tuple[int, str], list[float]] = {}
        for m in self.shard.modalities:
            present = self.shard.train.has(m.name)
            rows = np.array(
                sorted(one.row for one in self.asked if m.name not in one.files and present[one.row]), np.int64
            )
            if not len(rows):
                continue
            step = -(-m.width // MOST_VALUES)
            values = read_rows(self.shard.train, [m.name], rows)[m.name][:, ::step]
            found |= {
                (int(row), m.name): [round(float(v), 4) for v in one] for row, one in zip(rows, values, strict=True)
            }
        return found

    async def _label(self, http: HttpRequest) -> Response:
        row = self._asked(http.path_params["row"]).row
        content = parsed(await http.body(), "the answer")
        text = content.get("label") if isinstance(content, dict) else None
        if not isinstance(text, str):
            raise Refused(422, 'an answer is JSON: {"label": a class, "?" or ""}')
        if text not in ("", NEVER):
            text = self.understand(text, self.classes)
        async with self.keeping:
            labels = {other: label for other, label in self.labels.items() if other != row}
            if text:
                labels[row] = text
            await anyio.to_thread.run_sync(self.keep, labels)
            self.labels = labels
        following = self.step(labels)._asdict()
        return JSONResponse({"row": row, "label": text, "classes": self.classes, "next": following})

    async def _picture(self, http: HttpRequest) -> Response:
        one, modality = self._asked(http.path_params["row"]), http.path_params["modality"]
        file = one.files.get(modality)
        if file is None or not is_within(file, self.folder) or not file.is_file():
            raise Refused(404, "there is no such picture")
        return FileResponse(file, media_type="image/png", headers={"cache-control": "max-age=3600"})

    def _asked(self, row: int) -> Asked:
        if row not in self.by_row:
            raise Refused(404, f"row {row} is not asked about")
        return self.by_row[row]


def is_within(path: Path, folder: Path) -> bool:
    """Whether a path lies below a folder, wherever its links lead: anyone may have written what names it."""
    return path.resolve().is_relative_to(folder.resolve())
