"""Our recommended settings, which fit themselves to the data: how wide, how many steps, which terms.

They were chosen on validation parts (docs/log/2026-11.md).
"""

import math
from typing import Any

from pipeline.shards.schema import Modality
from trainer.models.registry import card
from trainer.nn.notation import parse

# Weights of the terms. What the label terms say (alpha, the propagated labels) counts as much as an example's bound,
# whose many features would drown it.
_LABELS, _PROPAGATION, _TERM, _PARTIAL = 50.0, 10.0, 50.0, 10.0
_ENOUGH = 0.5  # share of rows that lack nothing, from which on the joint encoder learns enough from them
_STEPS, _ROWS, _GROWTH = 450, 1440, 0.45  # steps of a data set of so many rows, and how they grow with the rows
_LARGE, _GROWTH_OF_LARGE = 10_000, 1.2  # rows from which on they grow faster: noisy pictures keep gaining from them
# Of each modality as a whole, with fewer rows: seeing everything of them, a network learns wrong labels by heart.
_DROPOUT = 0.15


def recommended(model: str, rows: int, modalities: tuple[Modality, ...], complete: float = 1.0) -> dict[str, Any]:
    """The recommended settings of a generative model, all but the number of labels.

    Args:
        rows: the number of training rows.
        modalities: those that the model sees.
        complete: the share of training rows that have all of them.
    """
    width = _power_of_two(3 * math.sqrt(rows), 128, 512)
    batch = _power_of_two(3 * math.sqrt(rows), 32, 512)
    steps = _STEPS * (min(rows, _LARGE) / _ROWS) ** _GROWTH * max(1, rows / _LARGE) ** _GROWTH_OF_LARGE
    features = all(m.distribution == "nonnegative" for m in modalities)  # of a deep network, as in RGB-D
    latent = width // 2 if features else width // 4
    networks = {
        name: parse(notation).resized(hidden=width, output=latent)
        for name, notation in card(model).networks["rgbd" if features else "mnist"].items()
    }
    has_branches = len(modalities) > 1 and not card(model).joins
    if card(model).learns_labels and has_branches and rows < _LARGE and not features:
        networks = {name: network.dropping(_DROPOUT) for name, network in networks.items()}
    return {
        "epochs": max(1, round(steps * batch / rows)),
        "batch_size": batch,
        "labelled_batch_size": min(batch, 64),
        "learning_rate": 3e-3 if width < 512 else 1e-3,
        "networks": {name: str(network) for name, network in networks.items()},
        **terms(model, len(modalities)),
        "neighbours": 10 if rows < _LARGE else 15,
        **(
            {"pooling": "product", "joint_encoder": complete >= _ENOUGH}
            if card(model).has_beta and complete < 1
            else {}
        ),
    }


def terms(model: str, modalities: int) -> dict[str, Any]:
    """The recommended terms beyond the paper and their schedule: those that the model and its modalities allow."""
    values: dict[str, Any] = {"averaging": 0.99, "schedule": "cosine"}
    if card(model).learns_labels:
        values |= {"alpha": _LABELS, "mean_alpha": _LABELS, "propagation": _PROPAGATION}
        values |= {"smoothness": _TERM, "onset": 0.6}
        if modalities > 1:
            values |= {"partial_alpha": _LABELS, "partial_smoothness": _PARTIAL, "agreement": _TERM}
        else:
            values |= {"information": _TERM}
    return values


def _power_of_two(value: float, least: int, most: int) -> int:
    """The power of two that is nearest on a logarithmic scale, within bounds that are powers of two."""
    return min(max(1 << round(math.log2(value)), least), most)
