"""What `mmssl predict` prints."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from commands import messages
from commands.messages import Table

if TYPE_CHECKING:
    from trainer.inference.card import BundleCard
    from trainer.inference.predictions import Predictions

FIRST_ROWS = 10
_MOST_PATTERNS = 12
Columns = Mapping[str, Sequence[Any]]


def summary(predictions: "Predictions", columns: Columns, trained_on: Collection[str]) -> dict[str, Any]:
    """Counts over all rows: per class, per pattern of modalities, of abstentions; accuracy where labels are known.

    Args:
        trained_on: those of the ids that are ids of rows whose label was given in training. A shard's rows are then the
            same ones; others may be.
    """
    names = [predictions.classes[k] for k in predictions.label.tolist()]
    result: dict[str, Any] = {
        "rows": predictions.rows,
        "abstained": int(predictions.abstained.sum()),
        "classes": dict(Counter(names).most_common()),
        "given": dict(Counter(predictions.given).most_common()),
    }
    known = columns.get("known_label")
    if known is not None:
        given = columns.get("given_in_training", [False] * len(names))
        classes = set(predictions.classes)
        right = [a == b for a, b, used in zip(names, known, given, strict=True) if b in classes and not used]
        result["known"] = {
            "rows": len(right),
            "accuracy": sum(right) / len(right) if right else None,
            "ids of labelled training rows": 0
            if "given_in_training" in columns
            else sum(name in trained_on for name, b in zip(columns["id"], known, strict=True) if b in classes),
            "other labels": dict(Counter(b for b in known if b is not None and b not in classes)),
        }
    return result


def as_dict(
    card: "BundleCard", predictions: "Predictions", columns: Columns, trained_on: Collection[str]
) -> dict[str, Any]:
    """Everything as JSON values."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    facts = {"model": card.model, "dataset": card.dataset, "classes": list(card.classes)}
    return {**facts, "summary": summary(predictions, columns, trained_on), "predictions": rows}


def show(card: "BundleCard", predictions: "Predictions", columns: Columns, trained_on: Collection[str]) -> None:
    """Prints a summary and the first rows."""
    counts = summary(predictions, columns, trained_on)
    messages.say(
        f"{_rows(counts['rows'])} by {card.model} of {card.dataset}; abstained: {counts['abstained']:,}"
        + ("" if _has_thresholds(predictions) else " (the model has no thresholds)")
    )
    table = Table("label", "rows")
    for name, count in counts["classes"].items():
        table.add_row(name, f"{count:,}")
    messages.show(table)
    patterns = list(counts["given"].items())
    for name, count in patterns[:_MOST_PATTERNS]:
        messages.say(f"given {name}: {_rows(count)}")
    if len(patterns) > _MOST_PATTERNS:
        messages.say(f"and {len(patterns) - _MOST_PATTERNS} other combinations")
    known = counts.get("known")
    if known and known["rows"]:
        unused = " not used in training" if "given_in_training" in columns else ""
        messages.say(f"right: {known['accuracy']:.1%} of {known['rows']:,} rows with a known label{unused}")
        if known["ids of labelled training rows"]:
            messages.say(
                f"{known['ids of labelled training rows']:,} of these have the id of a row whose label was given in "
                "training: if they are the same rows, they say little"
            )
    if known and known["other labels"]:
        others = known["other labels"]
        messages.say(
            f"{sum(others.values()):,} rows have a label that is no class of the model, such as {next(iter(others))!r}"
        )
    _first_rows(predictions, columns)


def _has_thresholds(predictions: "Predictions") -> bool:
    return bool((predictions.thresholds > 0).any())


def _first_rows(predictions: "Predictions", columns: Columns) -> None:
    shown = [name for name in columns if not name.startswith("p(") and not name.endswith(".probability")]
    table = Table(*(name.replace("_", " ") for name in shown))
    for row in range(min(FIRST_ROWS, predictions.rows)):
        table.add_row(*(_cell(columns[name][row]) for name in shown))
    messages.show(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"
