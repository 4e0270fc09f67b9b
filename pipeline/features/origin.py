"""Where features come from: the image store that a shard was made of."""

import logging
from pathlib import Path

from pipeline.images.store import ImageSettings, ImageStore, store_folder
from pipeline.shards.shard import Shard

_log = logging.getLogger(__name__)


def image_store_of(shard: Shard, *workspaces: Path) -> ImageStore | None:
    """The image store that a shard's features were made from, in the shard's own workspace or in another.

    A store is looked for under the name that its settings give it, and under that of the data set alone. None if there
    is no such store, or only one of other pictures, which the log says.

    Raises:
        DataError: a store is damaged.
    """
    made = shard.provenance.get("images")
    if not isinstance(made, dict) or not isinstance(made.get("dataset"), str):
        return None
    try:
        settings = ImageSettings.model_validate(made.get("settings", {}))
    except ValueError:
        return None
    recipe = shard.provenance.get("recipe")
    digest = recipe.get("images") if isinstance(recipe, dict) else None
    of_shard = (path.parent.parent for path in (shard.path, shard.path.resolve()))  # it may be a link into another
    for workspace in dict.fromkeys((*of_shard, *workspaces)):
        for folder in (store_folder(made["dataset"], workspace, settings), workspace / "images" / made["dataset"]):
            if folder.is_dir():
                store = ImageStore.open(folder)
                if digest is None or store.digest == digest:
                    return store
                _log.warning("no pictures: %s is not the image store that %s was made from", folder, shard.path)
    return None
