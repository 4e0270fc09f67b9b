"""`mmssl predict`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands import messages
from commands.app import app
from commands.options import DATA, OUTPUT, WORKSPACE, Device, DeviceOption, Json, Root
from commands.run_folders import RunData, check_used, places

if TYPE_CHECKING:
    from commands.prediction_sources import Rows
    from trainer.inference.loaded_model import LoadedModel
    from trainer.inference.predictions import Predictions


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a bundle (mmssl export), or of a finished run.")],
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Rows to predict: a shard, a folder of pictures, metadata.csv, or vectors as .npz, .npy or .csv.",
            show_default=False,
        ),
    ] = None,
    rgb: Annotated[
        Path | None, typer.Option(help="A colour picture, in place of SOURCE.", rich_help_panel=DATA)
    ] = None,
    depth: Annotated[
        Path | None, typer.Option(help="A depth picture, in place of SOURCE.", rich_help_panel=DATA)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--out", help="File for all answers: .csv, .json or .parquet.", rich_help_panel=OUTPUT),
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="Add the probability of each class.", rich_help_panel=OUTPUT),
    ] = False,
    data: RunData = None,
    device: DeviceOption = Device.auto,
    as_json: Json = False,
    root: Root = WORKSPACE,
) -> None:
    """Predict the class of each row, whichever of its modalities are missing, with a bundle or a run."""
    from commands.encoders import locate, open_encoder
    from commands.prediction_files import check_writable, write_columns
    from commands.prediction_sources import say_left_out
    from commands.prediction_tables import as_dict, show
    from pipeline.runtime.errors import UsageError
    from trainer.inference.bundle import id_hash
    from trainer.inference.loaded_model import open_model
    from trainer.inference.predictions import joined
    from trainer.training.run_folder import Run
    from trainer.training.run_listing import SETTINGS

    pictures = {name: path for name, path in (("rgb", rgb), ("depth", depth)) if path is not None}
    if (source is None) == (not pictures):
        raise UsageError(
            "mmssl predict takes a SOURCE, or pictures (--rgb, --depth)", "for example: mmssl predict model rows.csv"
        )
    if file is not None:
        check_writable(file, source, source and source / "metadata.csv", rgb, depth)
    looked = places(data, root)
    if data is not None and (model / SETTINGS).exists():
        check_used(looked, model, {Run.open(model).settings.digest})
    loaded = open_model(model, device, open_encoder, locate, looked)
    left_out: dict[str, str] = {}
    found = _of_pictures(loaded, pictures) if source is None else _of_source(loaded, source, left_out)
    parts, first = [], dict[str, list[Any]]()
    for before, predictions in found:
        parts.append(predictions)
        for name, values in before.items():
            first.setdefault(name, []).extend(values)
    predictions = joined(parts)
    columns = first | predictions.columns(probabilities)
    if file is not None:
        write_columns(file, columns)
    say_left_out(left_out)
    labelled = set(loaded.bundle.labelled.tolist())
    trained_on = {name for name in columns["id"] if id_hash(name) in labelled}
    if as_json:
        messages.as_json({**as_dict(loaded.card, predictions, columns, trained_on), "left_out": left_out})
    else:
        show(loaded.card, predictions, columns, trained_on)
        if file is not None:
            messages.say_path(file)


Found = Iterable[tuple[dict[str, list[Any]], "Predictions"]]


def _of_source(loaded: "LoadedModel", source: Path, left_out: dict[str, str]) -> Found:
    """The answers for a source, block by block, with the columns that tell its rows apart."""
    from commands.prediction_sources import Cameras, read_rows
    from pipeline.runtime.errors import DataError, UsageError

    for rows in read_rows(source, loaded.card.names, Cameras(_cameras(loaded), loaded.encoder), left_out):
        try:
            yield _columns(loaded, rows), _predicted(loaded, rows)
        except UsageError as error:  # the file is wrong, not the command
            raise DataError(f"{source}: {error.message}", error.hint) from None


def _cameras(loaded: "LoadedModel") -> dict[str, str]:
    """Camera -> the modality that is its pictures, by the recipe of the encoder or else by name."""
    return {(m.encoder or {}).get("modality", m.name): m.name for m in loaded.card.modalities}


def _predicted(loaded: "LoadedModel", rows: "Rows") -> "Predictions":
    import numpy as np

    if rows.scaling is None:
        return loaded.predictions(rows.x, rows.present)
    widths = {modality.name: modality.width for modality in loaded.modalities}
    _check_widths(rows, widths)
    count = len(rows.ids)
    x = {name: rows.x.get(name, np.zeros((count, width), np.float32)) for name, width in widths.items()}
    there = rows.present or {}
    present = np.stack([there.get(name, np.zeros(count, np.bool_)) for name in widths], axis=1)
    return loaded.predict_features(x, present, rows.scaling)


def _check_widths(rows: "Rows", widths: dict[str, int]) -> None:
    from pipeline.runtime.errors import UsageError

    for name, values in rows.x.items():
        if values.shape[1] != widths[name]:
            raise UsageError(
                f"{name} has {values.shape[1]} columns, but the model takes {widths[name]}",
                "predict a shard with the same features that the model was trained on",
            )


def _columns(loaded: "LoadedModel", rows: "Rows") -> dict[str, list[Any]]:
    """The columns before the answers: the id, and what the source knows of each row."""
    from trainer.inference.bundle import id_hash

    columns: dict[str, list[Any]] = {"id": list(rows.ids)}
    if rows.part:
        labelled = set(loaded.bundle.labelled.tolist())
        columns["part"] = [rows.part] * len(rows.ids)
        columns["given_in_training"] = [rows.part == "train" and id_hash(name) in labelled for name in rows.ids]
    if rows.known is not None:
        columns["known_label"] = [label or None for label in rows.known]
    return columns


def _of_pictures(loaded: "LoadedModel", pictures: dict[str, Path]) -> Found:
    """The answer for one row of pictures."""
    from pipeline.runtime.errors import DataError, UsageError

    inputs, cameras = {}, _cameras(loaded)
    for camera, path in pictures.items():
        if not path.exists():
            raise DataError(f"there is no picture {path}")
        if camera not in cameras:
            raise UsageError(
                f"the model has no modality that is a picture of --{camera}",
                f"its modalities: {', '.join(loaded.card.names)}",
            )
        inputs[cameras[camera]] = [path]
    name = next(iter(pictures.values())).name
    yield {"id": [name]}, loaded.predictions(inputs)
