"""The application that serves a model: `POST /predict` for programs, a page for people, and what the page asks for."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pipeline.runtime.errors import MmsslError
from pipeline.shards.shard import Shard
from trainer.inference.loaded_model import LoadedModel
from trainer.inference.predictions import Predictions
from trainer.serving.access import Guard
from trainer.serving.batching import Batcher
from trainer.serving.examples import ShardRows
from trainer.serving.exploring import Explorer
from trainer.serving.facts import facts
from trainer.serving.limits import LimitedBodies, Limits
from trainer.serving.neighbours import Neighbours
from trainer.serving.openapi import document
from trainer.serving.pages import environment, static_route
from trainer.serving.pictures import Pictures, png
from trainer.serving.receiving import received, wanted_subset
from trainer.serving.replies import Refused, gone, not_found, refusal, refused
from trainer.serving.rows import Request, answer_rows, predict, read

MOST_ROWS_TOGETHER = 256  # of several requests that are answered together
EXAMPLES = 24  # offered at once
_PARTS = ("train", "test")
_log = logging.getLogger(__name__)


@dataclass
class Server:
    """Answers requests about one model.

    Attributes:
        shard: whose rows are at hand: examples of the test part, and the nearest training rows. None without.
    """

    model: LoadedModel
    pictures: Pictures
    shard: Shard | None = None
    limits: Limits = field(default_factory=Limits)
    token: str | None = None

    def __post_init__(self) -> None:
        self.rows = None if self.shard is None else ShardRows(self.model, self.shard, self.pictures)
        near = None if self.rows is None else Neighbours(self.model, self.rows)
        self.explorer = Explorer(self.model, self.pictures, self.rows, near)
        self.names = self.model.card.names

    def application(self) -> ASGIApp:
        """The application; it starts and ends the thread that computes."""
        routes = [
            Route("/", self._page),
            Route("/api", self._api_page),
            Route("/openapi.json", self._openapi),
            Route("/healthz", self._health),
            Route("/predict", self._predict, methods=["POST"]),
            Route("/explore", self._explore, methods=["POST"]),
            Route("/examples", self._examples),
            Route("/examples/{row:int}", self._explore_example, methods=["POST"]),
            Route("/pictures/{part}/{row:int}/{modality}", self._picture),
            static_route(),
        ]
        app = Starlette(
            routes=routes,
            lifespan=self._running,
            exception_handlers={
                MmsslError: refused,
                HTTPException: not_found("/api lists what there is"),
                ClientDisconnect: gone,
                Exception: _failed,
            },
        )
        return Guard(LimitedBodies(app, self.limits), self.token)

    @asynccontextmanager
    async def _running(self, _: Starlette) -> AsyncIterator[None]:
        self.batcher: Batcher[Request, Predictions] = Batcher(
            lambda requests: predict(self.model, requests), MOST_ROWS_TOGETHER
        )
        try:
            yield
        finally:
            self.batcher.close()

    # --- for programs ---

    async def _predict(self, http: HttpRequest) -> Response:
        probabilities = http.query_params.get("probabilities", "false").lower() in ("true", "1", "yes")
        async with received(http, self.names, self.pictures, self.limits) as request:
            predictions = await self.batcher.submit(request, max(1, request.rows))
        card = self.model.card
        rows = answer_rows(request.ids, predictions, probabilities)
        return JSONResponse(
            {"model": card.model, "dataset": card.dataset, "classes": list(card.classes), "predictions": rows}
        )

    async def _health(self, _: HttpRequest) -> Response:
        return JSONResponse({"status": "ok"})

    def _document(self) -> dict[str, Any]:
        return document(self.model.card, self.pictures.titles, self.limits, self.token is not None)

    async def _openapi(self, _: HttpRequest) -> Response:
        return JSONResponse(self._document())

    async def _api_page(self, _: HttpRequest) -> Response:
        page = environment().get_template("api.html.jinja")
        return HTMLResponse(page.render(api=self._document(), card=self.model.card, titles=self.pictures.titles))

    # --- for the page ---

    async def _page(self, _: HttpRequest) -> Response:
        content = facts(self.explorer, self.limits)
        # No "<" may end the script that holds it, whatever the names are.
        text = json.dumps(content, ensure_ascii=True).replace("<", "\\u003c")
        page = environment().get_template("explore.html.jinja").render(facts=content, as_json=text)
        return HTMLResponse(page, headers={"cache-control": "no-store"})

    async def _explore(self, http: HttpRequest) -> Response:
        async with received(http, self.names, self.pictures, self.limits) as request:
            if request.rows != 1:
                raise Refused(422, f"the page shows one row, not {request.rows}")
            given = wanted_subset(http, request, self.names)

            def work() -> dict[str, Any]:
                (one,) = read(self.model, [request])
                if isinstance(one, MmsslError):
                    raise one
                images = self.explorer.prepared(request) | self.explorer.seen(request)
                return self.explorer.explore(request.ids[0], one, given, None) | {"images": images}

            return JSONResponse(await self.batcher.call(work))

    async def _explore_example(self, http: HttpRequest) -> Response:
        rows, row = self._shard_rows(), http.path_params["row"]
        test = rows.shard.test
        if row >= test.rows:
            raise Refused(404, f"the test part has {test.rows} rows")
        there = [name for name in rows.names if test.has(name)[row]]
        named = http.query_params.get("given")
        given = tuple(name for name in self.names if name in there and (named is None or name in named.split(",")))
        if not given:
            raise Refused(422, "no modality is given at all")

        def work() -> dict[str, Any]:
            found = self.explorer.explore(str(test.ids[row]), rows.read(row), given, rows.label(test, row))
            shown = [name for name in there if rows.images(test, [row], name)[0] is not None]
            images = {name: f"pictures/test/{row}/{quote(name)}" for name in shown}
            return found | {"images": images}

        return JSONResponse(await self.batcher.call(work))

    async def _examples(self, http: HttpRequest) -> Response:
        rows = self._shard_rows()
        start = http.query_params.get("from", "0")
        if not start.isdecimal() or len(start) > 12:
            raise Refused(422, "?from= is the number of an example")
        offered = rows.offered(int(start), EXAMPLES)
        return JSONResponse({"examples": offered, "total": len(rows.order)})

    async def _picture(self, http: HttpRequest) -> Response:
        rows, params = self._shard_rows(), http.path_params
        if params["part"] not in _PARTS or params["modality"] not in rows.names:
            raise Refused(404, "there is no such picture")
        part = rows.shard.train if params["part"] == "train" else rows.shard.test
        if params["row"] >= part.rows:
            raise Refused(404, "there is no such picture")
        (pixels,) = await self.batcher.call(lambda: rows.images(part, [params["row"]], params["modality"]))
        if pixels is None:
            raise Refused(404, "there is no such picture")
        return Response(png(pixels), media_type="image/png", headers={"cache-control": "max-age=3600"})

    def _shard_rows(self) -> ShardRows:
        if self.rows is None:
            raise Refused(404, "there are no examples", "mmssl serve MODEL --examples SHARD")
        return self.rows


async def _failed(_: HttpRequest, error: Exception) -> Response:
    return refusal(Refused(500, f"the server failed: {type(error).__name__}", "its log says more"))
