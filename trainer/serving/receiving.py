"""Requests as they come over the wire: JSON with vectors, or a form with pictures, into rows."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request as HttpRequest

from pipeline.runtime.errors import MmsslError
from pipeline.runtime.text import visible
from trainer.serving.limits import Limits
from trainer.serving.pictures import Pictures
from trainer.serving.replies import Refused
from trainer.serving.rows import Request, renamed

_ARRAY = ".npy"  # the only suffix that says how a file is read; others are known by their content
_LONGEST_NAME = 100  # characters of a file's name in messages
_JSON, _FORM = "application/json", "multipart/form-data"


@asynccontextmanager
async def received(
    http: HttpRequest, modalities: Sequence[str], pictures: Pictures, limits: Limits
) -> AsyncIterator[Request]:
    """The rows of a request; its pictures lie in files as long as this context lasts.

    Raises:
        Refused: it is neither form, or does not hold what it should.
        DataError: a file is no picture.
    """
    kind = http.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == _JSON:
        yield _of_json(await http.body(), limits)
    elif kind == _FORM:
        try:
            async with http.form(
                max_files=len(modalities), max_fields=len(modalities) + 1, max_part_size=limits.body
            ) as form:
                with TemporaryDirectory(prefix="mmssl-serve-") as folder:
                    yield await _of_form(list(form.multi_items()), modalities, Path(folder), pictures, limits)
        except MultiPartException as error:
            raise Refused(400, f"the form cannot be read: {error.message}") from None
    else:
        raise Refused(
            415, f"a request is {_JSON} or {_FORM}, not '{visible(kind)[:_LONGEST_NAME]}'",
            'for example {"inputs": {"x": [[0.5, 1]]}}; /api describes both',
        )  # fmt: skip


def _of_json(body: bytes, limits: Limits) -> Request:
    values = parsed(body, "the request")
    if not isinstance(values, dict) or not isinstance(values.get("inputs"), dict):
        raise Refused(422, 'the request has no "inputs"', 'for example {"inputs": {"x": [[0.5, 1]], "w": null}}')
    unknown = sorted(values.keys() - {"inputs", "id"})
    if unknown:
        raise Refused(
            422, f'the request has "{visible(str(unknown[0]))}", which is not known', 'it has "inputs" and "id"'
        )
    inputs = {name: _vectors(name, rows) for name, rows in values["inputs"].items()}
    rows = max((len(vectors) for vectors in inputs.values() if vectors is not None), default=0)
    if rows > limits.rows:
        raise Refused(413, f"the request has {rows:,} rows, and may have {limits.rows:,}", "ask in several requests")
    names = values.get("id")
    if names is None:
        names = numbered(rows)
    elif not isinstance(names, list) or len(names) != rows or not all(isinstance(name, str) for name in names):
        raise Refused(422, '"id" is not a list of one text per row')
    return Request(inputs, {}, {}, tuple(names))


def numbered(rows: int) -> list[str]:
    """Names for rows that have none, as files of vectors get them: `00`, `01`, ..."""
    digits = len(str(max(rows - 1, 0)))
    return [f"{row:0{digits}d}" for row in range(rows)]


def _vectors(name: str, rows: Any) -> list[Any] | None:
    """A list of one list of numbers, or None, per row."""
    if rows is None:
        return None
    if not isinstance(rows, list) or not all(row is None or isinstance(row, list) for row in rows):
        raise Refused(422, f"{visible(name)} is not a list of rows, each a list of numbers or null")
    for number, row in enumerate(rows):
        if row is not None and not set(map(type, row)) <= {int, float}:
            raise Refused(422, f"row {number} of {visible(name)} holds something other than numbers")
    return rows


async def _of_form(
    fields: Sequence[tuple[str, Any]], modalities: Sequence[str], folder: Path, pictures: Pictures, limits: Limits
) -> Request:
    by_camera = {pictures.titles.get(name, name).lower(): name for name in modalities}
    inputs: dict[str, list[Any]] = {}
    files: dict[str, Path] = {}
    names: dict[Path, str] = {}
    for field, value in fields:
        modality = field if field in modalities else by_camera.get(field.lower())
        if modality is None:
            known = ", ".join(modalities)
            raise Refused(
                422, f"the model has no modality '{visible(field)[:_LONGEST_NAME]}'", f"its modalities: {known}"
            )
        if modality in inputs or modality in files:
            raise Refused(422, f"{modality} is given twice", "a form is one row; JSON takes many")
        if not isinstance(value, UploadFile):
            inputs[modality] = _vectors(modality, [parsed(str(value).encode(), modality)]) or []
            continue
        if modality not in pictures.titles:
            raise Refused(
                422, f"the model takes vectors for {modality}, not pictures",
                "for pictures its shard must have kept the encoder: mmssl extract --keep-encoder",
            )  # fmt: skip
        path = folder / f"{len(files)}{_ARRAY if (value.filename or '').lower().endswith(_ARRAY) else ''}"
        names[path] = shown_name(value.filename)
        with path.open("wb") as file:
            while chunk := await value.read(2**20):
                file.write(chunk)
        files[modality] = path
    if not inputs and not files:
        raise Refused(422, "the form has no field", f"give one of {', '.join(modalities)}")
    request = Request(inputs, files, names, (next(iter(names.values()), "0"),))
    for path in files.values():
        _check_size(path, request, pictures, limits)
    return request


def _check_size(path: Path, request: Request, pictures: Pictures, limits: Limits) -> None:
    """Refuses a picture that would take too much memory or time, by what its header declares."""
    try:
        width, height = pictures.size(path)
    except MmsslError as error:
        raise renamed(error, request) from None
    if width * height > limits.pixels:
        raise Refused(
            413, f"{request.names[path]} has {width} x {height} pixels, and may have {limits.pixels / 1e6:.0f} million",
            "make it smaller: the network sees a few hundred pixels per side",
        )  # fmt: skip


def shown_name(name: str | None) -> str:
    """A file's name as a person gave it, without folders, on one line."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    return visible(last)[:_LONGEST_NAME] or "the picture"


def parsed(text: bytes, what: str) -> Any:
    """What JSON says.

    Raises:
        Refused: it is no JSON, or holds half a letter (a lone surrogate), which no file can hold.
    """
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
        if b"\\u" in text or not text.isascii():
            json.dumps(values, ensure_ascii=False).encode()
        return values
    except RecursionError:
        raise Refused(400, f"{what} is nested too deeply") from None
    except ValueError as error:
        raise Refused(400, f"{what} is not JSON: {str(error)[:_LONGEST_NAME]}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON; null stands for a modality that is missing")


def wanted_subset(http: HttpRequest, request: Request, modalities: Sequence[str]) -> tuple[str, ...]:
    """Which of the given modalities are to be used: all, or those that the address names, `?given=x,w`.

    Raises:
        Refused: none is left.
    """
    there = given_names(request, modalities)
    named = http.query_params.get("given")
    chosen = there if named is None else tuple(name for name in there if name in named.split(","))
    if not chosen:
        raise Refused(422, "no modality is given at all", f"give one of {', '.join(modalities)}")
    return chosen


def given_names(request: Request, modalities: Sequence[str]) -> tuple[str, ...]:
    """The modalities of the first row."""
    inputs: Mapping[str, Sequence[Any] | None] = request.inputs
    return tuple(
        name for name in modalities if name in request.files or ((rows := inputs.get(name)) and rows[0] is not None)
    )
