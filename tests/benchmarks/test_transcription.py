"""Long recordings and start-up: what is measured rather than asserted.

``pytest tests/benchmarks/test_transcription.py -s`` prints the figures; ``ASR_MODEL`` names another model than ``en``.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

import asr
from asr.audio import files
from asr.audio.segmentation import SpeechSegmenter
from asr.audio.voice_activity import VoiceDetector
from asr.transcription.transcript import Transcript

MODEL = os.environ.get("ASR_MODEL", "en")
RATE = 16000

PIECES, PAUSES = 40, (0.4, 1.2)  # seconds; the shorter one stays in a segment
ROUNDS = 2


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
    """One file of utterances and pauses, beside the same utterances in one call: as files, and as bare waveforms."""
    transcriber = asr.load(MODEL, "cpu")
    paths = sorted((corpora / "LibriSpeech" / "dev-extra").rglob("*.opus"))[::12][:PIECES]
    pieces = [files.read(path) for path in paths]
    pauses = [np.zeros(int(PAUSES[number % 2] * RATE), dtype=np.float32) for number in range(len(pieces))]
    joined = [part for piece, pause in zip(pieces, pauses, strict=True) for part in (piece, pause)]
    soundfile.write(tmp_path / "joined.wav", np.concatenate(joined), RATE)

    def batches() -> list[str]:
        ordered = sorted(pieces, key=len)
        size = transcriber.batch_size
        return [each.text for first in range(0, len(ordered), size) for each in transcriber.decode(ordered[first : first + size])]

    def texts() -> list[str]:
        found = list(transcriber.transcribe_all(paths))
        return [each.text for each in found if isinstance(each, Transcript)]

    contenders: dict[str, Callable[[], list[str]]] = {
        "one file": lambda: [segment.text for segment in transcriber.transcribe(tmp_path / "joined.wav").segments],
        "its pieces as files, one call": texts,
        "its pieces as waveforms, batches only": batches,
    }
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    results: dict[str, list[str]] = {}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            began = time.process_time()
            results[name] = run()
            spent[name].append(time.process_time() - began)
    seconds = sum(map(len, pieces)) / RATE
    print(f"\n{len(pieces)} utterances, {seconds:.0f} s, batches of {transcriber.batch_size}, {transcriber.checkpoint.precision}")
    whole = min(spent["one file"])
    for name, times in spent.items():
        words = sum(len(text.split()) for text in results[name])
        print(
            f"{name}: {min(times):.1f} s of processor time, the file takes {whole / min(times):.2f} of it; "
            f"{len(results[name])} texts, {words} words"
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
