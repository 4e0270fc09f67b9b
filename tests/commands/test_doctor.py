"""The page about a machine: everything on it, what is wrong, and what mends it."""

import errno
import tempfile
from pathlib import Path

import pytest

from commands import doctor_checks
from pipeline.runtime import machine
from pipeline.runtime.versions import versions
from pipeline.runtime.workers import WorkerFacts
from tests.support.commands import Command, refused

EXPECTED = {
    "mmssl", "Python", "torch", "libraries", "device", "cores", "threads", "memory", "workspace", "temporary", "cache",
    "fonts", "data sets", "MMSSL_DATA",
}  # fmt: skip


def test_a_sound_machine(mmssl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMSSL_DATA", raising=False)
    monkeypatch.setattr(doctor_checks, "_too_old", lambda: ())
    monkeypatch.setattr(doctor_checks, "_installation", lambda: ())
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    monkeypatch.setattr(machine, "free_memory", lambda: 8 << 30)
    result = mmssl("doctor", "--json")
    assert result.code == 0, result.err
    assert {fact["name"] for fact in result.json["facts"]} >= EXPECTED
    assert result.json["wrong"] == 0
    text = mmssl("doctor")
    assert text.out.endswith("nothing is wrong\n")
    assert len(text.out.splitlines()) < 25  # one screen


def test_what_is_wrong_comes_with_what_mends_it(
    mmssl: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMSSL_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("MMSSL_ROOT", str(tmp_path / "file"))
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(machine, "free_memory", lambda: 1000)
    result = mmssl("doctor", "--json")
    assert result.code == 1
    wrong = {fact["name"]: fact for fact in result.json["facts"] if fact["problem"]}
    assert wrong.keys() >= {"MMSSL_DATA", "workspace", "threads", "memory"}
    assert all(fact["fix"] for fact in wrong.values())
    assert wrong["threads"]["fix"] == "export OMP_NUM_THREADS=2"
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    assert "no number from 1 up, but '0'" in mmssl("doctor").out


@pytest.mark.parametrize("name", ["device", "fonts", "data"])
def test_a_check_that_fails_is_a_line_and_hides_no_other(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> object:
        raise ImportError("libcudnn.so.9:\ncannot open shared object file")

    monkeypatch.setattr(doctor_checks, name, broken)
    found = {fact.name: fact for fact in doctor_checks.facts(tmp_path)}
    assert found[name].problem == "ImportError: libcudnn.so.9: cannot open shared object file"
    assert {"mmssl", "workspace", "memory"} <= found.keys()


def test_folders_of_a_user_without_home_or_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setattr(Path, "home", homeless)
    for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    found = {fact.name: fact for fact in doctor_checks.folders(tmp_path)}
    assert found["temporary"].fix == "export TMPDIR=FOLDER"
    assert "export MPLCONFIGDIR" in found["cache"].value


def test_a_command_without_any_temporary_folder_is_one_sentence(
    mmssl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(_: object) -> object:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(doctor_checks, "facts", nowhere)
    refused(mmssl("doctor"), 1, "no temporary folder can be written to", "export TMPDIR")


def test_a_scheduler_that_is_not_there_is_a_problem(mmssl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.runtime.cluster.CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(doctor_checks, "facts", lambda _: iter(()))
    result = mmssl("doctor", "--scheduler", "tcp://127.0.0.1:9")
    assert result.code == 1
    assert "wrong: scheduler: cannot reach a Dask scheduler at tcp://127.0.0.1:9" in result.out


def test_workers_are_lines_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = {"tcp://a:1": WorkerFacts("a", versions()["mmssl"], ()), "tcp://b:2": TimeoutError()}
    monkeypatch.setattr("pipeline.runtime.cluster.ask_cluster", lambda *_: answers)
    scheduler, sound, silent = doctor_checks.workers("tcp://s:8786", tmp_path)
    assert (scheduler.problem, sound.problem) == (None, None)
    assert silent.problem == "does not answer"
