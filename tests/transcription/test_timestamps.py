"""Alignment against brute force, invariants for any input, and real sound at known times."""

from __future__ import annotations

import itertools
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import asr
from asr.audio import files
from asr.audio.segmentation import Segment
from asr.model.configuration import AlignmentHead
from asr.model.decoder import DecoderWeights
from asr.search.hypothesis import Hypothesis
from asr.search.options import DecodingOptions
from asr.text.tokenizer import CharacterTokenizer
from asr.transcription.pauses import pauses, sound, sounding
from asr.transcription.timestamps import Grid, attend, attention_times, ctc_times, follow, orderly, token_times, warp
from asr.transcription.transcript import join
from asr.transcription.words import letters, spans, token_spans
from tests.transcription import joins

NUMBERS = st.integers(-9, 9)
# Costs of the cells, and of going through to a column.
COSTS = st.tuples(st.integers(1, 5), st.integers(1, 6)).flatmap(
    lambda size: st.tuples(
        st.lists(st.lists(NUMBERS, min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0]),
        st.lists(st.integers(0, 9), min_size=size[1], max_size=size[1]),
    )
)


def price(cost: NDArray[np.float32], through: list[int], path: list[int]) -> float:
    """The cost of the best path that enters each row at these columns."""
    height, width = cost.shape
    total = 0.0
    for row, start in enumerate(path):
        last = path[row + 1] if row + 1 < height else width - 1
        # Up to the column where the next row begins, or the one before it.
        lasts = [last] if row + 1 == height else [end for end in (last, last - 1) if end >= start]
        total += min(float(cost[row, start : end + 1].sum()) + sum(through[start + 1 : end + 1]) for end in lasts)
    return total


@settings(max_examples=100)
@given(COSTS)
def test_the_warped_path_is_the_cheapest(costs: tuple[list[list[int]], list[int]]) -> None:
    cost, through = np.array(costs[0], dtype=np.float32), costs[1]
    height, width = cost.shape

    def cheapest(row: int, column: int) -> float:
        if (row, column) == (height - 1, width - 1):
            return float(cost[row, column])
        found = []
        for down, right in ((1, 0), (0, 1), (1, 1)):
            if row + down < height and column + right < width:
                step = 0 if down else through[column + right]
                found.append(step + cheapest(row + down, column + right))
        return min(found) + float(cost[row, column])

    path = warp(cost, np.array(through))
    assert path[0] == 0
    assert all(first <= second for first, second in itertools.pairwise(path))
    assert price(cost, through, path) == pytest.approx(cheapest(0, 0), abs=1e-4)


@given(st.integers(1, 30), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_warped_path_is_librosas(rows: int, columns: int, seed: int) -> None:
    cost = np.random.default_rng(seed).random((rows, columns))
    total, steps = librosa.sequence.dtw(C=cost, subseq=False)
    entered = [int(steps[steps[:, 0] == row, 1].min()) for row in range(rows)]
    path = warp(cost, np.zeros(columns))
    assert path == entered
    assert price(cost, [0] * columns, path) == pytest.approx(total[-1, -1])


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
    found = sounding([(0.1, 1.2), (1.3, 2.02), (2.02, 2.9)], sound(samples))
    # Between the last two words stands a closure of 50 ms, which is no pause. A voice dies away within 10 ms.
    for each, known in zip(found, [(0.5, 1.0), (1.4, 2.02), (2.02, 2.4)], strict=True):
        assert each == pytest.approx(known, abs=0.0101)
    # Within sound, in loud noise, in digital silence and without samples there is nothing to trim.
    assert sounding([(0.6, 0.9)], sound(samples)) == [(0.6, 0.9)]
    assert sounding([(0.1, 1.2)], sound(said(3.0, (0.5, 1.0), noise=0.1))) == [(0.1, 1.2)]
    assert sounding([(1.1, 1.35)], sound(samples)) == [(1.1, 1.35)]
    assert sounding([(0.1, 0.2)], sound(np.zeros(16000, dtype=np.float32))) == [(0.1, 0.2)]
    assert sounding([(0.0, 0.001)], sound(np.zeros(10, dtype=np.float32))) == [(0.0, 0.001)]


def test_the_rumble_of_a_room_is_no_sound() -> None:
    samples = said(3.0, (0.5, 1.0), (1.5, 2.5))
    rumble = 0.3 * np.sin(2 * np.pi * 40 * np.arange(len(samples)) / 16000) + 0.2
    found = pauses(sound(samples + rumble.astype(np.float32)))
    # What the filter makes of a recording that begins in the middle of a wave is over in 10 ms.
    assert [(start, end) for start, end in found if end > 0.1] == [
        pytest.approx(known, abs=0.0201) for known in ((0.0, 0.5), (1.0, 1.5), (2.5, 3.0))
    ]


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_pauses_are_the_long_runs_of_silence(pattern: list[bool]) -> None:
    expected, start = [], 0.0
    for loud, run in itertools.groupby(pattern):
        length = len(list(run))
        ends = start == 0 or start + length == len(pattern)
        if not loud and any(pattern) and (length >= 15 or ends):
            expected.append((start / 100, (start + length) / 100))
        start += length
    assert pauses(np.array(pattern)) == [pytest.approx(each) for each in expected]


@given(
    st.lists(st.booleans(), min_size=1, max_size=80),
    # Never on the border of two frames.
    st.lists(st.integers(0, 799), min_size=2, max_size=8, unique=True).map(lambda edges: sorted(n / 1000 + 3e-4 for n in edges)),
)
def test_trimming_is_what_walking_from_frame_to_frame_gives(pattern: list[bool], edges: list[float]) -> None:
    times = [(start, end) for start, end in itertools.pairwise(edges) if end <= len(pattern) / 100]

    def pause(frame: int, step: int) -> bool:
        """Whether from here 15 frames are silent, or all to the end."""
        return not any(pattern[n] for n in range(frame, frame + 15 * step, step) if 0 <= n < len(pattern))

    for (start, end), found in zip(times, sounding(times, np.array(pattern)), strict=True):
        assert start <= found[0] < found[1] <= end
        inside = [n for n, loud in enumerate(pattern) if loud and (n + 1) / 100 > start and n / 100 < end]
        if not inside:
            assert found == (start, end)
            continue
        assert found[0] == pytest.approx(max(start, inside[0] / 100) if pause(inside[0] - 1, -1) else start)
        assert found[1] == pytest.approx(min(end, (inside[-1] + 1) / 100) if pause(inside[-1] + 1, 1) else end)


def looking(grid: Grid, *centres: float) -> NDArray[np.float32]:
    """Attention of tokens that look around these seconds, 60 ms to either side."""
    positions = np.array([grid.centre(position) for position in range(grid.positions)])
    weights = np.exp(-((positions - np.array(centres)[:, None]) ** 2) / (2 * 0.06**2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def test_tokens_lie_where_they_are_looked_for_and_in_no_pause() -> None:
    grid = Grid(0.02, 0.0, 100, 2.0)
    silences = [(0.0, 0.2), (0.8, 1.3), (1.9, 2.0)]
    times = token_times(looking(grid, 0.3, 0.5, 0.7, 1.5, 1.7), grid, silences)
    known = [(0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (1.3, 1.6), (1.6, 1.9)]
    assert times == [pytest.approx(each, abs=0.021) for each in known]
    # Attention that lies in the pause, as that of a mark, moves the boundary into it all the same.
    late = token_times(looking(grid, 0.3, 0.5, 0.9, 1.5, 1.7), grid, silences)
    assert late[2][1] == pytest.approx(0.8, abs=0.021)
    assert late[3][0] == pytest.approx(1.3, abs=0.021)
    # A click before the first pause is not the beginning of the word behind it, nor one after the last its end.
    clicked = token_times(looking(grid, 1.5, 1.7), grid, [(0.1, 1.3), (1.9, 1.96)])
    assert clicked == [pytest.approx(each, abs=0.021) for each in [(1.3, 1.6), (1.6, 1.9)]]


@given(st.integers(1, 12), st.integers(1, 40), st.lists(st.floats(0, 0.9), max_size=6), st.integers(0, 2**32 - 1))
def test_tokens_follow_each_other_for_any_attention(rows: int, positions: int, edges: list[float], seed: int) -> None:
    grid = Grid(0.02, 0.0, positions, 0.02 * positions)
    attention = np.random.default_rng(seed).random((rows, positions)).astype(np.float32)
    edges.sort()
    silences = list(zip(edges[::2], edges[1::2], strict=False))
    times = token_times(attention, grid, silences)
    assert len(times) == rows
    assert all(start < end for start, end in times)
    assert all(first[0] <= second[0] and first[1] <= second[1] for first, second in itertools.pairwise(times))
    if rows <= len(grid.outside(silences)):
        assert all(first[1] <= second[0] + 0.021 for first, second in itertools.pairwise(times))


def test_heads_look_at_the_token_that_is_written_or_at_the_one_that_was_read() -> None:
    # Row n of each head looks at position n.
    heads = torch.eye(4, 6).expand(2, 3, 4, 6)
    written, read = AlignmentHead(layer=1, head=0), AlignmentHead(layer=0, head=2, token="read")
    assert follow(heads, [written]).argmax(axis=1).tolist() == [0, 1, 2]
    assert follow(heads, [read]).argmax(axis=1).tolist() == [1, 2, 3]
    assert follow(heads, [written, read]) == pytest.approx((follow(heads, [written]) + follow(heads, [read])) / 2)


def test_rows_of_attention_are_those_of_the_search(data: Path) -> None:
    """What a step saw, with the cache of a search and without the later tokens, is what one pass over the text says."""
    transcriber = asr.load("zh", "cpu")
    checkpoint = transcriber.checkpoint
    with torch.inference_mode():
        encoded, _ = transcriber._encode([files.read(data / "机器学习.wav")])
        tokens = checkpoint.tokenizer.encode("机器学习")
        given = Hypothesis("机器学习", tuple(tokens), (0.0,) * len(tokens), 0.0, "stop")
        heads = attend(checkpoint, encoded, given, transcriber.options)
        decoder = checkpoint.model.decoder
        assert decoder is not None
        assert heads.shape == (6, 8, len(tokens) + 1, encoded.values.shape[1])
        prompt = [checkpoint.tokenizer.identifier(token) for token in decoder.configuration.prompt]
        for number in range(len(tokens) + 1):
            weights = DecoderWeights()
            decoder(torch.tensor([[*prompt, *tokens[:number]]]), encoded.values, encoded.lengths, weights=weights)
            seen = torch.cat(weights.cross_attention)[:, :, -1]
            assert torch.allclose(heads[:, :, number], seen, atol=1e-4)


def test_marks_take_no_time_and_characters_share_their_token() -> None:
    grid = Grid(0.02, 0.0, 60, 1.2)
    text, tokens = "我们，好。", [(0, 2), (2, 3), (3, 4), (4, 5)]
    attention = looking(grid, 0.2, 0.5, 0.9, 1.1)
    times = attention_times(attention, text, spans(text), tokens, grid, [(0.4, 0.8)])
    # The marks' attention does not count: the last word goes on to the end.
    assert times == [pytest.approx(each, abs=0.021) for each in [(0.0, 0.2), (0.2, 0.4), (0.8, 1.2)]]
    assert attention_times(attention[:0], text, spans(text), tokens, grid, []) is None
    # Without room for the last tokens their words come at the end.
    short = attention_times(attention[:2], text, spans(text), tokens, grid, [])
    assert short is not None
    assert short[2] == pytest.approx((1.2, 1.2), abs=0.021)


SENTENCES = {
    "天气": "今天天气很好我们去公园吧",
    "上班": "他每天早上七点坐地铁上班",
    "空调": "请把空调调到二十六度",
}


@pytest.mark.parametrize("pauses_between", [(0.0,), (0.2, 0.5), None])
def test_mandarin_sentences_begin_and_end_where_they_are_joined(data: Path, pauses_between: tuple[float, ...] | None) -> None:
    spoken = [(files.read(data / f"{name}.wav"), text) for name, text in SENTENCES.items()]
    (recording,) = joins.join(spoken, pauses_between, 6.5, "")
    late = joins.differences(asr.load("zh", "cpu"), recording)
    assert len(late) == 6
    assert max(abs(difference) for _, difference in late) < 0.1


@pytest.mark.parametrize("way", ["named heads", "CTC", "last layer"])
def test_english_sentences_begin_and_end_where_they_are_joined(data: Path, way: str) -> None:
    transcriber = asr.load("en", "cpu")
    model = transcriber.checkpoint.model
    texts = [transcriber.transcribe(data / f"{name}.wav").text for name in ("welcome", "weather")]
    spoken = [(files.read(data / f"{name}.wav"), text) for name, text in zip(("welcome", "weather"), texts, strict=True)]
    assert model.decoder is not None
    if way != "named heads":
        model.decoder.configuration = model.decoder.configuration.model_copy(update={"alignment_heads": ()})
    if way == "last layer":
        model.ctc = None
    for pause in (0.0, 0.3):
        (recording,) = joins.join(spoken, (pause,), 5.0, " ")
        assert max(abs(difference) for _, difference in joins.differences(transcriber, recording)) < 0.05


def test_what_ctc_wrote_is_aligned_by_ctc(data: Path) -> None:
    """Its letters are none of the decoder's tokens, whose cross-attention is asked otherwise."""
    samples = files.read(data / "welcome.wav")
    transcriber = asr.load("en", "cpu", DecodingOptions(decoder="ctc"))
    transcriber.timestamps = True
    words = transcriber.decode_segments([Segment(0.0, samples)])[0].words
    assert words
    first, last = joins.voiced(samples)
    assert words[0].start == pytest.approx(first / 16000, abs=0.05)
    assert words[-1].end == pytest.approx(last / 16000, abs=0.05)


def test_mandarin_words_at_known_joins(corpora: Path) -> None:
    if not (corpora / "data_aishell").is_dir() or not (corpora / "hsk-words").is_dir():
        pytest.skip(f"needs AISHELL and hsk-words in {corpora}")
    transcriber = asr.load("zh", "cpu")
    recordings = [
        *itertools.islice(joins.join(joins.aishell(corpora, "S0252"), (0.0, 0.15, 0.4), 12.0, ""), 2),
        *itertools.islice(joins.join(joins.hsk_words(corpora, 1), (0.0, 0.3), 10.0, ""), 2),
    ]
    found = [abs(difference) for recording in recordings for _, difference in joins.differences(transcriber, recording)]
    assert len(found) > 50
    assert np.median(found) < 0.06
    assert np.quantile(found, 0.9) < 0.12
