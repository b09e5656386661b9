"""Peak memory of transcribing in a process of its own: short and long speech, hours that are mostly silence, 10 hours.

``pytest tests/benchmarks/test_memory.py -s -o addopts=`` prints the figures; the peak has to stay where it is after ten
minutes.
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

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")

# Not getrusage: its peak is that of the parent where the parent was larger.
PEAK = """
import re
from pathlib import Path
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
"""
WHOLE = f"""{PEAK}
import sys
sys.argv = ["asr", "transcribe", *sys.argv[1:]]
from asr.cli import app
app(standalone_mode=False)
print(peak(), file=sys.stderr)
"""
# Everything but the model's own computing, which is a batch at a time.
FRONT = f"""{PEAK}
import sys
import asr
from asr.search.hypothesis import Hypothesis
from asr.transcription.transcript import TranscriptSegment
transcriber = asr.load("en", "cpu")
said = Hypothesis("a", (), (), 0.0, "stop")
transcriber.decode_segments = lambda found: [TranscriptSegment(each.start, each.end, said) for each in found]
print(len(transcriber.transcribe(sys.argv[1]).segments))
print(peak(), file=sys.stderr)
"""


def write(path: Path, data: Path, seconds: float, pause: float) -> float:
    """Sentences and pauses again and again, as long as asked for, written piece by piece; gives the seconds of speech."""
    sentences = [files.read(each) for each in sorted((data / "LibriSpeech").rglob("*.flac"))]
    silence = np.random.default_rng(0).normal(0, 3e-4, int(pause * files.SAMPLE_RATE)).astype(np.float32)
    wanted, written, speech = int(seconds * files.SAMPLE_RATE), 0, 0
    with soundfile.SoundFile(path, "w", files.SAMPLE_RATE, 1) as file:
        while written < wanted:
            for part in (np.concatenate(sentences), silence):
                file.write(part[: wanted - written])
                speech += min(len(part), wanted - written) if part is not silence else 0
                written = min(written + len(part), wanted)
    return speech / files.SAMPLE_RATE


def measured(program: str, *arguments: str) -> tuple[str, int]:
    """What a program prints and its peak in MB."""
    ended = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return ended.stdout, int(ended.stderr.split()[-1])


@pytest.mark.parametrize(("seconds", "pause"), [(10, 0), (600, 0), (3600, 240), (7200, 240)])
def test_transcribe(seconds: int, pause: int, data: Path, tmp_path: Path) -> None:
    speech = write(tmp_path / "speech.wav", data, seconds, pause)
    text, peak = measured(WHOLE, str(tmp_path / "speech.wav"), "--device", "cpu")
    print(f"\n{seconds} s of which {speech:.0f} s are speech: peak {peak} MB, {len(text.split())} words")


@pytest.mark.parametrize("hours", [1, 10])
def test_all_but_the_model(hours: int, data: Path, tmp_path: Path) -> None:
    write(tmp_path / "long.wav", data, hours * 3600, 2)
    segments, peak = measured(FRONT, str(tmp_path / "long.wav"))
    print(f"\n{hours} h in {segments.strip()} segments, without the model's computing: peak {peak} MB")
