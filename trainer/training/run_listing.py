"""Lists runs from their files alone, quickly and without importing torch."""

import csv
import io
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import DataError
from pipeline.runtime.texts import decoded, read_text
from pipeline.runtime.versions import newer
from trainer.settings.names import COTRAINING_FIELDS, SETTINGS_FIELDS

_log = logging.getLogger(__name__)
FORMAT = 2  # version of the run folder; raised when old and new versions of the program cannot read each other's runs
SETTINGS, LABELLED, METRICS = "settings.json", "labelled.txt", "metrics.csv"
WEIGHTS, RESULT, PROVENANCE = "weights.safetensors", "result.json", "provenance.json"


@dataclass(frozen=True)
class ListedRun:
    """A run as described by its files.

    Attributes:
        settings: the settings as written to the file.
        epochs: the number of completed epochs.
        result: the scores and the ELBO; None if the run is not done.
    """

    folder: Path
    settings: dict[str, Any]
    epochs: int
    result: dict[str, Any] | None

    @property
    def all_epochs(self) -> str:
        """The number of epochs asked for: `500`, or `20 rounds` for a co-trained system."""
        return f"{self.settings['epochs']}{' rounds' if self.settings['cotraining'] else ''}"


def list_runs(folders: Iterable[Path]) -> list[ListedRun]:
    """The runs in these folders or anywhere below them, sorted by path; what cannot be read is named and left out."""
    runs = []
    for folder in find_folders(folders):
        try:
            runs.append(_listed(folder))
        except DataError as error:
            _log.warning("left out: %s", error.message)
    return runs


def find_folders(folders: Iterable[Path]) -> list[Path]:
    """The run folders among these folders or anywhere below them, sorted by path, each once however it is linked.

    Hidden folders below them are not ours (`.vscode` has a `settings.json`, too), and one that may not be read is
    named and left out.
    """
    found: dict[str, Path] = {}
    for top in folders:
        seen: set[str] = set()
        for folder, below, files in os.walk(top, followlinks=True, onerror=_unreadable):
            real = os.path.realpath(folder)
            if real in seen:  # a link that leads back
                below.clear()
                continue
            seen.add(real)
            below[:] = sorted(name for name in below if not name.startswith("."))
            if SETTINGS in files:
                found.setdefault(real, Path(folder))
    return sorted(found.values())


def _unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        _log.warning("left out: %s: cannot be read: %s", error.filename, error.strerror)


def read_settings(folder: Path) -> dict[str, Any]:
    """A run's settings as written to the file, not yet validated.

    Raises:
        NewerError: a newer version wrote it: it has another format, or settings that this version does not know.
        DataError: there is no run, an older version made it, or the file does not hold settings.
    """
    path = folder / SETTINGS
    hint = "delete the run's folder and train again"
    try:
        values = json.loads(read_text(path))
    except FileNotFoundError:
        raise DataError(f"{folder} holds no run: there is no {SETTINGS} in it", "list runs: mmssl runs") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}", hint) from None
    version = values.pop("format", 1) if isinstance(values, dict) and "model" in values else None
    if not isinstance(version, int):
        raise DataError(f"{path} does not hold the settings of a run, but of something else")
    if version > FORMAT:
        raise newer(folder, f"run format {version}", f"reads {FORMAT}")
    if version != FORMAT:
        raise DataError(
            f"{folder} was written by an older version of mmssl (run format {version}; this version reads {FORMAT})",
            "move the folder away and train again",
        )
    cotraining = values.get("cotraining")
    unknown = values.keys() - SETTINGS_FIELDS
    if isinstance(cotraining, dict):
        unknown |= {f"cotraining.{name}" for name in cotraining.keys() - COTRAINING_FIELDS}
    if unknown:
        raise newer(folder, f"it has the setting '{min(unknown)[:80]}'", "does not know that")
    return dict(values)


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, one per epoch; empty if there is no such file yet.

    Raises:
        DataError: the file is not what training wrote.
    """
    path = folder / METRICS
    try:
        rows = list(csv.DictReader(io.StringIO(decoded(path.read_bytes(), path), newline=""), strict=True))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}", "delete the run's folder and train again") from None
    if [row.get("epoch") for row in rows] != [str(epoch) for epoch in range(1, len(rows) + 1)] or any(
        None in (*row, *row.values()) for row in rows
    ):
        raise DataError(f"{path} is damaged: it is not a table of epochs", "delete the run's folder and train again")
    return rows


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file that every finished run has.

    Raises:
        DataError: the run is not done, or the file is damaged.
    """
    try:
        values = json.loads(read_text(path))
    except FileNotFoundError:
        raise DataError(f"there is no {path}: the run is not done", "the same mmssl train command resumes it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{path} does not hold a JSON object")
    return values


def _listed(folder: Path) -> ListedRun:
    settings = read_settings(folder)
    path = folder / RESULT
    result = read_json(path) if path.exists() else None
    complete = {"epochs", "cotraining"} <= settings.keys()
    if not complete or (result is not None and not _holds_scores(result)):
        raise DataError(f"{folder} does not hold the files of a run: {path.name if complete else SETTINGS} is damaged")
    return ListedRun(folder, settings, len(read_metrics(folder)), result)


def _holds_scores(result: dict[str, Any]) -> bool:
    """Whether a result has the scores that a listing shows."""
    scores = result.get("scores")
    return isinstance(scores, list) and all(
        isinstance(score, dict) and {"given", "completion", "accuracy"} <= score.keys() for score in scores
    )
