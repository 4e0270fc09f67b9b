"""What the page knows of a model before anything is asked: names, and what thresholds would give."""

from typing import Any

from trainer.inference.card import SubsetCard
from trainer.models.registry import card as model_card
from trainer.serving.exploring import Explorer
from trainer.serving.limits import Limits


def facts(explorer: Explorer, limits: Limits) -> dict[str, Any]:
    """The facts as JSON values."""
    card, titles, rows = explorer.model.card, explorer.pictures.titles, explorer.rows
    stored = set() if rows is None else {name for name in rows.names if _has_pictures(explorer, name)}
    complete = card.subset(card.names)
    return {
        "dataset": card.dataset,
        "model": model_card(card.settings["model"]).title,
        "replicas": len(card.seeds),
        "classes": list(card.classes),
        "modalities": [
            {
                "name": m.name,
                "title": explorer.pictures.title(m.name),
                "width": m.width,
                "picture": m.name in titles,
                "shape": explorer.shape(m.name),
                "shown": m.name in titles or m.name in stored or explorer.shape(m.name) is not None,
            }
            for m in card.modalities
        ],
        "subsets": [_subset(subset) for subset in card.subsets],
        "accuracy": None if complete is None else card.subsets[complete].accuracy,
        "target": card.target_accuracy,
        "examples": 0 if rows is None else len(rows.order),
        "limits": {"body": limits.body, "pixels": limits.pixels},
    }


def _has_pictures(explorer: Explorer, name: str) -> bool:
    """Whether the pictures of a modality's rows are at hand."""
    assert explorer.rows is not None
    part = explorer.rows.shard.test if len(explorer.rows.order) else explorer.rows.shard.train
    there = part.has(name).nonzero()[0][:1].tolist()
    return bool(there) and explorer.rows.images(part, there, name)[0] is not None


def _subset(subset: SubsetCard) -> dict[str, Any]:
    abstention = subset.abstention
    return {
        "given": list(subset.given),
        "size": subset.size,
        "rows": subset.rows,
        "accuracy": subset.accuracy,
        "threshold": None if abstention is None else abstention.threshold,
        "abstains": abstention is not None and abstention.threshold is None,
        "own": None if abstention is None else [abstention.coverage, abstention.accuracy],
        "known_from": subset.known_from,
        "curve": [[point.threshold, point.coverage, point.accuracy] for point in subset.curve],
    }
