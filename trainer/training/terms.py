"""The objective's terms: those beyond the paper with their onset, and the sums over an epoch of all of them."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pipeline.runtime.errors import TrainingError
from trainer.objective.regularisers import Penalty
from trainer.training.run_folder import Run

LOWER_RATE = "a smaller --lr often helps; delete the run's folder to begin again"


class ExtraTerms:
    """The terms beyond the paper: before their onset they count 0 and are not computed."""

    def __init__(self, replicas: int, device: torch.device) -> None:
        self.weight = torch.ones((), device=device)  # 0 or 1: a tensor, so that a captured graph reads it anew
        self.names: list[str] = []  # known after the first computation
        self.pending: list[str] = []  # the same while they need not be computed
        self._zero = torch.zeros(replicas, device=device)

    def switch(self, on: bool) -> bool:
        """Turns the terms on or off; returns whether that changes what is computed."""
        self.weight.fill_(float(on))
        pending = [] if on else self.names
        changed = pending != self.pending
        self.pending = pending
        return changed

    def __call__(self, compute: Callable[[], Mapping[str, Penalty]]) -> dict[str, Penalty]:
        """(weight, value `[R]`) by name."""
        if self.pending:
            return dict.fromkeys(self.pending, (self.weight, self._zero))
        found = compute()
        self.names = list(found)
        return {name: (weight * self.weight, value) for name, (weight, value) in found.items()}


class TermTotals:
    """Sums of the objective's terms over the steps of an epoch, on the device.

    Attributes:
        names: of the T terms.
        totals: `[T, R]` float64.
        finite: `[T, R]`, whether every value so far was finite.
    """

    def __init__(self, names: Sequence[str], replicas: int, device: torch.device) -> None:
        self.names = list(names)
        self.totals = torch.zeros(len(names), replicas, dtype=torch.float64, device=device)
        self.finite = torch.ones(len(names), replicas, dtype=torch.bool, device=device)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds one step's terms, `[R]` each."""
        terms = torch.stack(list(values.values())).detach()  # [T, R]
        self.totals += terms
        self.finite &= terms.isfinite()

    def raise_if_not_finite(self, runs: Sequence[Run]) -> None:
        """Looks at what was added since the beginning.

        Raises:
            TrainingError: a term was not finite; it names the terms and the replicas.
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
            f"training stopped: not finite: {', '.join(bad[:8])}{' ...' * (len(bad) > 8)}",
            LOWER_RATE,
        )
