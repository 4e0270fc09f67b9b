"""A comparison with rivals: the record that `mmssl compare` writes as `comparison.json` and reports read back.

Accuracies and their differences are in per cent and percentage points. A half-width is that of Student's t 95 %
interval of the mean over replicas (seeds and splits); it is None for a single replica.
"""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.runtime.errors import DataError
from pipeline.runtime.files import write_if_changed
from pipeline.runtime.texts import read_text
from pipeline.runtime.versions import check_known
from trainer.evaluation.intervals import mean_and_half_width, standard_error
from trainer.evaluation.subsets import subset_title

COMPARISON = "comparison.json"
KEPT_SCORES = "scores of a rival"  # the kind of the files that a comparison keeps for itself
SIMPLEST = "logistic-regression"  # the rival that a gain is first told over
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MeasuredMean(_Frozen):
    """A mean over replicas.

    Attributes:
        values: one per replica, in the order of the level's replicas.
        mean: their mean.
        standard_error: of the mean; None for a single replica.
        half_width: of the interval of the mean; None for a single replica.
    """

    values: tuple[float, ...]
    mean: float
    standard_error: float | None
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "MeasuredMean":
        """The mean of one or more values, with its standard error and half-width."""
        mean, half_width = mean_and_half_width(values)
        return cls(values=tuple(values), mean=mean, standard_error=standard_error(values), half_width=half_width)


class ComparedSystem(_Frozen):
    """A system's results with one number of labels.

    Attributes:
        name: such as `ls-svc`, or `sshmvae-kl recommended`.
        title: its name in tables.
        ours: whether it is one of our models.
        accuracy: by given modalities.
        nll, ece: given all modalities, means over replicas.
        seconds: per run, mean over replicas; of a resumed run, those since it was last resumed.
    """

    name: str
    title: str
    ours: bool
    accuracy: dict[str, MeasuredMean]
    nll: float
    ece: float
    seconds: float


class PairedDifference(_Frozen):
    """A rival's accuracy minus that of our recommended model, replica by replica, given some modalities."""

    rival: str
    ours: str
    given: str
    difference: MeasuredMean


class LeftOut(_Frozen):
    """A rival that was left out, and why, as the end of a sentence."""

    title: str
    reason: str


class Level(_Frozen):
    """The results with one number of labels.

    Attributes:
        labels: what was asked for: a number, "all" or "shard".
        count: the number of labelled rows, mean over replicas.
        systems: ours first.
        differences: for each rival, each of our recommended models and each column.
    """

    labels: int | Literal["all", "shard"]
    count: float
    systems: tuple[ComparedSystem, ...]
    differences: tuple[PairedDifference, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def words(self) -> str:
        """`20 labels`, `all labels`, `the shard's labels`."""
        if isinstance(self.labels, int):
            return f"{self.labels} label{'s' if self.labels != 1 else ''}"
        return "all labels" if self.labels == "all" else "the shard's labels"

    def system(self, name: str) -> ComparedSystem:
        """The system of that name."""
        return next(system for system in self.systems if system.name == name)


class RivalComparison(_Frozen):
    """Our models and their rivals on one data set.

    Attributes:
        kind: tells the file from other JSON files.
        data: the data set's name.
        given: the columns: each modality alone, then all of them, `x+w`.
        replicas: the split and the seed of each replica.
        recommended: the names of our models with the recommended settings.
        levels: one per number of labels.
        sentences: what a reader has to know: where a rival is better, and what was left out.
        provenance: versions, machine, command.
    """

    kind: Literal["comparison with rivals"] = "comparison with rivals"
    data: str
    given: tuple[str, ...]
    replicas: tuple[tuple[int | None, int], ...]
    recommended: tuple[str, ...]
    levels: tuple[Level, ...]
    sentences: tuple[str, ...] = ()
    provenance: dict[str, Any] = {}


@dataclass(frozen=True)
class Gain:
    """What one of our recommended models gains in one cell, in points.

    Attributes:
        over_simple: over logistic regression, with the half-width; None if it was not compared.
        best: the rival with the highest mean in this cell; None if there is none.
        over_best: over that one.
    """

    level: Level
    given: str
    ours: ComparedSystem
    simple: ComparedSystem | None
    over_simple: MeasuredMean | None
    best: ComparedSystem | None
    over_best: MeasuredMean | None


def gains(comparison: RivalComparison) -> list[Gain]:
    """What our recommended models gain, for every number of labels and every column."""
    return [
        _gain(level, level.system(name), given)
        for name in comparison.recommended
        for level in comparison.levels
        for given in comparison.given
    ]


def summary_of_gains(comparison: RivalComparison) -> Iterator[str]:
    """What each of our recommended models gains over logistic regression, where, and at what cost."""
    for name in comparison.recommended:
        compared = [gain for gain in gains(comparison) if gain.ours.name == name and gain.over_simple is not None]
        if not compared:
            continue
        by_gain = sorted(compared, key=lambda gain: gain.over_simple.mean if gain.over_simple else 0.0)
        least, most = by_gain[0], by_gain[-1]
        assert least.over_simple is not None
        assert most.over_simple is not None
        ours = statistics.fmean(gain.ours.seconds for gain in compared)
        simple = statistics.fmean(gain.simple.seconds for gain in compared if gain.simple is not None)
        place = f"with {most.level.words} {where(most.given)}"
        amount = _signed(most.over_simple.mean)
        if len(compared) > 1:
            place = f"most {place}, least with {least.level.words} {where(least.given)}"
            amount = f"{_signed(least.over_simple.mean)} to {amount}"
        yield (
            f"Over logistic regression, {most.ours.title} gains {amount} points ({place}). It takes {ours:.3g} s per "
            f"run, logistic regression {simple:.3g} s."
        )


def sentences(comparison: RivalComparison) -> tuple[str, ...]:
    """Where a rival's mean is higher than that of our recommended model, or that there is no such place."""
    found: list[str] = []
    compared = False
    several = len(comparison.recommended) > 1
    for level in comparison.levels:
        for pair in level.differences:
            compared = True
            if pair.difference.mean <= 0:
                continue
            rival, ours = level.system(pair.rival), level.system(pair.ours)
            spread = "" if pair.difference.half_width is None else f" ± {pair.difference.half_width:.1f}"
            found.append(
                f"With {level.words}, {rival.title} is better {where(pair.given)}"
                f"{f' than {ours.title}' if several else ''}: {rival.accuracy[pair.given].mean:.1f} against "
                f"{ours.accuracy[pair.given].mean:.1f} (paired difference {pair.difference.mean:.1f}{spread}, "
                f"{replicas_in_words(comparison)})."
            )
    if not found:
        found.append("No rival wins anywhere." if compared else "No rival was compared.")
    reasons: dict[tuple[str, str], list[str]] = {}
    for level in comparison.levels:
        for left_out in level.left_out:
            reasons.setdefault((left_out.title, left_out.reason), []).append(level.words)
    for (title, reason), levels in reasons.items():
        some = "" if len(levels) == len(comparison.levels) else f" with {', '.join(levels)}"
        found.append(f"{title} was left out{some}: {reason}.")
    return tuple(found)


def where(given: str) -> str:
    """`on w alone`, or `on x+w together`, of many modalities `on all 6 together`."""
    return f"on {subset_title(given, given)} together" if "+" in given else f"on {given} alone"


def replicas_in_words(comparison: RivalComparison) -> str:
    """`five seeds`, `ten splits`, or `twelve runs` over both."""
    splits, seeds = ({replica[k] for replica in comparison.replicas} for k in (0, 1))
    count = len(comparison.replicas)
    unit = "seed" if len(splits) == 1 else "split" if len(seeds) == 1 else "run"
    return f"{_NUMBERS[count] if count < len(_NUMBERS) else count} {unit}{'s' if count != 1 else ''}"


def write_comparison(path: Path, comparison: RivalComparison) -> None:
    """Writes a comparison as JSON, unless the file already holds it."""
    write_if_changed(path, comparison.model_dump_json(indent=2) + "\n")


def is_comparison(path: Path) -> bool:
    """Whether a JSON file is meant to be a comparison; it may still be damaged."""
    try:
        values = json.loads(read_text(path))
    except (DataError, OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.get("kind") == "comparison with rivals"


def read_comparison(path: Path) -> RivalComparison:
    """Reads a comparison from its JSON file.

    Raises:
        DataError: the file is missing, or is not a comparison.
    """
    try:
        comparison = RivalComparison.model_validate_json(read_text(path))
        for level in comparison.levels:
            measured = {system.name: system.accuracy for system in level.systems}
            if any({*comparison.given} - accuracy.keys() for accuracy in measured.values()):
                raise ValueError(f"with {level.words}, a system lacks a column")
            if {*comparison.recommended, *(pair.rival for pair in level.differences)} - measured.keys():
                raise ValueError(f"with {level.words}, a system is missing")
    except FileNotFoundError:
        raise DataError(f"there is no {path}", "mmssl compare writes it") from None
    except (OSError, ValueError) as error:
        if isinstance(error, ValidationError):
            check_known(path, error)
        first = str(error).splitlines()[0]
        raise DataError(f"{path} is not a comparison: {first}", "mmssl compare writes it again") from None
    return comparison


def _signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "\N{MINUS SIGN}")


def _gain(level: Level, ours: ComparedSystem, given: str) -> Gain:
    rivals = [system for system in level.systems if not system.ours]
    simple = next((rival for rival in rivals if rival.name == SIMPLEST), None)
    best = max(rivals, key=lambda rival: rival.accuracy[given].mean, default=None)

    def over(rival: ComparedSystem | None) -> MeasuredMean | None:
        if rival is None:
            return None
        pairs = zip(ours.accuracy[given].values, rival.accuracy[given].values, strict=True)
        return MeasuredMean.of([value - other for value, other in pairs])

    return Gain(level, given, ours, simple, over(simple), best, over(best))
