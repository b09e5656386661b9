"""Transcribing loads what it uses and nothing else: import time is what a user waits for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

UNUSED = ("av", "lhotse", "accelerate", "matplotlib", "librosa", "scipy", "numba", "sympy", "pandas", "einops", "torch._dynamo")


def test_transcribing_imports_nothing_that_it_does_not_use(data: Path) -> None:
    program = (
        "import sys\nfrom asr.cli import app\n"
        f"app(['transcribe', {str(data / 'welcome.wav')!r}], standalone_mode=False)\n"
        f"print([name for name in {UNUSED!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.splitlines()[-1] == "[]"


def test_what_is_imported_is_not_searched_for_garbage(data: Path) -> None:
    program = (
        "import gc\nfrom asr.cli import app\n"
        f"app(['transcribe', {str(data / 'welcome.wav')!r}, '--language', 'en'], standalone_mode=False)\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 10 * len(gc.get_objects()))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.splitlines()[-1] == "True True"


def test_threads_wait_asleep_unless_told_otherwise() -> None:
    program = (
        "import os, sys\nimport asr.cli\n"
        "asr.cli.app = lambda: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)\nasr.cli.main()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for given, used in ({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active"):
        result = subprocess.run(
            [sys.executable, "-c", program], env=environment | given, capture_output=True, text=True, check=True, timeout=60
        )
        assert result.stdout.split() == [used, "False"]
