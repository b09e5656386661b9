"""Error rate and speed beside openai-whisper and faster-whisper: one core, the same utterances, one run, in turns.

``pytest tests/benchmarks/test_peers.py -s -o addopts= --timeout 3600 --utterances 100 --model en
--openai-whisper tiny.en.pt --faster-whisper FOLDER`` prints a table; a peer whose weights are not given is left out. Peers are
greedy; so is the model with ``--beam-size 1``.
Speed is processor time over the audio's length: other work on the machine counts less than on the clock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import asr
from asr.audio import files
from asr.audio.augmentation import Samples
from asr.scoring.errors import count
from asr.search.options import DecodingOptions

Recognise = Callable[[list[Samples]], list[str]]
BATCH = 16


def ours(name: str, batch: int, beam_size: int | None) -> Recognise:
    model = asr.load(name, "cpu", DecodingOptions(beam_size=beam_size))

    def run(sounds: list[Samples]) -> list[str]:
        texts: list[str] = []
        for first in range(0, len(sounds), batch):
            texts += [each.text for each in model.decode(sounds[first : first + batch])]
        return texts

    return run


def openai_whisper(path: str) -> Recognise:
    whisper = pytest.importorskip("whisper")
    model = whisper.load_model(path, device="cpu")
    options = {"language": "en", "temperature": 0.0, "without_timestamps": True, "fp16": False}
    return lambda sounds: [model.transcribe(each, condition_on_previous_text=False, **options)["text"] for each in sounds]


def faster_whisper(path: str) -> Recognise:
    package = pytest.importorskip("faster_whisper")
    model = package.WhisperModel(path, device="cpu", compute_type="int8", cpu_threads=1, num_workers=1)

    def run(sounds: list[Samples]) -> list[str]:
        options = {"language": "en", "beam_size": 1, "temperature": 0.0, "without_timestamps": True}
        found = (model.transcribe(each, condition_on_previous_text=False, **options)[0] for each in sounds)
        return ["".join(segment.text for segment in segments) for segments in found]

    return run


def test_peers(corpora: Path, pytestconfig: pytest.Config) -> None:
    """Prints the table; asserts only that every system heard the same audio to its end."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    lines = (corpora / "manifest.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines if line.startswith("LibriSpeech/dev-extra/")]
    wanted = np.linspace(0, len(rows) - 1, pytestconfig.getoption("--utterances")).round().astype(int)
    chosen = sorted((rows[index] for index in wanted), key=lambda row: float(row[1]))
    sounds = [files.read(corpora / path) for path, *_ in chosen]
    seconds = sum(len(each) for each in sounds) / files.SAMPLE_RATE
    references = {path: text for path, _, _, text in chosen}

    name, beam_size = pytestconfig.getoption("--model"), pytestconfig.getoption("--beam-size")
    systems: list[tuple[str, Callable[[], Recognise]]] = [
        (f"{Path(name).name}, batch 1", lambda: ours(name, 1, beam_size)),
        (f"{Path(name).name}, batch {BATCH}", lambda: ours(name, BATCH, beam_size)),
    ]
    if path := pytestconfig.getoption("--openai-whisper"):
        systems.append((f"openai-whisper {Path(path).stem}, float32", lambda: openai_whisper(path)))
    if folder := pytestconfig.getoption("--faster-whisper"):
        systems.append((f"faster-whisper {Path(folder).name}, int8", lambda: faster_whisper(folder)))
    table = [f"| {len(sounds)} utterances, {seconds / 60:.1f} min | WER | RTF (processor) | RTF (clock) |", "|---|---|---|---|"]
    ready = [(title, load()) for title, load in systems]
    for _, run in ready:
        run(sounds[:1])  # what is made ready at the first call is not counted
    processor, clock = np.zeros(len(ready)), np.zeros(len(ready))
    texts: list[list[str]] = [[] for _ in ready]
    # They take turns with a batch each: a shared machine is now faster and now slower, for all alike.
    for first in range(0, len(sounds), BATCH):
        for index, (_, run) in enumerate(ready):
            begun = time.process_time(), time.perf_counter()
            texts[index] += run(sounds[first : first + BATCH])
            processor[index] += time.process_time() - begun[0]
            clock[index] += time.perf_counter() - begun[1]
    for index, (title, _) in enumerate(ready):
        assert len(texts[index]) == len(sounds)
        score = count(references, dict(zip(references, texts[index], strict=True)), unit="word", normalizer="english")
        figures = f"{processor[index] / seconds:.4f} | {clock[index] / seconds:.4f}"
        table.append(f"| {title} | {100 * score.rate:.2f} % | {figures} |")
    print("\n" + "\n".join(table), flush=True)
    if report := pytestconfig.getoption("--report"):
        Path(report).write_text("\n".join(table) + "\n", encoding="utf-8")
