"""The precision of matrix products: what the settings ask for, on the device at hand.

`auto` is TF32 on CUDA. On a CPU it is bfloat16 where the processor multiplies it (AVX512-BF16, AMX) and every hidden
layer has 512 units or more, which takes 0.6 of float32's time; with 128 units rounding the activations costs more than
the products save. Everywhere else it is float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from trainer.settings.run_settings import Settings
from trainer.settings.widths import is_wide

_ABILITIES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # of torch.cpu; older versions lack some


def chosen_precision(settings: Settings, device: torch.device) -> Literal["fp32", "tf32", "bf16"]:
    """The precision that a run computes in."""
    asked = settings.precision
    if device.type == "cuda":
        return "tf32" if asked == "auto" else asked
    if asked == "auto":
        return "bf16" if multiplies_bfloat16() and is_wide(settings) else "fp32"
    return "fp32" if asked == "tf32" else asked


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16."""
    checks = (getattr(torch.cpu, name, None) for name in _ABILITIES)
    return any(check() for check in checks if check is not None)


def autocast(settings: Settings, device: torch.device) -> torch.autocast:
    """A context in which the products of training are as precise as the settings ask for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=chosen_precision(settings, device) == "bf16")


@contextmanager
def precision(settings: Settings, device: torch.device) -> Iterator[None]:
    """A context with the precision of float32 matrix products that the settings ask for; TF32 exists only on CUDA."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if chosen_precision(settings, device) == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
