"""Workers of a cluster that cannot do our work: one sentence each, before they get any."""

import asyncio
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime import workers
from pipeline.runtime.errors import DataError
from pipeline.runtime.versions import versions
from pipeline.runtime.workers import WorkerFacts, check_workers, worker_facts

OURS, PYTHON = versions()["mmssl"], platform.python_version()
SOUND = WorkerFacts("node7", OURS, ())


class Cluster:
    """A client of a cluster whose workers answer as they are told to; one that gets None never does."""

    def __init__(self, answers: dict[str, Any], pythons: dict[str, str] | None = None) -> None:
        self.answers, self.pythons = answers, pythons or {}

    def sync(self, function: Callable[[], Any]) -> Any:
        return asyncio.run(function())

    async def _get_versions(self) -> dict[str, Any]:
        return {"workers": {a: {"host": {"python": self.pythons.get(a, f"{PYTHON}.final.0")}} for a in self.answers}}

    async def _run(self, function: Any, *_: str, workers: list[str], on_error: str) -> dict[str, Any]:
        assert (function, on_error) == (worker_facts, "return")
        (address,) = workers
        if self.answers[address] is None:
            await asyncio.sleep(60)
        return {address: self.answers[address]}


@pytest.mark.parametrize(
    ("answer", "python", "words"),
    [
        (ModuleNotFoundError("No module named 'pipeline.runtime'"), PYTHON, ("cannot import mmssl", "pip install")),
        (Exception("ImportError('libGL')"), PYTHON, ("cannot import mmssl", "libGL")),
        (AttributeError("no attribute 'worker_facts'"), PYTHON, ("cannot import mmssl", "worker_facts")),
        (SOUND, "3.9.1.final.0", ("runs Python 3.9, and this command", "dask worker tcp://s:8786")),
        (WorkerFacts("node7", "99.0", ()), PYTHON, ("has mmssl 99.0", "node7", "same version")),
        (WorkerFacts("node7", OURS, ("/data/ws",)), PYTHON, ("node7 cannot see /data/ws", "mount it")),
    ],
)
def test_one_sentence_says_which_worker_lacks_what(answer: Any, python: str, words: tuple[str, ...]) -> None:
    cluster = Cluster({"tcp://a:1": SOUND, "tcp://b:2": answer}, {"tcp://b:2": python})
    with pytest.raises(DataError) as caught:
        check_workers(cluster, cluster.answers, [Path("/data/ws")], "tcp://s:8786")
    told = f"{caught.value.message} {caught.value.hint}"
    assert "tcp://b:2" in told
    assert "tcp://a:1" not in told
    assert "\n" not in told
    for word in words:
        assert word in told


def test_several_are_counted() -> None:
    cluster = Cluster({f"tcp://{k}:1": ImportError("no") for k in range(3)})
    with pytest.raises(DataError, match=r"and 2 more of 3 workers"):
        check_workers(cluster, cluster.answers)


def test_a_silent_worker_is_only_warned_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(workers, "CHECK_SECONDS", 0.1)
    cluster = Cluster({"tcp://a:1": SOUND, "tcp://b:2": None, "tcp://c:3": OSError("gone")})
    check_workers(cluster, cluster.answers)
    assert [record.getMessage().split(" has ")[0] for record in caplog.records] == ["the Dask worker tcp://b:2"]


def test_an_mmssl_that_is_not_installed_is_not_compared() -> None:
    check_workers(Cluster({"tcp://a:1": WorkerFacts("a", "checkout", ())}), ["tcp://a:1"])


def test_a_worker_says_what_it_cannot_see(tmp_path: Path) -> None:
    facts = worker_facts(str(tmp_path), str(tmp_path / "absent"))
    assert (facts.mmssl, facts.unseen) == (OURS, (str(tmp_path / "absent"),))
