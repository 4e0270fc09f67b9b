"""The objective's terms: the onset of those beyond the paper, and the sums of all terms over an epoch."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pipeline.runtime.errors import TrainingError
from trainer.objective.regularisers import Penalty
from trainer.training.run_folder import Run

LOWER_RATE = "a smaller --lr often helps; delete the run's folder to start again"
_NAMED = 8  # the most terms that an error message names


class ExtraTerms:
    """The terms beyond the paper; before their onset they are 0 and are not computed."""

    def __init__(self, replicas: int, device: torch.device) -> None:
        self.weight = torch.ones((), device=device)  # 0 or 1; a tensor, so that a captured graph reads its value
        self.names: list[str] = []  # known after they were first computed
        self.pending: list[str] = []  # equal to `names` while the terms are off, otherwise empty
        self._zero = torch.zeros(replicas, device=device)

    def switch(self, on: bool) -> bool:
        """Turns the terms on or off; returns whether this changes what is computed."""
        self.weight.fill_(float(on))
        pending = [] if on else self.names
        changed = pending != self.pending
        self.pending = pending
        return changed

    def __call__(self, compute: Callable[[], Mapping[str, Penalty]]) -> dict[str, Penalty]:
        """The terms, (weight, value `[R]`) by name; `compute` is called only if they are on or their names unknown."""
        if self.pending:
            return dict.fromkeys(self.pending, (self.weight, self._zero))
        terms = compute()
        self.names = list(terms)
        return {name: (weight * self.weight, value) for name, (weight, value) in terms.items()}


class TermTotals:
    """Sums of the objective's terms over the steps of an epoch, on the device.

    Attributes:
        names: the names of the T terms.
        totals: the sums, `[T, R]` float64.
        finite: whether every value so far was finite, `[T, R]`.
    """

    def __init__(self, names: Sequence[str], replicas: int, device: torch.device) -> None:
        self.names = list(names)
        self.totals = torch.zeros(len(names), replicas, dtype=torch.float64, device=device)
        self.finite = torch.ones(len(names), replicas, dtype=torch.bool, device=device)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds the terms of one step, `[R]` each."""
        terms = torch.stack(list(values.values())).detach()  # [T, R]
        self.totals += terms
        self.finite &= terms.isfinite()

    def raise_if_not_finite(self, runs: Sequence[Run]) -> None:
        """Checks all values added so far.

        Raises:
            TrainingError: a value was not finite; the message names the terms and the replicas.
        """
        if bool(self.finite.all()):
            return
        bad = [
            f"'{name}' of seed {run.settings.seed}"
            for name, row in zip(self.names, self.finite.tolist(), strict=True)
            for run, finite in zip(runs, row, strict=True)
            if not finite
        ]
        raise TrainingError(
            f"training stopped: not finite: {', '.join(bad[:_NAMED])}{' ...' * (len(bad) > _NAMED)}",
            LOWER_RATE,
        )
