"""Random examples in the shape of a data set: the time of a step does not depend on the values."""

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.shards.shard import Modality
from trainer.data.resident import Resident
from trainer.data.selection import Examples


def random_examples(
    modalities: Sequence[Modality],
    classes: int,
    *,
    rows: int,
    labelled: int,
    test: int,
    replicas: int,
    device: torch.device,
) -> Resident:
    """Examples that every replica has: the first `labelled` rows are labelled, the first `test` are tested, too."""
    generator = torch.Generator().manual_seed(0)
    features = {m.name: torch.rand(rows, m.width, generator=generator).to(device) for m in modalities}
    label = torch.randint(0, classes, (rows,), generator=generator).to(device)
    numbers = np.arange(rows)
    examples = Examples(
        labelled=numbers[:labelled], unlabelled=numbers[labelled:], test=numbers[:test], labelled_ids=()
    )
    names = tuple(map(str, range(classes)))
    number = torch.arange(rows, device=device)
    return Resident(features, {}, label, number, tuple(modalities), names, (examples,) * replicas)
