"""Bundles for tests: a card changed and sealed again, as whoever makes a false bundle would."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.runtime.files import sha256
from trainer.inference.bundle import CARD
from trainer.inference.card import BundleCard


def reseal(folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    """Changes a bundle's card, and makes every digest right again."""
    values = json.loads((folder / CARD).read_text())
    change(values)
    for name in values["files"]:
        if (folder / name).is_file():
            values["files"][name] = {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
    with contextlib.suppress(ValueError, RecursionError):  # no card at all
        values["digest"] = BundleCard.model_validate(values).content_digest()
    (folder / CARD).write_text(json.dumps(values))
