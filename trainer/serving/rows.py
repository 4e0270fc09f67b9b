"""The rows of a request as the model takes them, and the model's answers as `mmssl predict` writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.errors import DataError, MmsslError, UsageError
from pipeline.shards.schema import Features
from trainer.inference.loaded_model import LoadedModel
from trainer.inference.predictions import Predictions


@dataclass(frozen=True)
class Request:
    """Rows that somebody asks about.

    Attributes:
        inputs: by modality, a list of vectors or None per row; a modality that is left out is missing in all rows.
        files: by modality, the picture of the only row.
        names: how messages call the files, in place of where they lie.
        ids: one per row.
    """

    inputs: Mapping[str, Sequence[Any] | None]
    files: Mapping[str, Path]
    names: Mapping[Path, str]
    ids: tuple[str, ...]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.ids)


@dataclass(frozen=True)
class Read:
    """The rows of a request as the predictor takes them: scaled values `[N, D]` by modality, presence `[N, M]`."""

    x: Mapping[str, Features]
    present: NDArray[np.bool_]


def read(model: LoadedModel, requests: Sequence[Request]) -> list[Read | MmsslError]:
    """Reads the rows of several requests; their pictures are encoded together.

    Each request gets its own error: a `UsageError` or `DataError` about what was given.
    """
    encoded = _encoded(model, requests)
    found: list[Read | MmsslError] = []
    for request, vectors in zip(requests, encoded, strict=True):
        if isinstance(vectors, MmsslError):
            found.append(vectors)
            continue
        try:
            found.append(Read(*model.read({**request.inputs, **vectors})))
        except MmsslError as error:
            found.append(error)
    return found


def predict(model: LoadedModel, requests: Sequence[Request]) -> list[Predictions | MmsslError]:
    """Answers several requests together, each with its predictions or its own error."""
    found = read(model, requests)
    good = [one for one in found if isinstance(one, Read)]
    answers = iter(_predicted(model, good))
    return [next(answers) if isinstance(one, Read) else one for one in found]


def answer_rows(ids: Sequence[str], predictions: Predictions, probabilities: bool) -> list[dict[str, Any]]:
    """One mapping per row, as in the files of `mmssl predict --out`."""
    columns: dict[str, list[Any]] = {"id": list(ids)} | predictions.columns(probabilities)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _encoded(model: LoadedModel, requests: Sequence[Request]) -> list[dict[str, Features] | MmsslError]:
    """By request, the features of its pictures `[1, D]` by modality, or what is wrong with them."""
    found: list[dict[str, Features] | MmsslError] = [{} for _ in requests]
    for modality in sorted({name for request in requests for name in request.files}):
        asking = [k for k, request in enumerate(requests) if modality in request.files]
        paths = [requests[k].files[modality] for k in asking]
        try:
            rows: list[Features | MmsslError] = list(model.encoder(modality)(paths)[:, None])
        except MmsslError:  # which picture it is can only be told one by one
            rows = [_encoded_alone(model, modality, path, requests[k]) for k, path in zip(asking, paths, strict=True)]
        for k, row in zip(asking, rows, strict=True):
            so_far = found[k]
            if isinstance(row, MmsslError):
                found[k] = row
            elif not isinstance(so_far, MmsslError):
                so_far[modality] = row
    return found


def _encoded_alone(model: LoadedModel, modality: str, path: Path, request: Request) -> Features | MmsslError:
    try:
        return model.encoder(modality)([path])
    except MmsslError as error:
        return renamed(error, request)


def renamed(error: MmsslError, request: Request) -> MmsslError:
    """The error with the names that a person gave files, in place of where they lie."""
    message = error.message
    for path, name in request.names.items():
        message = message.replace(str(path), name)
    return type(error)(message, error.hint)


def _predicted(model: LoadedModel, read_rows: Sequence[Read]) -> list[Predictions | MmsslError]:
    if not read_rows:
        return []
    if len(read_rows) == 1:
        return [_predicted_alone(model, read_rows[0])]
    x = {name: np.concatenate([one.x[name] for one in read_rows]) for name in model.card.names}
    try:
        together = model.predictor(x, np.concatenate([one.present for one in read_rows]))
    except (DataError, UsageError):  # which request it is about can only be told one by one
        return [_predicted_alone(model, one) for one in read_rows]
    ends = np.cumsum([len(one.present) for one in read_rows]).tolist()
    return [part(together, slice(start, end)) for start, end in zip([0, *ends], ends, strict=False)]


def _predicted_alone(model: LoadedModel, one: Read) -> Predictions | MmsslError:
    try:
        return model.predictor(one.x, one.present)
    except MmsslError as error:
        return error


def part(predictions: Predictions, rows: slice) -> Predictions:
    """The predictions for some of the rows."""
    return Predictions(
        predictions.classes,
        predictions.modalities,
        predictions.present[rows],
        predictions.probabilities[rows],
        predictions.opinions[rows],
        predictions.opinion_probabilities[rows],
        predictions.unlikeness[rows],
        predictions.thresholds[rows],
    )
