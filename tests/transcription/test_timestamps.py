"""Alignment against brute force, invariants for any input, and real sound at known times."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import asr
from asr.audio import files
from asr.search.hypothesis import Hypothesis
from asr.text.tokenizer import CharacterTokenizer
from asr.transcription.timestamps import Grid, ctc_times, orderly, sounding, warp
from asr.transcription.transcript import join
from asr.transcription.words import letters, spans, token_spans

COSTS = st.integers(1, 5).flatmap(
    lambda rows: st.integers(1, 6).flatmap(
        lambda columns: st.lists(st.lists(st.integers(-9, 9), min_size=columns, max_size=columns), min_size=rows, max_size=rows)
    )
)


@settings(max_examples=100)
@given(COSTS)
def test_the_warped_path_is_the_cheapest(rows: list[list[int]]) -> None:
    cost = np.array(rows, dtype=np.float32)
    height, width = cost.shape

    def cheapest(row: int, column: int, entered: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        if (row, column) == (height - 1, width - 1):
            return float(cost[row, column]), entered
        found = []
        for down, right in ((1, 0), (0, 1), (1, 1)):
            if row + down < height and column + right < width:
                into = (*entered, column + right) if down else entered
                rest, path = cheapest(row + down, column + right, into)
                found.append((rest + float(cost[row, column]), path))
        return min(found)

    def price(path: list[int]) -> float:
        """The cost of the best path that enters each row at these columns."""
        total = 0.0
        for row, start in enumerate(path):
            last = path[row + 1] if row + 1 < height else width - 1
            # Up to the column where the next row begins, or the one before it.
            through = [cost[row, start : end + 1].sum() for end in (last, last - 1) if end >= start]
            total += float(min(through) if row + 1 < height else through[0])
        return total

    path = warp(cost)
    assert path[0] == 0
    assert all(first <= second for first, second in itertools.pairwise(path))
    assert price(path) == pytest.approx(cheapest(0, 0, (0,))[0], abs=1e-4)


def peaked(path: str, tokenizer: CharacterTokenizer) -> torch.Tensor:
    """Log-probabilities that are sure of one character a position; - is blank."""
    rows = torch.full((len(path), len(tokenizer)), 0.001)
    for position, character in enumerate(path):
        token = tokenizer.blank if character == "-" else tokenizer.encode(f"a{character}a")[1]
        rows[position, token] = 1.0
    return (rows / rows.sum(dim=1, keepdim=True)).log()


def test_ctc_finds_words_where_the_head_is_sure_of_them() -> None:
    tokenizer = CharacterTokenizer.build(["a cat sat"])
    path = "--aa---c-aat------s-at--"
    grid = Grid(0.02, 0.0, len(path), 0.02 * len(path))
    text = "A cat, sat!"
    times = ctc_times(peaked(path, tokenizer), tokenizer, text, spans(text), grid)
    assert times is not None
    for (start, end), (first, last) in zip(times, [(2, 3), (7, 11), (18, 21)], strict=True):
        assert start == pytest.approx(0.02 * first, abs=0.08)
        assert end == pytest.approx(0.02 * last, abs=0.13)
        assert start <= 0.02 * first <= 0.02 * last <= end


def test_a_word_without_known_characters_gets_what_lies_between() -> None:
    tokenizer = CharacterTokenizer.build(["at on s"])
    grid = Grid(0.02, 0.0, 24, 0.48)
    times = ctc_times(peaked("-at------ssssss-----on--", tokenizer), tokenizer, "at 1947 on", spans("at 1947 on"), grid)
    assert times is not None
    assert 0.06 < times[1][0] <= 0.30
    assert 0.12 < times[1][1] <= 0.44
    assert ctc_times(peaked("-at-", tokenizer), tokenizer, "at noon at", spans("at noon at"), grid) is None


@given(
    st.lists(st.tuples(st.floats(-5, 20), st.floats(-5, 20)), min_size=1, max_size=40),
    st.floats(0.03, 15),
)
def test_times_are_in_order_and_inside_for_any_alignment(times: list[tuple[float, float]], duration: float) -> None:
    found = orderly(times, duration)
    assert len(found) == len(times)
    assert found[0][0] >= 0
    assert found[-1][1] <= duration + 1e-9
    for start, end in found:
        assert start < end
    for (_, end), (start, _) in itertools.pairwise(found):
        assert end <= start + 1e-9


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_words_hold_every_character_once(text: str) -> None:
    found = spans(text)
    assert all(begin < end for begin, end in found)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(found))
    covered = {index for begin, end in found for index in range(begin, end)}
    assert all(character.isspace() or index in covered for index, character in enumerate(text))


def test_words_of_both_scripts() -> None:
    def words(text: str) -> list[str]:
        return [text[begin:end] for begin, end in spans(text)]

    assert words('Well - "so he said," it\'s 3.5!') == ["Well -", '"so', "he", 'said,"', "it's", "3.5!"]
    assert words("我们用GPU 3块，好吗？") == ["我", "们", "用", "GPU", "3", "块，", "好", "吗？"]
    assert letters('"so,"', (0, 5)) == (1, 3)
    assert join(["我们", "走。", "OK", "then", "go", "吧"]) == "我们走。OK then go吧"


def test_tokens_are_found_in_the_text() -> None:
    tokenizer = CharacterTokenizer.build(["a cat sat"])
    tokens = tuple(tokenizer.encode("a cat"))
    assert token_spans(Hypothesis("a cat", tokens, (0.0,) * 5, 0.0, "stop"), tokenizer) == [(n, n + 1) for n in range(5)]
    # Rewritten text: spread evenly, all of it covered.
    rewritten = token_spans(Hypothesis("A feline", tokens, (0.0,) * 5, 0.0, "stop"), tokenizer)
    assert (rewritten[0][0], rewritten[-1][1]) == (0, 8)


def test_words_of_joined_recordings_lie_in_their_recording(data: Path, tmp_path: Path) -> None:
    parts = [files.read(data / "welcome.wav"), np.zeros(24000, np.float32), files.read(data / "weather.wav")]
    soundfile.write(tmp_path / "a.wav", np.concatenate(parts), 16000)
    transcriber = asr.load("en")
    transcriber.timestamps = True
    transcript = transcriber.transcribe(tmp_path / "a.wav")
    join_at = (len(parts[0]) + len(parts[1])) / 16000
    words = transcript.words
    assert join(word.text for word in words) == transcript.text
    weather = [word.text.lower() for word in words].index("weather")
    assert words[weather - 2].end < len(parts[0]) / 16000 + 0.3
    assert join_at - 0.3 < words[weather - 1].start < words[weather].end < join_at + 1.0
    assert words[-1].end <= transcript.duration
    assert all(0 < word.confidence < 1 for word in words)
    assert all(first.end <= second.start + 1e-6 for first, second in itertools.pairwise(words))


def said(duration: float, *sounds: tuple[float, float], noise: float = 0.0) -> NDArray[np.float32]:
    """A tone from each start to each end, in seconds, in noise."""
    time = np.arange(int(duration * 16000)) / 16000
    tone = sum(np.where((time >= start) & (time < end), 0.5 * np.sin(2 * np.pi * 440 * time), 0) for start, end in sounds)
    return (tone + noise * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)


def test_a_word_does_not_begin_or_end_in_a_pause() -> None:
    samples = said(3.0, (0.5, 1.0), (1.4, 2.0), (2.05, 2.4))
    found = sounding([(0.1, 1.2), (1.3, 2.02), (2.02, 2.9)], samples)
    # Between the last two words stands a closure of 50 ms, which is no pause.
    assert found == [pytest.approx((0.5, 1.0)), pytest.approx((1.4, 2.02)), pytest.approx((2.02, 2.4))]
    # Within sound, in loud noise, in digital silence and without samples there is nothing to trim.
    assert sounding([(0.6, 0.9)], samples) == [(0.6, 0.9)]
    assert sounding([(0.1, 1.2)], said(3.0, (0.5, 1.0), noise=0.1)) == [(0.1, 1.2)]
    assert sounding([(1.05, 1.35)], samples) == [(1.05, 1.35)]
    assert sounding([(0.1, 0.2)], np.zeros(16000, dtype=np.float32)) == [(0.1, 0.2)]
    assert sounding([(0.0, 0.001)], np.zeros(10, dtype=np.float32)) == [(0.0, 0.001)]


@given(
    st.lists(st.booleans(), min_size=1, max_size=80),
    # Never on the border of two frames.
    st.lists(st.integers(0, 799), min_size=2, max_size=8, unique=True).map(lambda edges: sorted(n / 1000 + 3e-4 for n in edges)),
)
def test_trimming_is_what_walking_from_frame_to_frame_gives(pattern: list[bool], edges: list[float]) -> None:
    samples = np.repeat(np.array(pattern, dtype=np.float32), 160)
    times = [(start, end) for start, end in itertools.pairwise(edges) if end <= len(pattern) / 100]

    def pause(frame: int, step: int) -> bool:
        """Whether from here 15 frames are silent, or all to the end."""
        return not any(pattern[n] for n in range(frame, frame + 15 * step, step) if 0 <= n < len(pattern))

    for (start, end), found in zip(times, sounding(times, samples), strict=True):
        assert start <= found[0] < found[1] <= end
        inside = [n for n, loud in enumerate(pattern) if loud and (n + 1) / 100 > start and n / 100 < end]
        if not inside:
            assert found == (start, end)
            continue
        assert found[0] == pytest.approx(max(start, inside[0] / 100) if pause(inside[0] - 1, -1) else start)
        assert found[1] == pytest.approx(min(end, (inside[-1] + 1) / 100) if pause(inside[-1] + 1, 1) else end)
