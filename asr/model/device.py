"""Where to compute, and whether bfloat16 pays there."""

from __future__ import annotations

import torch

from asr.exceptions import ConfigurationError

# Instructions that multiply in bfloat16, as torch names them: of x86, and of ARM.
_BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16", "bf16")


def choose_device(device: str) -> str:
    """``auto`` is the GPU where there is one.

    Raises:
        ConfigurationError: CUDA is asked for and not there, or the name is unknown.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigurationError(f"device '{device}' is unknown; give auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device 'cuda' is not available on this machine; give auto or cpu.")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def has_bfloat16_units(device: str) -> bool:
    """Whether a device multiplies in bfloat16 itself: a GPU of compute capability 8, a processor with AVX512-BF16, AMX or
    ARM's BF16 through oneDNN.

    Any other computes it all the same and is slower than in float32: by a factor of 70 to 90 on a processor with
    AVX2 alone (products of 512 and of 1024 rows and columns).
    """
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        return bool(onednn) and any(capabilities.get(name, False) for name in _BFLOAT16_UNITS)
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def slow_bfloat16(precision: str, device: str) -> str | None:
    """What to tell somebody who asks for bfloat16 where it does not pay, in one sentence; None: it is not so.

    Args:
        precision: as it was asked for.
        device: ``cpu`` or ``cuda``.
    """
    if precision != "bfloat16" or has_bfloat16_units(device):
        return None
    what = "this processor" if device == "cpu" else "this GPU"
    return f"{what} has no units for bfloat16 and computes it far slower than float32; precision auto chooses what is fast here."
