"""The device that `--device` names, with and without a GPU."""

import pytest
import torch

from pipeline.runtime.devices import choose_device
from pipeline.runtime.errors import UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("available", [False, True])
def test_a_device_by_its_name(available: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device("cpu") == CPU
    assert choose_device("auto") == (CUDA if available else CPU)
    if available:
        assert choose_device("cuda") == CUDA
    else:
        with pytest.raises(UsageError, match="no CUDA device here"):
            choose_device("cuda")


def test_a_device_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="no device 'tpu'") as caught:
        choose_device("tpu")
    assert "auto, cpu, cuda" in str(caught.value.hint)
