"""Several pieces of work of which one may fail without stopping the others, and is named at the end."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.runtime.errors import DataError, LeasedError, MmsslError, TrainingError

_log = logging.getLogger(__name__)
_NAMED = 3  # failures whose reasons are in the error; the log has them all


class Failures:
    """Why pieces of work were left out, by their names.

    Only errors that concern one piece are collected, such as files that are damaged or that another process is writing;
    a full disk, a wrong option or a request to stop ends everything.

    Attributes:
        alone: whether there is one piece only: its error is the command's own, and needs no line before it.
    """

    def __init__(self, alone: bool = False) -> None:
        self.alone = alone
        self.errors: dict[str, MmsslError] = {}

    def __len__(self) -> int:
        return len(self.errors)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Collects the error of a piece of work, and logs it where there are more, instead of raising it."""
        try:
            yield
        except (DataError, LeasedError, TrainingError) as error:
            if not self.alone:
                _log.error("%s is left out: %s", name, error.message)
            self.errors.setdefault(name, error)

    def raise_if_any(self, pieces: int) -> None:
        """As `raise_if_failed`, with the names of the pieces, unless there is one or all failed for the same reason."""
        errors = list(self.errors.values())
        for_one_reason = len(errors) > 1 and len({error.message for error in errors}) == 1
        if pieces > 1 and not for_one_reason:
            errors = [type(error)(f"{name}: {error.message}", error.hint) for name, error in self.errors.items()]
        raise_if_failed(errors, pieces)


def raise_if_failed(failures: Sequence[MmsslError], pieces: int) -> None:
    """Raises one error if any of several pieces of work failed.

    Raises:
        MmsslError: the failure itself, if there was only one piece.
        TrainingError: some pieces failed; the others are done.
    """
    if not failures:
        return
    if pieces == 1:
        raise failures[0]
    reasons = "; ".join(dict.fromkeys(failure.message for failure in failures[:_NAMED]))
    more = f"; and {len(failures) - _NAMED} more, which the log names" if len(failures) > _NAMED else ""
    others = "the others are done" if len(failures) < pieces else "nothing else was to be done"
    hint = failures[0].hint
    again = "the same command retries what failed"
    raise TrainingError(f"{len(failures)} failed, {others}: {reasons}{more}", f"{hint}; {again}" if hint else again)
