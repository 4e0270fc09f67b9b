"""The subsets of the modalities: all of them, those that tables and figures show, and what those are called there.

The number of subsets doubles with each modality: six have 63. Scores write a subset as `x+w`.
"""

import itertools
from collections.abc import Iterable, Sequence

MOST_WITH_ALL_SHOWN = 3  # modalities


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """All non-empty subsets, smallest first, each in the order of the modalities."""
    return _of_sizes(modalities, range(1, len(modalities) + 1))


def shown_subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """The subsets that tables and figures show: each modality alone, all but one, and all; so up to three, every one.

    They are in the order of `subsets`.
    """
    total = len(modalities)
    return _of_sizes(modalities, sorted({1, total - 1, total} - {0, -1}))


def shown_among(given: Iterable[str]) -> list[str]:
    """Those of one model's measured subsets (`x+w`) that are shown, in their order; the largest is all modalities."""
    measured = list(given)
    if not measured:
        return []
    shown = {"+".join(subset) for subset in shown_subsets(_largest(measured).split("+"))}
    return [subset for subset in measured if subset in shown]


def every_modality(given: Iterable[str]) -> str:
    """The largest of some subsets (`x+w`) if it holds all the others; otherwise nothing."""
    measured = list(given)
    largest = _largest(measured) if measured else ""
    names = set(largest.split("+"))
    return largest if all(names.issuperset(subset.split("+")) for subset in measured) else ""


def subset_title(given: str, every: str) -> str:
    """What a subset is called among many: `x`, `all but x`, `all 6`; with few modalities `x+w`.

    Args:
        every: all modalities, as `every_modality` gives them.
    """
    names = every.split("+")
    missing = [name for name in names if name not in given.split("+")]
    if len(names) <= MOST_WITH_ALL_SHOWN or len(missing) + given.count("+") + 1 > len(names) or len(missing) > 1:
        return given
    return f"all but {missing[0]}" if missing else f"all {len(names)}"


def _of_sizes(modalities: Sequence[str], sizes: Iterable[int]) -> list[tuple[str, ...]]:
    return [subset for size in sizes for subset in itertools.combinations(modalities, size)]


def _largest(given: Sequence[str]) -> str:
    return max(given, key=lambda subset: subset.count("+"))
