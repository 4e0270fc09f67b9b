"""Options that several commands share: their types, choices, help texts and panels."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, get_args

import typer

from pipeline.runtime.errors import UsageError
from trainer.models.registry import model_names
from trainer.settings.names import PAPER, RECOMMENDED, PresetName
from trainer.settings.names import LabelEstimator as LabelEstimatorName

T = TypeVar("T", int, float)

WORKSPACE = Path("workspace")
MOST_NUMBERS = 10_000  # in one range, so that a typing error does not fill the memory
DATA, MODEL, OBJECTIVE, SCHEDULE, COMPUTE, OUTPUT = "Data", "Model", "Objective", "Schedule", "Compute", "Output"

if TYPE_CHECKING:  # enums made at run time are types only to typer
    ModelName = str
    Preset = str
    LabelEstimator = str
else:
    ModelName = StrEnum("ModelName", {name: name for name in model_names()})
    Preset = StrEnum("Preset", {name: name for name in (PAPER, RECOMMENDED, *get_args(PresetName))})
    LabelEstimator = StrEnum("LabelEstimator", {name: name for name in get_args(LabelEstimatorName)})


class Device(StrEnum):
    """Where to compute; auto is CUDA if there is a GPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class DepthEncoding(StrEnum):
    """How depth is turned into three channels."""

    jet = "jet"
    normals = "normals"
    raw = "raw"


class RgbdDataSet(StrEnum):
    """The RGB-D data sets."""

    rgbd = "rgbd"
    sample = "rgbd-sample"


class Tuned(StrEnum):
    """What fine-tuning changes of a network."""

    all = "all"
    fc1 = "fc1"


class Taken(StrEnum):
    """Which frames of the Washington layout are taken."""

    evaluation = "evaluation"
    all = "all"


class Trials(StrEnum):
    """What the splits of the Washington layout leave out."""

    official = "official"
    objects = "objects"


class ImageModality(StrEnum):
    """The cameras."""

    rgb = "rgb"
    depth = "depth"
    both = "both"


Root = Annotated[
    Path,
    typer.Option(
        envvar="MMSSL_ROOT",
        help="Workspace folder, which holds raw/, images/, features/, shards/ and runs/.",
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.", rich_help_panel=OUTPUT)]
DeviceOption = Annotated[
    Device, typer.Option(help="Device to compute on; auto uses CUDA if there is a GPU.", rich_help_panel=COMPUTE)
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Address of a Dask cluster's scheduler, tcp://HOST:8786.", rich_help_panel=COMPUTE),
]
Jobs = Annotated[
    int, typer.Option(min=1, help="Number of processes on this machine that work at once.", rich_help_panel=COMPUTE)
]
StackSize = Annotated[
    int | None,
    typer.Option(
        "--stack",
        min=1,
        help="Largest number of runs trained in one pass.",
        show_default="16 on CUDA, on a cluster, and for layers of fewer than 512 units; otherwise 1",
        rich_help_panel=COMPUTE,
    ),
]
ReferenceOption = Annotated[
    bool,
    typer.Option(
        help="Show what logistic regression and LS+SVC reach on the same labels, where that takes a second or two.",
        rich_help_panel=OUTPUT,
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Any other setting as NAME=VALUE; may be repeated (docs/reference/settings.md).",
        rich_help_panel=MODEL,
    ),
]  # fmt: skip
PresetOption = Annotated[
    Preset | None,
    typer.Option(
        help=f"Settings to start from; '{PAPER}': the paper's, '{RECOMMENDED}': ours, sized to the data.",
        show_default=f"{PAPER} on the paper's data, otherwise {RECOMMENDED}",
        rich_help_panel=MODEL,
    ),
]
Splits = Annotated[str | None, typer.Option(help="Splits of the data: 0..9 or 0,3,7.", rich_help_panel=DATA)]
Modalities = Annotated[
    str | None,
    typer.Option(help="Modalities to use: x, or x,w.", show_default="all of them", rich_help_panel=DATA),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        help="Seeds, one replica each: 0..4 or 0,3,7.", show_default="0; 0..4 to compare", rich_help_panel=SCHEDULE
    ),
]
RgbdData = Annotated[
    RgbdDataSet,
    typer.Option("--data", help="RGB-D data set; `mmssl data sample` renders the sample.", rich_help_panel=DATA),
]
Encoding = Annotated[
    DepthEncoding | None,
    typer.Option(help="Encoding of depth as colours.", show_default="jet, the paper's", rich_help_panel=DATA),
]
Size = Annotated[
    int | None,
    typer.Option(help="Side length of the images in pixels.", show_default="148, the paper's", rich_help_panel=DATA),
]


def numbers(text: str | None, kind: Callable[[str], T], option: str) -> list[T]:
    """Parses numbers: `0..4` (inclusive), `0,3,7` or both, `0..4,7`; an empty list for None.

    Raises:
        UsageError: the text is not such a list, a number occurs twice, or there are too many.
    """
    values: list[T] = []
    for part in text.split(",") if text is not None else []:
        first, dots, last = part.strip().partition("..")
        try:
            if dots and int(last) - int(first) >= MOST_NUMBERS:
                raise UsageError(f"{option} {part[:80]}: more than {MOST_NUMBERS:,} numbers")
            values.extend(map(kind, map(str, range(int(first), int(last) + 1)))) if dots else values.append(kind(first))
        except ValueError:
            raise UsageError(
                f"{option} {text}: '{part}' is not a number or a range", "examples: 0..4 or 0,3,7"
            ) from None
    if text is not None and (not values or len(set(values)) < len(values)):
        raise UsageError(f"{option} {text}: {'a number occurs twice' if values else 'the range is empty'}")
    return values


def label_counts(text: str | None) -> tuple[int | Literal["all", "shard"], ...]:
    """Parses numbers of labels, `20,50,all`; empty for None.

    Raises:
        UsageError: a part is neither a number above 0, nor 'all' nor 'shard', or occurs twice.
    """
    counts: list[int | Literal["all", "shard"]] = []
    for part in names(text) if text is not None else []:
        if part in ("all", "shard"):
            counts.append("all" if part == "all" else "shard")
        elif part.isascii() and part.isdigit() and int(part) > 0:
            counts.append(int(part))
        else:
            raise UsageError(
                f"--labels {text}: '{part}' is not a number of labels", "examples: --labels 20,50,100, --labels all"
            )
    if len(set(counts)) < len(counts):
        raise UsageError(f"--labels {text}: a number occurs twice")
    return tuple(counts)


def names(text: str) -> list[str]:
    """Splits `x,w` into a list of names."""
    return [part.strip() for part in text.split(",")]
