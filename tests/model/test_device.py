"""Which devices multiply in bfloat16, by what the system says of its processor, and what auto makes of it."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from asr.cli import app
from asr.exceptions import ConfigurationError
from asr.model import device
from asr.model.device import choose_device, has_bfloat16_units, slow_bfloat16
from asr.model.precision import choose, choose_for_training


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/cpuinfo")
def test_this_processor_is_as_linux_describes_it() -> None:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()[2:]}
    names = {"bf16"} if platform.machine() == "aarch64" else {"avx512_bf16", "amx_bf16"}
    assert has_bfloat16_units("cpu") == bool(flags & names)


@pytest.mark.parametrize(
    ("capabilities", "units"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_vnni": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True}, True),
        ({"amx_tile": True, "amx_bf16": True}, True),
        ({"neon": True, "bf16": False}, False),
        ({"neon": True, "bf16": True}, True),
    ],
)
def test_auto_follows_the_units(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], units: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_for_training("auto", "cpu") == ("bfloat16" if units else "float32")
    assert choose_for_training("bfloat16", "cpu") == "bfloat16"
    assert choose_for_training("float32", "cpu") == "float32"
    assert (slow_bfloat16("bfloat16", "cpu") is None) == units
    assert slow_bfloat16("auto", "cpu") is None
    # Transcription has eight bits on a processor, whatever it has besides.
    assert choose("auto", "cpu") in ("int8", "float32")
    # Without oneDNN nothing uses the units.
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert choose_for_training("auto", "cpu") == "float32"


@pytest.mark.parametrize("units", [True, False])
def test_auto_of_a_gpu(monkeypatch: pytest.MonkeyPatch, units: bool) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return units or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert choose_for_training("auto", "cuda") == choose("auto", "cuda") == ("bfloat16" if units else "float32")
    assert (slow_bfloat16("bfloat16", "cuda") is None) == units


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    for name in ("cuda", "tpu"):
        with pytest.raises(ConfigurationError, match=f"'{name}'"):
            choose_device(name)


@pytest.mark.parametrize("units", [True, False])
def test_the_command_says_that_bfloat16_is_slow_and_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, data: Path, units: bool
) -> None:
    seen = []

    def load(*arguments: object) -> None:
        seen.append(arguments)
        raise ConfigurationError("enough was seen.")

    monkeypatch.setattr(device, "has_bfloat16_units", lambda name: units)
    monkeypatch.setattr("asr.transcription.transcriber.load", load)
    arguments = ["transcribe", str(data / "welcome.wav"), "--precision", "bfloat16", "--device", "cpu", "--language", "en"]
    result = CliRunner().invoke(app, arguments)
    assert "bfloat16" in seen[0]
    said = "asr: --precision bfloat16: this processor has no units for bfloat16"
    assert result.stderr.count(said) == (not units)
