"""The batches of a stack: two endless streams per replica, labelled and unlabelled, and where a step finds its rows."""

import math
from collections.abc import Sequence

from torch import Tensor

from trainer.data.interface import Data
from trainer.settings.run_settings import Settings


class Batches:
    """The labelled and the unlabelled batch of every step.

    Attributes:
        labelled, unlabelled: one stream per replica; none where there is no such batch.
        index_l, index_u: where the batch at hand lies in the flat tensors, `[R, B]`; None where there is none.
        per_epoch: steps in an epoch.
    """

    def __init__(self, stack: Sequence[Settings], data: Data) -> None:
        first, self.data = stack[0], data
        seeds = [settings.seed for settings in stack]
        has_unlabelled = len(data.examples[0].unlabelled) > 0
        labelled_size = first.labelled_batch_size if has_unlabelled else first.batch_size
        self.unlabelled = data.streams("unlabelled", seeds, first.batch_size) if has_unlabelled else []
        self.labelled = data.streams("labelled", seeds, labelled_size) if first.learns_labels else []
        paced = self.unlabelled or self.labelled
        self.per_epoch = max(math.ceil(len(stream.rows) / stream.batch_size) for stream in paced)
        self.index_l: Tensor | None = data.first_index(self.labelled) if self.labelled else None
        self.index_u: Tensor | None = data.first_index(self.unlabelled) if self.unlabelled else None

    def load(self, step: int) -> None:
        """Points the indices to the batches of a step (from 0)."""
        for index, streams in ((self.index_l, self.labelled), (self.index_u, self.unlabelled)):
            if index is not None:
                self.data.write_indices(index, streams, step)
