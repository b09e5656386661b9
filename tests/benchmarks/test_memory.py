"""Peak memory of ``asr transcribe`` on 10 s and on 10 min of speech, in a process of its own.

``pytest tests/benchmarks/test_memory.py -s`` prints both figures.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio import files
from tests.conftest import ROOT

PEAK = """
import re, sys
from pathlib import Path
sys.argv = ["asr", "transcribe", *sys.argv[1:]]
from asr.cli import app
app(standalone_mode=False)
# Not getrusage: its peak is that of the parent where the parent was larger.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024, file=sys.stderr)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
@pytest.mark.parametrize("seconds", [10, 600])
def test_transcribe(seconds: int, data: Path, tmp_path: Path) -> None:
    speech = np.concatenate([files.read(path) for path in sorted((data / "LibriSpeech").rglob("*.flac"))])
    soundfile.write(tmp_path / "speech.flac", np.resize(speech, seconds * files.SAMPLE_RATE), files.SAMPLE_RATE)
    arguments = [sys.executable, "-c", PEAK, str(tmp_path / "speech.flac"), "--device", "cpu"]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    print(f"\n{seconds} s of speech: peak {ended.stderr.split()[-1]} MB, {len(ended.stdout.split())} words")
