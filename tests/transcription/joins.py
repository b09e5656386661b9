"""Recordings put together from utterances, so that it is known to the sample where each begins and ends.

An utterance begins and ends where it is 30 dB below its loudest 20 ms, above 150 Hz. Joined without a pause between them,
a word's time cannot be found by the silence beside it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal
import torch
from numpy.typing import NDArray

from asr.audio import files
from asr.audio.segmentation import Segment
from asr.search.hypothesis import Hypothesis
from asr.transcription.timestamps import align
from asr.transcription.transcriber import Transcriber
from asr.transcription.words import spans

RATE = 16000
_AT_THE_ENDS = 0.3  # seconds before the first utterance and after the last, as the segmenter leaves them
_NOISE = 10 ** (-50 / 20)  # beside the recording's level, so that no pause is digital silence
_LONGEST = 28.0
_ABOVE_RUMBLE = scipy.signal.butter(4, 150, "highpass", fs=RATE, output="sos")

Utterance = tuple[NDArray[np.float32], str]


@dataclass(frozen=True)
class Edge:
    """Where a word begins or ends.

    Attributes:
        word: its number.
        seconds: where in the recording.
        starts: whether it begins there.
        pause: seconds of silence beside it; None at the recording's start and end, and beside an utterance's own silence.
    """

    word: int
    seconds: float
    starts: bool
    pause: float | None


@dataclass(frozen=True)
class Joined:
    """A recording of several utterances: float32 samples at 16 kHz, what is said, and the known edges."""

    samples: NDArray[np.float32]
    text: str
    edges: tuple[Edge, ...]


def voiced(samples: NDArray[np.float32]) -> tuple[int, int]:
    """First sample of an utterance's speech and the one after its last."""
    power = np.convolve(scipy.signal.sosfiltfilt(_ABOVE_RUMBLE, samples) ** 2, np.ones(320) / 320, "same")
    loud = np.flatnonzero(power > 1e-3 * power.max())
    return int(loud[0]), int(loud[-1]) + 1


def join(utterances: Iterable[Utterance], pauses: Sequence[float] | None, seconds: float, separator: str) -> Iterator[Joined]:
    """Recordings of so many seconds, as long as there are utterances.

    Args:
        utterances: samples and text; a space in it parts words.
        pauses: seconds of a pause, drawn from these; None: utterances keep the silence that they were recorded with.
        separator: between the texts of two utterances.
    """
    draw, noise = random.Random(0), np.random.default_rng(0)
    margin = 0 if pauses is None else round(_AT_THE_ENDS * RATE)
    parts: list[tuple[int, NDArray[np.float32]]] = []
    edges: list[Edge] = []
    text, end, pause = "", margin, None
    for samples, words in utterances:
        first, last = voiced(samples)
        if pauses is not None:
            samples, first, last = samples[first:last], 0, last - first
        if parts and pauses is not None:
            pause = draw.choice(pauses)
            edges[-1] = Edge(edges[-1].word, edges[-1].seconds, False, pause)
            end += round(pause * RATE)
        number = len(spans(text))
        text += (separator if text else "") + words
        edges.append(Edge(number, (end + first) / RATE, True, pause))
        edges.append(Edge(len(spans(text)) - 1, (end + last) / RATE, False, None))
        parts.append((end, samples))
        end += len(samples)
        if end < seconds * RATE:
            continue
        whole = np.zeros(end + margin, dtype=np.float32)
        for start, part in parts:
            whole[start : start + len(part)] = part
        if pauses is not None:
            whole += noise.standard_normal(len(whole), dtype=np.float32) * np.float32(_NOISE * np.sqrt(np.mean(whole**2)))
        if len(whole) <= _LONGEST * RATE:
            yield Joined(whole, text, tuple(edges))
        parts, edges, text, end, pause = [], [], "", margin, None


def given(transcriber: Transcriber, text: str) -> Hypothesis:
    """The hypothesis that a search would make of a text that is known."""
    spoken = text if " " not in text else f" {text}"
    tokens = tuple(transcriber.checkpoint.tokenizer.encode(spoken))
    return Hypothesis(text, tokens, (-0.1,) * len(tokens), -0.1 * len(tokens), "stop")


def late(edges: Iterable[Edge], times: Sequence[tuple[float, float]]) -> list[tuple[Edge, float]]:
    """For each known edge, seconds by which the time of its word is late."""
    return [(edge, times[edge.word][0 if edge.starts else 1] - edge.seconds) for edge in edges]


def differences(transcriber: Transcriber, recording: Joined) -> list[tuple[Edge, float]]:
    """For each known edge, seconds by which the time of its word is late when the recording's text is given."""
    checkpoint = transcriber.checkpoint
    with torch.inference_mode():
        encoded, _ = transcriber._encode([recording.samples])
        segments = [Segment(0.0, recording.samples)]
        words = align(checkpoint, encoded, [given(transcriber, recording.text)], segments, transcriber.options)[0]
    return late(recording.edges, [(word.start, word.end) for word in words])


def aishell(corpora: Path, speaker: str) -> Iterator[Utterance]:
    """Utterances of an AISHELL speaker, in an order that does not change."""
    lines = (corpora / "data_aishell" / "transcript" / "aishell_transcript_v0.8.txt").read_text(encoding="utf-8").splitlines()
    texts = {name: text.replace(" ", "") for name, text in (line.split(maxsplit=1) for line in lines)}
    yield from _mixed([(path, texts[path.stem]) for path in (corpora / "data_aishell" / "wav").rglob(f"*{speaker}*.opus")])


def hsk_words(corpora: Path, half: int) -> Iterator[Utterance]:
    """Single Mandarin words: every second one, from the first (0) or the second (1)."""
    lines = (corpora / "hsk-words" / "text").read_text(encoding="utf-8").splitlines()[half::2]
    words = [line.split(maxsplit=1) for line in lines]
    yield from _mixed([(corpora / "hsk-words" / "audio" / f"{name}.opus", word) for name, word in words if word.isalpha()])


def librispeech(corpora: Path, part: str) -> Iterator[Utterance]:
    """Utterances of a LibriSpeech part."""
    found = []
    for file in (corpora / "LibriSpeech" / part).rglob("*.trans.txt"):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, text = line.split(maxsplit=1)
            found.append((file.parent / f"{name}.opus", text.lower()))
    yield from _mixed(found)


def _mixed(found: list[tuple[Path, str]]) -> Iterator[Utterance]:
    found.sort()
    random.Random(0).shuffle(found)
    for path, text in found:
        yield files.read(path), text
