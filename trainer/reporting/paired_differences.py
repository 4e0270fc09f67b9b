"""Differences in accuracy between settings that share seeds or splits, paired replica by replica."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from trainer.evaluation.intervals import paired_difference
from trainer.evaluation.metrics import COMPLETION_TITLES, Evaluation
from trainer.training.run_folder import Run

Evaluated = Sequence[tuple[Run, Evaluation]]  # the replicas of one setting
Accuracies = dict[str, dict[str, dict[Hashable, float]]]  # given -> completion -> replica -> per cent


@dataclass(frozen=True)
class DifferenceRow:
    """How much more accurate a setting is than a reference, given the same modalities, over shared replicas.

    Attributes:
        setting, reference: the names of the two in the table.
        given: the given modalities.
        completion, reference_completion: what stands in for the missing ones in each, in words.
        mean: the mean of the setting's accuracy minus the reference's, in percentage points.
        standard_error, ci95: of the mean, and half the width of its 95 % confidence interval, in percentage points.
        pairs: the number of shared replicas, two or more.
    """

    setting: str
    reference: str
    given: str
    completion: str
    reference_completion: str
    mean: float
    standard_error: float
    ci95: float
    pairs: int

    @property
    def how(self) -> str:
        """What stands in for missing modalities: one phrase, or two if the reference has another."""
        if self.completion == self.reference_completion:
            return self.completion
        return f"{self.completion} against {self.reference_completion}"


def differences(names: Sequence[str], settings: Sequence[Evaluated]) -> Iterator[DifferenceRow]:
    """Compares every setting with the first: given all modalities, and given each alone.

    Completions are compared with themselves. If the two settings have none in common, their last ones are compared:
    iterative sampling comes after zeros.
    """
    reference = _accuracies(settings[0])
    for name, replicas in zip(names[1:], settings[1:], strict=True):
        accuracies = _accuracies(replicas)
        for given in _shown(accuracies, reference):
            ours, theirs = accuracies[given], reference[given]
            same = [(completion, completion) for completion in ours if completion in theirs]
            for completion, other in same or [(list(ours)[-1], list(theirs)[-1])]:
                found = paired_difference(ours[completion], theirs[other])
                if found is None or found.standard_error is None or found.half_width is None:
                    continue
                yield DifferenceRow(
                    setting=name,
                    reference=names[0],
                    given=given,
                    completion=COMPLETION_TITLES[completion],
                    reference_completion=COMPLETION_TITLES[other],
                    mean=found.mean,
                    standard_error=found.standard_error,
                    ci95=found.half_width,
                    pairs=found.pairs,
                )


def _accuracies(replicas: Evaluated) -> Accuracies:
    found: Accuracies = {}
    for run, result in replicas:
        replica = (run.settings.seed, run.settings.split, run.settings.digest)
        for score in result.scores:
            by_completion = found.setdefault(score.given, {})
            by_completion.setdefault(score.completion, {})[replica] = 100 * score.accuracy
    return found


def _shown(ours: Accuracies, theirs: Accuracies) -> list[str]:
    """The single modalities that both have, and all modalities if they are the same for both."""
    if not ours or not theirs:  # without a test part there is nothing to compare
        return []
    alone = [given for given in ours if given in theirs and "+" not in given]
    every, other = (max(found, key=lambda given: given.count("+")) for found in (ours, theirs))
    return [*alone, every] if every == other and every not in alone else alone
