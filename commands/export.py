"""`mmssl export`."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands import messages
from commands.app import app
from commands.messages import Table
from commands.options import OUTPUT, WORKSPACE, Root
from commands.run_folders import RunData, check_used, places

if TYPE_CHECKING:
    from trainer.inference.card import BundleCard

ELSEWHERE = "Without mmssl"
_log = logging.getLogger("mmssl")


@app.command()
def export(
    run: Annotated[
        list[Path], typer.Argument(help="Folders of finished runs; several that differ in their seed alone.")
    ],
    folder: Annotated[
        Path, typer.Option("--out", help="Folder of the bundle to write.", rich_help_panel=OUTPUT)
    ] = Path("model"),
    target_accuracy: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Accuracy on the test part that the answers must reach, for each subset of modalities; rows below the "
            "threshold that this takes are marked as abstained.",
            show_default="0.99",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    abstain_below: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Probability below which rows are marked as abstained, instead of thresholds for a target.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    encoders: Annotated[
        bool,
        typer.Option(
            help="Include the encoders that turn pictures into features, where the data were pictures.",
            rich_help_panel=OUTPUT,
        ),
    ] = True,
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx",
            help="Add the model as ONNX, for any subset of modalities, and a program that runs it without mmssl.",
            rich_help_panel=ELSEWHERE,
        ),
    ] = False,
    with_encoder: Annotated[
        bool,
        typer.Option(
            "--with-encoder",
            help="With --onnx: add the encoders of pictures as ONNX too, with what prepares the pictures.",
            rich_help_panel=ELSEWHERE,
        ),
    ] = False,
    torch_export: Annotated[
        bool,
        typer.Option(
            "--torch-export",
            help="Add the model for torch.export.load, which needs torch alone.",
            rich_help_panel=ELSEWHERE,
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the bundle's card as JSON.", rich_help_panel=OUTPUT)
    ] = False,
    data: RunData = None,
    root: Root = WORKSPACE,
) -> None:
    """Write a trained model as a folder that stands alone and predicts anywhere; several seeds become an ensemble."""
    from commands.encoders import exports_of, locate
    from pipeline.runtime.errors import UsageError
    from pipeline.runtime.onnx_files import require_onnx
    from trainer.data.selection import choose_modalities
    from trainer.inference.bundle_writing import write_bundle
    from trainer.inference.exporting import TARGET, gather
    from trainer.inference.loading import shard_of
    from trainer.inference.subsets import Abstain
    from trainer.training.run_folder import Run

    if target_accuracy is not None and abstain_below is not None:
        raise UsageError("--target-accuracy and --abstain-below exclude each other", "give one of them")
    if with_encoder and not (onnx and encoders):
        raise UsageError(
            "--with-encoder writes the bundle's encoders as ONNX", "give --onnx too, and leave out --no-encoders"
        )
    if onnx:
        require_onnx()
    looked = places(data, root)
    runs = [Run.open(path, looked) for path in run]  # an ensemble is of all of them or is not made
    check_used(looked, run[0], {one.settings.digest for one in runs})
    shard = shard_of(runs[0])
    wanted = [modality.name for modality in choose_modalities(shard, runs[0].settings.modalities)]
    files = {name: locate(shard, name) for name in wanted if name in shard.encoders} if encoders else {}
    aim = TARGET if target_accuracy is None else target_accuracy
    abstain = Abstain(abstain_below, None if abstain_below is not None else aim)
    if with_encoder and not files:
        raise UsageError(
            f"--with-encoder: {shard.path} keeps no encoder of {' or '.join(wanted)}",
            "mmssl extract --keep-encoder keeps it; without --with-encoder the ONNX file takes vectors",
        )
    exports = exports_of(onnx, torch_export, list(files) if with_encoder else [])
    card = write_bundle(gather(runs, shard=shard, abstain=abstain, encoders=files), folder, exports)
    if not shard.test.rows and abstain_below is None:
        _log.info("%s has no test part, so no threshold for abstaining could be chosen", shard.path)
    if as_json:
        messages.as_json(card.content())
    else:
        _show(card)
        messages.say_path(folder)


def _show(card: "BundleCard") -> None:
    ensemble = f", an ensemble of {len(card.seeds)} seeds" if len(card.seeds) > 1 else ""
    messages.say(f"{card.dataset}: {card.model}{ensemble}, {len(card.classes)} classes")
    if any(subset.rows for subset in card.subsets):
        _show_scores(card)
    for export in card.exports:
        messages.say(
            f"{export.file}: probabilities differ from mmssl predict's by {export.greatest_difference:.1e} at most "
            f"({export.compared_with})"
        )


def _show_scores(card: "BundleCard") -> None:
    table = Table("given", "test rows", "accuracy (%)", "answered (%)", "of these right (%)")
    for subset in card.subsets:
        answered, right = (None, None)
        if subset.abstention is not None:
            answered, right = subset.abstention.coverage, subset.abstention.accuracy
        name = "+".join(subset.given) or f"{subset.size} others"
        table.add_row(
            name, str(subset.rows), *(messages.percent(share) for share in (subset.accuracy, answered, right))
        )
    messages.show(table)
