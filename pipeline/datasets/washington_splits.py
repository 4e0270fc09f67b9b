"""The ten trials of the Washington RGB-D data: which objects are left out for testing, and the labelled 5 %."""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.washington import Frame, Trials, load_facts
from pipeline.datasets.washington_index import Index, find_dataset
from pipeline.runtime.errors import DataError, UsageError
from pipeline.runtime.texts import read_text

_log = logging.getLogger(__name__)

TRIALS_FILE = "testinstance_ids.txt"
TRIALS_HINT = (
    f"`mmssl preprocess rgbd --trials objects` leaves out one object after the other instead; or write {TRIALS_FILE} "
    "beside the categories' folders: a line `****** trial 1 ******`, then one object of every category, such as cup_1"
)
_NAMED = 10  # names in a message
_HEADER = re.compile(r"\*+\s*trial\s+(\d+)\s*\*+")


def find_trials(root: Path) -> Path | None:
    """A data set's own `testinstance_ids.txt`, in or next to its folder, if there is one."""
    dataset = find_dataset(root)
    return next((path for path in (dataset / TRIALS_FILE, dataset.parent / TRIALS_FILE) if path.is_file()), None)


def trials_of(root: Path) -> Trials:
    """The trials of the data set at `root`: those of its own `testinstance_ids.txt`, or else the official ten."""
    path = find_trials(root)
    _log.info("using %s", "the official trials" if path is None else f"the trials of {path}")
    return load_facts().trials if path is None else read_trials(path)


def read_trials(path: Path) -> Trials:
    """Reads the authors' `testinstance_ids.txt`: headers `****** trial N ******`, below each one object per category.

    Raises:
        DataError: the file is missing, or is not in that format.
    """
    hint = f"the file comes with the data set, as {TRIALS_FILE}"
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}", hint) from error
    trials: list[dict[str, int]] = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if header := _HEADER.fullmatch(line):
            if int(header[1]) != len(trials) + 1:
                raise DataError(f"{path}, line {number}: trial {header[1]} where {len(trials) + 1} should follow", hint)
            trials.append({})
        elif line:
            category, _, left_out = line.rpartition("_")
            if not trials or not category or not left_out.isdecimal() or category in trials[-1]:
                raise DataError(f"{path}, line {number}: {line!r} is not one object of a trial", hint)
            trials[-1][category] = int(left_out)
    if not trials:
        raise DataError(f"{path}: contains no trials", hint)
    return trials


def format_trials(trials: Trials) -> str:
    """The text that `read_trials` reads."""
    blocks = (
        "\n".join(
            [f"****** trial {number} ******", *(f"{name}_{left_out}" for name, left_out in sorted(trial.items()))]
        )
        for number, trial in enumerate(trials, start=1)
    )
    return "\n\n\n".join(blocks) + "\n"


@dataclass(frozen=True)
class Split:
    """A partition of an index: the left-out objects' frames for testing, all others for training."""

    number: int
    train: tuple[Frame, ...]
    test: tuple[Frame, ...]


def split_frames(index: Index, trials: Trials, split: int) -> Split:
    """Split number `split` (from 0), that is trial `split + 1`: the left-out object of every category is the test set.

    Categories of the trial that the data lacks play no part.

    Raises:
        UsageError: there is no such split.
        DataError: index and trial disagree: a category of the data is not in it, or a left-out object has no frames.
    """
    if not 0 <= split < len(trials):
        raise UsageError(
            f"there is no split {split}: they are 0..{len(trials) - 1}", f"choose some: --split 0..{len(trials) - 1}"
        )
    trial = trials[split]
    if (reason := misfit(index.objects, trial)) is not None:
        raise DataError(f"trial {split + 1} {reason}", TRIALS_HINT)
    test = tuple(frame for frame in index.frames if trial[frame.category] == frame.object)
    train = tuple(frame for frame in index.frames if trial[frame.category] != frame.object)
    return Split(split, train, test)


def misfit(objects: Collection[tuple[str, int]], trial: Mapping[str, int]) -> str | None:
    """Why objects (category and number) cannot be divided by a trial, as the end of a sentence; None if they can."""
    categories = {category for category, _ in objects}
    if missing := sorted(categories - set(trial)):
        return f"names no left-out object of {_some(missing)}"
    if missing := sorted(f"{key[0]}_{key[1]}" for key in trial.items() if key[0] in categories and key not in objects):
        return f"leaves out objects that the data lacks: {_some(missing)}"
    if lacking := sorted(categories - {category for category, number in objects if trial[category] != number}):
        return f"leaves nothing to train on of {_some(lacking)}"
    return None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def object_trials(objects: Iterable[tuple[str, int]]) -> Trials:
    """Trials made from what is there: each leaves out one object of every category, and each object is left out once.

    There are as many as the category with most objects has; the others begin again.

    Raises:
        DataError: a category has one object only.
    """
    numbers: dict[str, list[int]] = {}
    for category, number in sorted(objects):
        numbers.setdefault(category, []).append(number)
    if single := sorted(category for category, known in numbers.items() if len(known) < 2):
        raise DataError(
            f"one object of every category is left out for testing, but there is only one of {_some(single)}",
            "record another object of it, or move its frames away",
        )
    count = max(map(len, numbers.values()))
    return [{category: known[k % len(known)] for category, known in numbers.items()} for k in range(count)]


def labelled_ids(split: Split, fraction: float = 0.05, *, seed: int = 0) -> tuple[str, ...]:
    """Ids of the training frames that keep their label, in the frames' order: `fraction` of them, one per category.

    A uniform draw without replacement, seeded by the split and `seed`: every id is hashed, and the smallest hashes are
    taken. Unlike a random generator's, this draw depends neither on the order of the frames nor on numpy's version, and
    a missing frame hardly changes it. Where the draw leaves out a category, the smallest hash of it takes the place of
    the largest one of a category that has several, and the log says so; there are more labels than `fraction` only if
    there would be fewer than categories.

    Raises:
        UsageError: `fraction` is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"the labelled fraction must be above 0 and at most 1, not {fraction}")
    count = max(1, int(fraction * len(split.train) + 0.5))
    drawn = sorted(split.train, key=lambda frame: _ticket(frame.id, split.number, seed))
    chosen = _with_every_category(drawn, count, f"split {split.number}")
    return tuple(frame.id for frame in split.train if frame in chosen)


def _with_every_category(drawn: Sequence[Frame], count: int, title: str) -> set[Frame]:
    """The first `count` frames, with changes where a category has none of them."""
    chosen = list(drawn[:count])
    labels = Counter(frame.category for frame in chosen)
    first = {frame.category: frame for frame in reversed(drawn) if frame.category not in labels}
    for frame in sorted(first.values()):
        spare = next((other for other in reversed(chosen) if labels[other.category] > 1), None)
        if spare is not None:
            chosen.remove(spare)
            labels[spare.category] -= 1
        chosen.append(frame)
        labels[frame.category] += 1
    if first:
        _log.warning(
            "%s: the uniform draw of %d labels had none of %s, so %s given one%s",
            title,
            count,
            ", ".join(sorted(first)),
            "it is" if len(first) == 1 else "each is",
            " of them" if len(chosen) == count else f"; that makes {len(chosen)} labels",
        )
    return set(chosen)


def _ticket(name: str, split: int, seed: int) -> bytes:
    return hashlib.sha256(f"labelled/{seed}/{split}/{name}".encode()).digest()
