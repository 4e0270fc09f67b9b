"""Limits of containers and batch jobs, from the kernel's files as given text."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.devices import choose_device
from pipeline.runtime.machine import cores, cpu_quota, free_memory, memory_limit, share_threads, threads_asked

UNLIMITED = "9223372036854771712"  # as version 1 writes it
GB = 1 << 30


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),  # a container with a namespace of its own
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        # the host's path, which the container does not see
        ({"proc/self/cgroup": "0::/docker/ab\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        # a batch job: the limit is that of the job, above the step
        (
            {
                "proc/self/cgroup": "0::/slurm/job_1/step_0\n",
                "sys/fs/cgroup/slurm/job_1/step_0/cpu.max": "max 100000\n",
                "sys/fs/cgroup/slurm/job_1/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/slurm/cpu.max": "800000 100000\n",
            },
            3,
        ),
        # version 1, and both at once
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": "4:cpuacct,cpu:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_the_quota_of_a_container(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(written(tmp_path, files)) == quota


def test_cores_are_those_of_the_quota_and_never_more_than_we_are_bound_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert cores(tmp_path) == 64
    for quota, expected in (("10000", 1), ("150000", 2), ("400000", 4), ("9000000", 64), ("max", 64)):
        written(tmp_path, {"sys/fs/cgroup/cpu.max": f"{quota} 100000\n"})
        assert cores(tmp_path) == expected


def test_memory_is_that_of_the_tightest_limit(tmp_path: Path) -> None:
    written(tmp_path, {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable:   {64 * GB // 1024} kB\n"})
    assert (memory_limit(tmp_path), free_memory(tmp_path)) == (None, 64 * GB)
    written(
        tmp_path,
        {
            "proc/self/cgroup": "9:memory:/job/step\n",
            "sys/fs/cgroup/memory/job/step/memory.limit_in_bytes": UNLIMITED,
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(8 * GB),
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(5 * GB),
            "sys/fs/cgroup/memory/job/memory.stat": f"cache 7\ntotal_inactive_file {GB}\n",
        },
    )
    assert (memory_limit(tmp_path), free_memory(tmp_path)) == (8 * GB, 4 * GB)
    written(tmp_path, {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/memory.max": str(2 * GB)})
    written(tmp_path, {"sys/fs/cgroup/memory.current": str(3 * GB)})
    assert free_memory(tmp_path) == 0


@given(
    group=st.text(max_size=40),
    limits=st.dictionaries(
        st.sampled_from(["cpu.max", "memory.max", "memory.current", "memory.stat", "cpu/cpu.cfs_quota_us"]),
        st.one_of(st.text(max_size=30), st.integers().map(str), st.tuples(st.integers(), st.integers()).map(str)),
    ),
)
def test_whatever_the_files_hold_there_is_an_answer(
    tmp_path_factory: pytest.TempPathFactory, group: str, limits: dict[str, str]
) -> None:
    files = {f"sys/fs/cgroup/{name}": text.encode(errors="replace").decode() for name, text in limits.items()}
    group = group.encode(errors="replace").decode()
    root = written(tmp_path_factory.mktemp("root"), files | {"proc/self/cgroup": f"4:cpu:{group}\n0::{group}\n"})
    assert 1 <= cores(root) <= (os.cpu_count() or 1)
    assert free_memory(root) >= 0
    limit = memory_limit(root)
    assert limit is None or limit > 0


@pytest.mark.parametrize(("value", "threads"), [
    ("5", 5), (" 08 ", 8), ("4,2", 4), ("", None), ("0", None), ("-3", None), ("all", None), ("0,4", None),
    ("\u0663", None), ("9" * 5000, None),
])  # fmt: skip
def test_only_a_number_from_1_up_says_how_many_threads(
    value: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads_asked() == threads


@pytest.mark.parametrize("unsaid", [None, "0"])
def test_threads_follow_a_quota_unless_somebody_said_how_many(
    unsaid: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    asked: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    for module in ("devices", "machine"):
        monkeypatch.setattr(f"pipeline.runtime.{module}.cores", lambda: 3)
        monkeypatch.setattr(f"pipeline.runtime.{module}.cpu_quota", lambda: 2.5)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    share_threads()
    choose_device("cpu")
    assert (asked, os.environ["OMP_NUM_THREADS"]) == ([], "5")
    monkeypatch.delenv("OMP_NUM_THREADS")
    if unsaid is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", unsaid)
    choose_device("cpu")
    assert asked == [3]
    share_threads()
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_without_a_quota_the_number_of_threads_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.runtime.machine.cpu_quota", lambda: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    share_threads()
    assert "OMP_NUM_THREADS" not in os.environ
