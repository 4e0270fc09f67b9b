"""Errors that the user can fix: one family, which only the command line turns into a line, a hint and an exit code."""


class MmsslError(Exception):
    """Something the user can fix. `message` says what, where and why; `hint` names the command that fixes it.

    Every other exception is a bug of ours and keeps its traceback.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["MmsslError"], tuple[str, str | None]]:
        """Lets errors travel from worker processes together with their hints."""
        return type(self), (self.message, self.hint)


class UsageError(MmsslError):
    """An option or argument that makes no sense: exit code 2."""

    exit_code = 2


class DataError(MmsslError):
    """A file that is missing, damaged, or not what it should be."""


class NewerError(DataError):
    """A file that a newer version of mmssl wrote: it is left alone, never taken for damaged and made again."""


class StorageError(MmsslError):
    """The disk refused: full, read-only, or no permission."""


class LeasedError(MmsslError):
    """Another process is writing the same output."""


class TrainingError(MmsslError):
    """Training cannot continue, for example because the loss is not finite."""


class Interrupted(MmsslError):
    """SIGTERM or Ctrl-C: finished work is saved, and the same command resumes from there."""

    exit_code = 75
