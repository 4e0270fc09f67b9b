"""The batches of a stack: a labelled and an unlabelled stream per replica, and the rows of the current batches."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.data.interface import Data
from trainer.settings.run_settings import Settings


class Batches:
    """The labelled and the unlabelled batch of every step.

    Attributes:
        labelled, unlabelled: one stream per replica; empty if training has no such batches.
        index: the rows of the current batches in the flat tensors, `[R, B]`, labelled ones first.
        index_l, index_u: the parts of `index`; None if there is no such batch.
        per_epoch: the number of steps in an epoch.
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
        self.index = torch.cat(
            [data.first_index(streams) for streams in (self.labelled, self.unlabelled) if streams], 1
        )
        at = self.labelled[0].batch_size if self.labelled else 0
        self.index_l: Tensor | None = self.index[:, :at] if self.labelled else None
        self.index_u: Tensor | None = self.index[:, at:] if self.unlabelled else None

    def load(self, step: int) -> None:
        """Loads the indices of the batches of a step; steps count from 0."""
        for index, streams in ((self.index_l, self.labelled), (self.index_u, self.unlabelled)):
            if index is not None:
                self.data.write_indices(index, streams, step)
