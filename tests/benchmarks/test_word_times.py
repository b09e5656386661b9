"""How far the times of words are from where they are known to be, in recordings joined from utterances.

``pytest tests/benchmarks/test_word_times.py -s -o addopts= --timeout 3600 --model zh --utterances 24``: so many recordings of
each material. The text is given, so that only the times are measured. A model with a CTC head is measured in both ways.
With ``-k heads`` it finds the heads of cross-attention that follow the speech, for ``decoder.alignment_heads``: on the first
speaker and every second word, so that the others tell whether they are the right ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import asr
from asr.model.configuration import AlignmentHead, DecoderConfiguration
from asr.transcription.pauses import pauses, sound
from asr.transcription.timestamps import Grid, attend, attention_times, follow, orderly
from asr.transcription.transcriber import Transcriber
from asr.transcription.words import spans, token_spans
from tests.transcription.joins import (
    RATE,
    Edge,
    Joined,
    Utterance,
    aishell,
    differences,
    given,
    hsk_words,
    join,
    late,
    librispeech,
)

# Pauses are drawn from these; None: utterances keep the silence around them.
SENTENCES: dict[str, tuple[float, ...] | None] = {"joined": (0.0, 0.15, 0.4), "own silence": None}
WORDS = (0.0, 0.0, 0.1, 0.3)
Recordings = Callable[[], Iterator[Joined]]


def materials(corpora: Path, mandarin: bool) -> dict[str, Recordings]:
    found: dict[str, Recordings] = {}

    def recordings(utterances: Callable[[], Iterator[Utterance]], *rest: Any) -> Iterator[Joined]:
        return join(utterances(), *rest)

    for part in ("S0150", "S0252") if mandarin else ("train-extra", "dev-extra"):
        for name, between in SENTENCES.items():
            if mandarin:
                found[f"AISHELL {part}, {name}"] = partial(recordings, partial(aishell, corpora, part), between, 16.0, "")
            else:
                read = partial(librispeech, corpora, part)
                found[f"LibriSpeech {part}, {name}"] = partial(recordings, read, between, 18.0, " ")
    for half, name in enumerate(("even", "odd") if mandarin else ()):
        found[f"hsk-words, {name}"] = partial(recordings, partial(hsk_words, corpora, half), WORDS, 10.0, "")
    return found


def describe(found: Iterable[float]) -> str:
    milliseconds = 1000 * np.array(list(found))
    if not len(milliseconds):
        return "-"
    absolute = abs(milliseconds)
    return f"{np.median(absolute):.0f} / {np.quantile(absolute, 0.9):.0f} ({np.median(milliseconds):+.0f}, {len(absolute)})"


def table(name: str, found: list[tuple[Edge, float]]) -> str:
    columns = (
        [seconds for _, seconds in found],
        [seconds for edge, seconds in found if edge.starts],
        [seconds for edge, seconds in found if not edge.starts],
        [seconds for edge, seconds in found if edge.pause == 0.0],
    )
    return f"| {name} | {' | '.join(describe(column) for column in columns)} |"


def test_word_times_at_known_joins(corpora: Path, pytestconfig: pytest.Config) -> None:
    """Absolute difference in milliseconds, median / 90th percentile (median of the signed one, number of edges)."""
    name, count = pytestconfig.getoption("model"), pytestconfig.getoption("utterances")
    transcriber = asr.load(name, "cpu")
    model = transcriber.checkpoint.model
    decoder = model.decoder
    assert decoder is not None
    configuration = decoder.configuration
    unnamed = configuration.model_copy(update={"alignment_heads": ()})
    mandarin = transcriber.checkpoint.model.configuration.language == "zh"
    lines = [
        f"{name}, {count} recordings of each",
        "| | all edges | starts | ends | at joins without a pause |",
        "|---|---|---|---|---|",
    ]
    for material, recordings in materials(corpora, mandarin).items():
        joined = list(itertools.islice(recordings(), count))
        assert joined, "there is speech for at least one recording"
        head = model.ctc
        for way in ("CTC", "cross-attention"):
            if way == "CTC" and head is None:
                continue
            model.ctc = head if way == "CTC" else None
            # Where heads are named they come before the CTC head.
            decoder.configuration = unnamed if way == "CTC" else configuration
            found = [each for recording in joined for each in differences(transcriber, recording)]
            lines.append(table(f"{material}, {way}", found))
            print(lines[-1], flush=True)
        model.ctc, decoder.configuration = head, configuration
    print("\n" + "\n".join(lines))
    if report := pytestconfig.getoption("report"):
        Path(report).write_text("\n".join(lines) + "\n", encoding="utf-8")


CANDIDATES, CHOSEN, CAP = 24, 6, 0.3


def test_heads_that_follow_the_speech(corpora: Path, pytestconfig: pytest.Config) -> None:
    """Heads alone, and the best of them added one by one, by the mean difference at joins without a pause."""
    name, count = pytestconfig.getoption("model"), pytestconfig.getoption("utterances")
    transcriber = asr.load(name, "cpu")
    checkpoint = transcriber.checkpoint
    mandarin = checkpoint.model.configuration.language == "zh"
    decoder = checkpoint.model.configuration.decoder
    assert decoder is not None
    wanted = ("AISHELL S0150, joined", "hsk-words, even") if mandarin else ("LibriSpeech train-extra, joined",)
    sets: list[list[Callable[[Sequence[AlignmentHead]], list[float]]]] = [
        [listener(transcriber, recording) for recording in itertools.islice(recordings(), count)]
        for material, recordings in materials(corpora, mandarin).items()
        if material in wanted
    ]

    def score(heads: Sequence[AlignmentHead]) -> float:
        """Milliseconds, each material counting alike."""
        means = [np.mean([min(abs(each), CAP) for measure in measures for each in measure(heads)]) for measures in sets]
        return 1000 * float(np.mean(means))

    places = itertools.product(range(decoder.layers), range(decoder.heads), ("written", "read"))
    every = [AlignmentHead.model_validate({"layer": layer, "head": head, "token": token}) for layer, head, token in places]
    print(f"\n{score(decoder.aligning()):.1f} ms: as configured")
    print(f"{score(DecoderConfiguration(layers=decoder.layers, heads=decoder.heads).aligning()):.1f} ms: all of the last layer")
    alone = sorted((score([head]), number) for number, head in enumerate(every))[:CANDIDATES]
    for value, number in alone:
        print(f"{value:.1f} ms: {every[number]}")
    chosen: list[AlignmentHead] = []
    for _ in range(CHOSEN):
        value, best = min((score([*chosen, every[number]]), number) for _, number in alone if every[number] not in chosen)
        chosen.append(every[best])
        print(f"{value:.1f} ms with {every[best]}", flush=True)


def listener(transcriber: Transcriber, recording: Joined) -> Callable[[Sequence[AlignmentHead]], list[float]]:
    """For a choice of heads, seconds by which words are late at the recording's joins without a pause."""
    checkpoint = transcriber.checkpoint
    hypothesis = given(transcriber, recording.text)
    with torch.inference_mode():
        encoded, _ = transcriber._encode([recording.samples])
        heads = attend(checkpoint, encoded, hypothesis, transcriber.options).half()
    duration = len(recording.samples) / RATE
    grid = Grid.of(checkpoint.model, duration, int(encoded.lengths[0]))
    words, tokens = spans(hypothesis.text), token_spans(hypothesis, checkpoint.tokenizer)
    silences = pauses(sound(recording.samples))
    edges = [edge for edge in recording.edges if edge.pause == 0.0]

    def measure(aligning: Sequence[AlignmentHead]) -> list[float]:
        attention = follow(heads, aligning)[:, : grid.positions]
        times = attention_times(attention, hypothesis.text, words, tokens, grid, silences)
        assert times is not None
        return [difference for _, difference in late(edges, orderly(times, duration))]

    return measure
