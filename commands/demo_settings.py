"""The settings of `mmssl demo`, small enough for two cores and five minutes."""

from dataclasses import dataclass

from pipeline.features.fine_tuning import FeatureSettings
from pipeline.images.store import ImageSettings

NAME = "demo"  # of the shards


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the rendered sample, of the images made from it, and of the features made from those.

    Attributes:
        categories, objects, views: as for `pipeline.sample.render`; views in each of three videos per object.
        splits: the splits to train on, each tested on its left-out objects.
    """

    categories: int
    objects: int
    views: int
    splits: tuple[int, ...]
    images: ImageSettings
    features: FeatureSettings


# Nothing may be downloaded, so VGG16 has random weights. They are not fine-tuned: 36 steps of 32 images at a learning
# rate of 1e-4 left the loss at 2.1 nats (chance: 2.3), and hundreds of steps would take too long. Since the features
# are not learned, the models get more labels than the paper's 5 %.
DEMO = DemoSettings(
    categories=10,
    objects=4,
    views=8,
    splits=(0, 1),
    images=ImageSettings(size=64),
    features=FeatureSettings(labelled=0.5, epochs=0),
)
