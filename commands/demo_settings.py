"""What `mmssl demo` asks of the pipeline, as data: settings small enough for two cores and five minutes."""

from dataclasses import dataclass

from pipeline.features.fine_tuning import FeatureSettings
from pipeline.images.store import ImageSettings

NAME = "demo"  # of the shards


@dataclass(frozen=True)
class DemoSettings:
    """The sample that is rendered, the images made of it, and the features made of those.

    Attributes:
        categories, objects, views: as `pipeline.sample.render` takes them; views in each of three videos.
        splits: the trials whose left-out objects are tested.
    """

    categories: int
    objects: int
    views: int
    splits: tuple[int, ...]
    images: ImageSettings
    features: FeatureSettings


# Nothing may be downloaded, so VGG16 has random weights. They are not fine-tuned: 36 steps of 32 images at 1e-4 left
# the loss at 2.1 nats (chance: 2.3), and hundreds of steps do not fit into minutes. As nothing is learned there, the
# models get more labels than the paper's 5 %.
DEMO = DemoSettings(
    categories=10,
    objects=4,
    views=8,
    splits=(0, 1),
    images=ImageSettings(size=64),
    features=FeatureSettings(labelled=0.5, epochs=0),
)
