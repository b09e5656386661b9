"""Long recordings, start-up and times of words: what is measured rather than asserted.

``pytest tests/benchmarks/test_transcription.py -s`` prints the figures; ``ASR_MODEL`` names another model than ``en``.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import asr
from asr.audio import files
from asr.audio.segmentation import SpeechSegmenter
from asr.audio.voice_activity import VoiceDetector
from asr.transcription.timestamps import Grid, ctc_times, orderly
from asr.transcription.words import spans

MODEL = os.environ.get("ASR_MODEL", "en")
RATE = 16000

MEMORY = """
import resource, sys
import numpy as np
from asr.search.hypothesis import Hypothesis
from asr.transcription.transcript import TranscriptSegment
import asr
transcriber = asr.load(sys.argv[2])
if sys.argv[3] == "front":  # everything but the model's own computing, which is a batch at a time
    said = Hypothesis("a", (), (), 0.0, "stop")
    transcriber.decode_segments = lambda found: [TranscriptSegment(each.start, each.end, said) for each in found]
result = transcriber.transcribe(sys.argv[1])
print(result.duration, len(result.segments), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def long_file(path: Path, data: Path, hours: float) -> None:
    """Speech and pauses, as long as asked for, written piece by piece."""
    parts = [files.read(data / f"{name}.wav") for name in ("welcome", "weather")]
    pause = np.random.default_rng(0).normal(0, 0.001, 2 * RATE).astype(np.float32)
    period = np.concatenate([each for part in parts for each in (part, pause)])
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(int(hours * 3600 * RATE / len(period)) + 1):
            file.write(period)


@pytest.mark.parametrize(("hours", "what"), [(0.1, "whole"), (1, "front"), (10, "front")])
def test_memory(data: Path, tmp_path: Path, hours: float, what: str) -> None:
    long_file(tmp_path / "long.wav", data, hours)
    began = time.perf_counter()
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "long.wav"), MODEL, what]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    duration, segments, megabytes = map(float, result.stdout.split())
    print(
        f"\n{what}, {duration / 3600:.2f} h in {segments:.0f} segments: peak {megabytes:.0f} MB, "
        f"{time.perf_counter() - began:.0f} s"
    )


def test_voice_activity_speed(data: Path) -> None:
    samples = np.tile(files.read(data / "welcome.wav"), 60)
    segmenter = SpeechSegmenter(VoiceDetector())
    began = time.process_time()
    for first in range(0, len(samples), 10 * RATE):
        segmenter.push(samples[first : first + 10 * RATE])
    segmenter.finish()
    spent = time.process_time() - began
    print(
        f"\nvoice activity: {len(samples) / RATE:.0f} s in {spent:.2f} s of processor time, "
        f"factor {spent * RATE / len(samples):.5f}"
    )


def test_file_against_its_pieces(corpora: Path, tmp_path: Path) -> None:
    transcriber = asr.load(MODEL)
    chapter = sorted((corpora / "LibriSpeech" / "dev-extra" / "8226").rglob("*.opus"))[:16]
    pieces = [files.read(path) for path in chapter]
    soundfile.write(tmp_path / "a.wav", np.concatenate(pieces), RATE)
    spent: dict[str, list[float]] = {"file": [], "pieces in one call": []}
    for _ in range(3):
        began = time.process_time()
        transcriber.transcribe(tmp_path / "a.wav")
        spent["file"].append(time.process_time() - began)
        began = time.process_time()
        list(transcriber.transcribe_all(chapter))
        spent["pieces in one call"].append(time.process_time() - began)
    whole, parts = (min(times) for times in spent.values())
    seconds = sum(map(len, pieces)) / RATE
    print(
        f"\n{seconds:.0f} s: file {whole:.1f} s, its {len(pieces)} pieces {parts:.1f} s of processor time, "
        f"ratio {whole / parts:.2f}"
    )


def test_cold_start(data: Path) -> None:
    imports, whole = [], []
    for _ in range(3):
        for times, arguments in (
            (imports, ["-c", "import asr.transcription.transcriber"]),
            (whole, ["-m", "asr", "transcribe", str(data / "welcome.wav")]),
        ):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            times.append((time.perf_counter() - began, processor))
    for name, times in (("imports", imports), ("asr transcribe, 4.6 s of speech", whole)):
        clock, processor = min(times)
        print(f"\n{name}: {clock:.2f} s by the clock, {processor:.2f} s of processor time")


def test_word_times_at_known_joins(corpora: Path) -> None:
    """Words of utterances whose silence was cut off: the first begins and the last ends where the sound does."""
    transcriber = asr.load(MODEL)
    checkpoint = transcriber.checkpoint
    if checkpoint.model.ctc is None:
        pytest.skip(f"{MODEL} has no CTC head")
    transcripts = dict(
        line.split(maxsplit=1)
        for path in sorted((corpora / "LibriSpeech" / "dev-extra").rglob("*.trans.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
    )
    differences = []
    for path in sorted((corpora / "LibriSpeech" / "dev-extra").rglob("*.opus"))[::12]:
        samples = files.read(path)
        power = np.convolve(samples**2, np.ones(320) / 320, "same")
        loud = np.flatnonzero(power > 1e-3 * power.max())
        start, end = loud[0] / RATE, loud[-1] / RATE
        text = transcripts[path.stem].lower()
        words = spans(text)
        with torch.inference_mode():
            encoded, _ = transcriber._encode([samples])
            grid = Grid.of(checkpoint.model, len(samples) / RATE, int(encoded.lengths[0]))
            scores = checkpoint.model.ctc_log_probabilities(encoded)[0, : grid.positions]
        times = ctc_times(scores, checkpoint.ctc_tokenizer, text, words, grid)
        assert times is not None
        found = orderly(times, len(samples) / RATE)
        differences += [abs(found[0][0] - start), abs(found[-1][1] - end)]
    print(
        f"\n{len(differences)} known word edges: median {1000 * np.median(differences):.0f} ms, "
        f"90th percentile {1000 * np.quantile(differences, 0.9):.0f} ms"
    )
