"""One thread that computes, and a queue before it: requests that arrive while it computes are answered together."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)


@dataclass
class _Waiting(Generic[Job]):
    job: Job
    rows: int
    future: "Future[Any]" = field(default_factory=Future)


class Batcher(Generic[Job, Answer]):
    """Answers jobs in the order in which they came, as many together as wait at the time, up to a number of rows.

    It never waits for more jobs: a job that comes alone is computed at once, and others gather meanwhile.

    Args:
        answer: answers several jobs, each with an answer or with the exception that is raised where it was given; it
            runs on this object's thread alone.
        most_rows: in one call of `answer`, unless a single job has more.
    """

    def __init__(self, answer: Callable[[Sequence[Job]], Sequence[Answer | Exception]], most_rows: int) -> None:
        self._answer, self._most_rows = answer, most_rows
        self._queue: queue.SimpleQueue[_Waiting[Job] | _Waiting[Callable[[], Any]] | None] = queue.SimpleQueue()
        self._held: Any = None  # taken from the queue, but not fitting into the batch before it
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    async def submit(self, job: Job, rows: int) -> Answer:
        """The answer to a job."""
        waiting = _Waiting(job, rows)
        self._queue.put(waiting)
        answer: Answer = await asyncio.wrap_future(waiting.future)
        return answer

    async def call(self, work: Callable[[], Any]) -> Any:
        """What a function returns that is run between jobs, on the same thread."""
        waiting = _Waiting(work, 0)
        self._queue.put(waiting)
        return await asyncio.wrap_future(waiting.future)

    def close(self) -> None:
        """Ends the thread once everything that was given is answered."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._next()) is not None:
            if first.rows == 0:
                self._alone(first)
            else:
                self._together(self._gather(first))

    def _next(self) -> Any:
        held, self._held = self._held, None
        return held if held is not None else self._queue.get()

    def _gather(self, first: Any) -> list[Any]:
        batch, rows = [first], first.rows
        while rows < self._most_rows:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None or following.rows == 0 or rows + following.rows > self._most_rows:
                if following is None:
                    self._queue.put(None)
                self._held = following
                break
            batch.append(following)
            rows += following.rows
        return batch

    def _alone(self, waiting: Any) -> None:
        if waiting.future.set_running_or_notify_cancel():
            try:
                waiting.future.set_result(waiting.job())
            except Exception as error:  # belongs to whoever waits for it
                waiting.future.set_exception(error)

    def _together(self, batch: list[Any]) -> None:
        wanted = [waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            answers = self._answer([waiting.job for waiting in wanted])
        except Exception as error:
            _log.exception("answering failed")
            answers = [error] * len(wanted)
        for waiting, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, Exception):
                waiting.future.set_exception(answer)
            else:
                waiting.future.set_result(answer)
