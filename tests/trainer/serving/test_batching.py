"""The queue before the model: what waits is answered together, each with its own answer or error."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

pytest.importorskip("starlette", reason="the extra `serve` is not installed")

from trainer.serving.batching import Batcher


def test_jobs_that_wait_are_answered_together_in_order_and_errors_belong_to_one() -> None:
    batches: list[list[int]] = []
    begin = threading.Event()

    def answer(jobs: Sequence[int]) -> list[int | Exception]:
        begin.wait(5)
        batches.append(list(jobs))
        return [ValueError("four") if job == 4 else 10 * job for job in jobs]

    async def main() -> list[object]:
        batcher: Batcher[int, int] = Batcher(answer, most_rows=3)
        tasks = [asyncio.ensure_future(batcher.submit(job, 1)) for job in range(6)]
        alone = asyncio.ensure_future(batcher.call(lambda: "between"))
        await asyncio.sleep(0.05)
        begin.set()
        found = await asyncio.gather(*tasks, alone, return_exceptions=True)
        await asyncio.to_thread(batcher.close)
        return list(found)

    found = asyncio.run(main())
    assert found[:4] == [0, 10, 20, 30]
    assert isinstance(found[4], ValueError)
    assert found[5:] == [50, "between"]
    assert sorted(job for batch in batches for job in batch) == list(range(6))
    assert max(map(len, batches)) <= 3
    assert len(batches) < 6


def test_what_fails_as_a_whole_fails_for_each_and_the_thread_lives_on() -> None:
    def answer(jobs: Sequence[int]) -> list[int | Exception]:
        if jobs[0] < 0:
            raise RuntimeError("broken")
        return list(jobs)

    async def main() -> None:
        batcher: Batcher[int, int] = Batcher(answer, most_rows=8)
        with pytest.raises(RuntimeError, match="broken"):
            await batcher.submit(-1, 1)
        assert await batcher.submit(7, 100) == 7
        await asyncio.to_thread(batcher.close)

    asyncio.run(main())
