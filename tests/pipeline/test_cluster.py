import os

from pipeline.cluster import run_tasks
from pipeline.interrupts import stop_requests


def test_local_processes_leave_our_own_environment_alone(monkeypatch):
    """Dask sets OMP_NUM_THREADS=1 for its workers in their parent: what ran after it had one thread, and other bits."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with stop_requests() as stop:
        found = dict(run_tasks(os.getenv, {"a": ("OMP_NUM_THREADS",), "b": ("OMP_NUM_THREADS",)}, stop, workers=2))
    assert found == {"a": "1", "b": "1"}
    assert dict(os.environ) == before
