"""The page that a bundle carries: its card in words."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.runtime.text import markdown
from trainer.inference.card import BundleCard, SubsetCard


def readme(card: BundleCard) -> str:
    """The page, as Markdown."""
    return "\n\n".join(_paragraphs(card)) + "\n"


def _paragraphs(card: BundleCard) -> Iterator[str]:
    replicas = len(card.seeds)
    ensemble = f", an ensemble of {replicas} (their probabilities are averaged)" if replicas > 1 else ""
    yield f"# {markdown(card.dataset)}: {card.model}"
    yield (
        f"A classifier of {len(card.classes)} classes from {len(card.modalities)} "
        f"{'modality' if len(card.modalities) == 1 else 'modalities'}, any of which may be missing in any row. "
        f"Written by mmssl {card.program}{ensemble}."
    )
    yield "```\nmmssl predict . ROWS --out predictions.csv\n```"
    yield "or from Python: `mmssl.load(FOLDER).predict_proba({...})`. It reads nothing outside this folder."
    yield "## Modalities"
    yield _table(
        ("modality", "width", "distribution", "from a picture"),
        [
            (m.name, str(m.width), m.distribution, "no" if m.encoder is None else _encoder(m.encoder))
            for m in card.modalities
        ],
    )
    yield "## Classes"
    yield ", ".join(map(markdown, card.classes))
    yield "## What it reaches"
    yield from _scores(card)
    yield "## Where it comes from"
    facts = {"labels in training": card.settings.get("labels"), "seeds": ", ".join(map(str, card.seeds))}
    yield "\n".join(
        f"- {markdown(name)}: {markdown(_words(value))}" for name, value in (facts | card.provenance).items()
    )
    yield "`model.json` holds all of this for programs, and the digest of every file."


def _words(value: Any) -> str:
    """A value of the provenance without brackets and quotes."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    return ", ".join(map(_words, value)) if isinstance(value, list | tuple) else str(value)


def _scores(card: BundleCard) -> Iterator[str]:
    if not any(subset.rows for subset in card.subsets):
        yield "The data had no test part, so nothing was measured."
    else:
        yield _table(
            ("given", "test rows", "accuracy", "answered", "accuracy of the answers", "threshold"),
            [_score(subset) for subset in card.subsets],
        )
        if card.target_accuracy is not None:
            yield (
                f"A row is answered if its probability is at least the threshold, which was chosen so that "
                f"{card.target_accuracy:.1%} of the answers to the test rows are right. It was chosen and measured on "
                "the same rows, so expect somewhat less of new ones."
            )
    if any(not subset.given for subset in card.subsets):
        yield "Subsets without a line of their own share the line of their number of modalities."


def _score(subset: SubsetCard) -> tuple[str, ...]:
    abstention = subset.abstention
    given = "+".join(subset.given) or f"any {subset.size} others"
    threshold = "-" if abstention is None else "always abstains"
    if abstention is not None and abstention.threshold is not None:
        threshold = f"{abstention.threshold:.4f}"
    answered, right = (None, None) if abstention is None else (abstention.coverage, abstention.accuracy)
    return (given, str(subset.rows), _percent(subset.accuracy), _percent(answered), _percent(right), threshold)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _encoder(recipe: dict[str, object]) -> str:
    return f"yes ({recipe.get('backbone', 'an encoder')})"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [list(map(markdown, head)), ["---"] * len(head), *(map(markdown, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
