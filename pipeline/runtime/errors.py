"""Errors of the user's making: one family, turned into one line, a hint and an exit code by the command line alone."""


class MmsslError(Exception):
    """Something the user can mend. `message` names what, where and why; `hint` names the command that mends it.

    Every other exception is a defect of ours and keeps its traceback.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["MmsslError"], tuple[str, str | None]]:
        """Errors travel from worker processes with their hints."""
        return type(self), (self.message, self.hint)


class UsageError(MmsslError):
    """An option or argument that cannot mean anything: exit code 2."""

    exit_code = 2


class DataError(MmsslError):
    """A file that is missing, damaged, or not what it should be."""


class StorageError(MmsslError):
    """The disk refused: full, read-only, or no permission."""


class LeasedError(MmsslError):
    """Another process is writing the same output."""


class TrainingError(MmsslError):
    """Training cannot go on: a loss that is not finite, say."""


class Interrupted(MmsslError):
    """SIGTERM or Ctrl-C: what was done is saved, and the same command goes on from there."""

    exit_code = 75
