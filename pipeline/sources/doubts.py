"""What in a person's data is probably not meant: found and said in a sentence each, never changed."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.shards.schema import Features
from pipeline.sources.parts import Labelling
from pipeline.sources.rows import Source

_MISSING = frozenset(
    {"na", "n/a", "#n/a", "<na>", "nat", "null", "none", "missing", "?", "#div/0!", "#ref!", "#value!"}
)
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff\ufe0e\ufe0f]")  # no width, and no glyph
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_NAMED = 3  # examples in a sentence


def doubts(source: Source, labelling: Labelling) -> list[str]:
    """Sentences on labels that look alike or missing, rows that are equal, and rows filled with one value."""
    return [*label_doubts(source.labels), *_filled(source.vectors), *_equal(source, labelling)]


def label_doubts(labels: Sequence[str | None]) -> list[str]:
    """Sentences on classes whose names look alike, or like what programs write for nothing."""
    counts = Counter(label for label in labels if label is not None)
    found = []
    for name in sorted(counts):
        if name.casefold() in _MISSING:
            found.append(
                f"the label {name!r} of {counts[name]} rows is taken as a class; if it means no label, leave these "
                "labels empty"
            )
    for names in look_alikes(sorted(counts)):
        found.append(f"the labels {' and '.join(map(repr, names))} look alike, and are {len(names)} classes")
    single = sum(count == 1 for count in counts.values())
    if len(counts) > 2 and 2 * single > len(counts):
        found.append(f"{single} of {len(counts)} classes have one labelled row: is each label a class, or a number?")
    return found


def look_alikes(names: Sequence[str]) -> list[list[str]]:
    """Names that differ only in capitals, spaces, invisible characters, or the way that a number is written."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[_look(name)].append(name)
    return [group for group in alike.values() if len(group) > 1]


def _look(name: str) -> str:
    text = _UNSEEN.sub("", unicodedata.normalize("NFKC", name)).casefold()
    text = " ".join(re.split(r"[\s_-]+", text.strip())) if not _NUMBER.fullmatch(text) else text
    return f"{float(text):.17g}" if _NUMBER.fullmatch(text) and len(text) < 16 else text


def _filled(vectors: Mapping[str, Features]) -> list[str]:
    found = []
    for name, values in vectors.items():
        if values.shape[1] < 2:
            continue
        same = (values == values[:, :1]).all(axis=1)
        if same.any() and not same.all() and same.sum() > 1:
            common = Counter(values[same, 0].tolist()).most_common(1)[0]
            found.append(
                f"{name} holds nothing but {common[0]:g} in {common[1]} rows, which are taken as they are; if they "
                f"lack {name}, leave them empty, or NaN"
            )
    return found


def _equal(source: Source, labelling: Labelling) -> list[str]:
    if not source.vectors or len(source.ids) < 2:
        return []
    rows = np.concatenate([np.ascontiguousarray(values) for values in source.vectors.values()], axis=1)
    as_bytes = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
    _, same = np.unique(as_bytes, return_inverse=True)
    found = []
    both = np.flatnonzero(labelling.test & np.isin(same, same[~labelling.test]))
    if both.size:
        found.append(
            f"{both.size} of {int(labelling.test.sum())} test rows are equal to training rows ({_ids(source, both)}): "
            "they say little about new ones; --group keeps together what belongs together"
        )
    unlike = _differing(same, labelling.labels)
    if unlike.size:
        found.append(f"{unlike.size} labelled rows are equal to rows with another label ({_ids(source, unlike)})")
    return found


def _differing(same: NDArray[np.intp], labels: NDArray[np.int64]) -> NDArray[np.intp]:
    """The labelled rows among whose equals is one with another label."""
    known = np.flatnonzero(labels >= 0)
    pairs = np.unique(np.stack([same[known], labels[known]], axis=1), axis=0)
    kinds, counts = np.unique(pairs[:, 0], return_counts=True)
    return np.asarray(known[np.isin(same[known], kinds[counts > 1])], np.intp)


def _ids(source: Source, rows: NDArray[np.intp]) -> str:
    return ", ".join(source.ids[row] for row in rows[:_NAMED]) + (", ..." if rows.size > _NAMED else "")
