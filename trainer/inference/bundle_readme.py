"""The page that a bundle carries: its card in words."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.runtime.text import markdown
from trainer.inference.card import RUNNER, BundleCard, SubsetCard, encoder_onnx


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
    yield from _exports(card)
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


def _exports(card: BundleCard) -> Iterator[str]:
    if not card.exports:
        return
    yield "## Without mmssl"
    yield _table(
        ("file", "inputs", "output", "differs by at most", "run with"),
        [
            (one.file, ", ".join(one.inputs), one.output, f"{one.greatest_difference:.1e}", one.compared_with)
            for one in card.exports
        ],
    )
    files = {one.file for one in card.exports}
    pictures = [m.name for m in card.modalities if encoder_onnx(m.name) in files]
    runs = " ".join(f"{m.name}={m.name}.{'png' if m.name in pictures else 'npy'}" for m in card.modalities)
    if RUNNER in card.files:
        yield f"```\npython {RUNNER} {runs}\n```"
    yield (
        "The numbers are of probabilities, next to those of `mmssl predict`, over rows with every subset of the "
        "modalities. The last input of the model says which modalities each row has; a row of NaN is missing too. "
        "Vectors are given as they are, for scaling is part of the model. A row that `mmssl predict` would refuse gets "
        "NaN: with no modality, values that are not finite, or values outside the modality's distribution. Thresholds "
        "for abstaining are in the table below and in `model.json`."
    )
    depths = [m.name for m in card.modalities if m.name in pictures and (m.encoder or {}).get("depth_encoding")]
    if pictures:
        yield (
            "An encoder takes pictures of any size, those of one call of the same size: it scales them, makes colours "
            f"of depth and normalises.{_HOLES if depths else ''}"
        )


_HOLES = (
    " What it leaves out is to fill the holes of depth: it takes depth in which every missing value has been replaced "
    f"by the nearest one there is, as `{RUNNER}` does."
)


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
