"""Asks the workers of a Dask cluster whether they can do our work, before they get any of it.

Dask runs what it is sent, and where it cannot, a task waits, is tried again elsewhere, or fails with another's
traceback. What goes wrong in practice: a worker's environment lacks mmssl, has another version of it or another Python,
or does not see the workspace.
"""

import asyncio
import logging
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import DataError
from pipeline.runtime.processes import host
from pipeline.runtime.versions import versions

_log = logging.getLogger(__name__)
_PYTHON = platform.python_version()
CHECK_SECONDS = 10.0  # for all workers together; a busy one answers too, between its tasks
_CHECKOUT = "checkout"  # an mmssl that is not installed, whose version nobody knows


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker says of itself.

    Attributes:
        host: its name, for people.
        mmssl: the version of mmssl.
        unseen: those of our paths that do not exist there.
    """

    host: str
    mmssl: str
    unseen: tuple[str, ...]


Answer = WorkerFacts | BaseException | str  # facts; why there are none; or a Python that is not ours


def check_workers(client: Any, addresses: Collection[str], paths: Sequence[Path] = (), scheduler: str = "") -> None:
    """Checks that these workers have our Python and our mmssl, and see our paths.

    One that does not answer in time is only warned of: if it is lost, Dask gives its tasks to another.

    Args:
        client: Dask's.
        addresses: of the workers.
        paths: files and folders that every worker must see.

    Raises:
        DataError: a worker cannot do our work; says which one, what it lacks, and what to do.
    """
    answers = ask_workers(client, addresses, paths)
    wrong = {address: problem for address, answer in answers.items() if (problem := problem_of(answer, scheduler))}
    for address, answer in answers.items():
        if isinstance(answer, TimeoutError):
            _log.warning("the Dask worker %s has not answered for %.0f s", address, CHECK_SECONDS)
    if wrong:
        address, (reason, hint) = next(iter(wrong.items()))
        more = f" (and {len(wrong) - 1} more of {len(addresses)} workers cannot work either)" if len(wrong) > 1 else ""
        raise DataError(f"the Dask worker {address} {reason}{more}", hint)


def ask_workers(client: Any, addresses: Collection[str], paths: Sequence[Path] = ()) -> Mapping[str, Answer]:
    """Worker's address -> its facts; its Python version if that is not ours; or why it could not say.

    The versions of Python are compared first, with a message of Dask's own: code of ours cannot be sent to another one.
    """
    asked = sorted(addresses)

    async def ask(address: str, *paths: str) -> Any:
        reply = await asyncio.wait_for(
            client._run(worker_facts, *paths, workers=[address], on_error="return"), CHECK_SECONDS
        )
        return reply.get(address, OSError("it is gone"))

    async def ask_all() -> dict[str, Any]:
        try:
            known = await asyncio.wait_for(client._get_versions(), CHECK_SECONDS)
            pythons = {address: facts["host"]["python"] for address, facts in known["workers"].items()}
        except (OSError, TimeoutError, KeyError, TypeError):  # one that does not answer: the others still may
            pythons = {}
        others = {a: pythons[a] for a in asked if a in pythons and _minor(pythons[a]) != _minor(_PYTHON)}
        same = [address for address in asked if address not in others]
        replies = await asyncio.gather(
            *(ask(address, *map(str, paths)) for address in same), return_exceptions=True
        )  # fmt: skip
        return others | dict(zip(same, replies, strict=True))

    answers: dict[str, Any] = client.sync(ask_all)
    return answers


def worker_facts(*paths: str) -> WorkerFacts:
    """What this process, a Dask worker, can see of these paths."""
    unseen = tuple(path for path in paths if not os.path.exists(path))
    return WorkerFacts(host(), versions()["mmssl"], unseen)


def problem_of(answer: Answer, scheduler: str = "") -> tuple[str, str] | None:
    """What keeps a worker that gave this answer from our work, and what to do about it; None if nothing does."""
    version = versions()["mmssl"]
    again = f"then start it again with `dask worker {scheduler or 'ADDRESS'}`"
    if isinstance(answer, str):
        python = _minor(_PYTHON)
        return (
            f"runs Python {_minor(answer)}, and this command {python}",
            f"give it an environment of {python}; {again}",
        )
    if isinstance(answer, WorkerFacts):
        if answer.mmssl != version and _CHECKOUT not in (answer.mmssl, version):
            problem = f"on {answer.host} has mmssl {answer.mmssl}, and this command {version}"
            return problem, f"install the same version in both environments; {again}"
        if answer.unseen:
            return (
                f"on {answer.host} cannot see {answer.unseen[0]}",
                "the workspace must have the same path on every worker: mount it there, or give --root the shared path",
            )
        return None
    if isinstance(answer, OSError | TimeoutError):  # it may be lost, which Dask finds out; asyncio's is one of them
        return None
    return (
        f"cannot import mmssl: {_reason(answer)}",
        f"install mmssl {version} in the worker's environment (pip install), and see that its PYTHONPATH names no "
        f"other package called pipeline or trainer; {again}",
    )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _reason(error: BaseException) -> str:
    """The reason in one line: Dask wraps an error that it could not send in the text of another."""
    return " ".join(str(error).split())[:200] or type(error).__name__
