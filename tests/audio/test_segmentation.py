from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import files
from asr.audio.segmentation import EnergySegmenter, Segment, Segmenter, SpeechSegmenter, quietest
from asr.audio.voice_activity import STEP, VoiceActivity, VoiceDetector
from asr.training.nonspeech import KINDS, nonspeech

RATE = 16000


@pytest.fixture(scope="module")
def detector() -> VoiceDetector:
    return VoiceDetector()


@pytest.fixture(scope="module")
def speech(data: Path) -> np.ndarray:
    """Two sentences, 9 s."""
    return np.concatenate([files.read(data / f"{name}.wav") for name in ("welcome", "weather")])


def cut(segmenter: Segmenter, samples: np.ndarray, block: int = 10 * RATE) -> list[Segment]:
    found: list[Segment] = []
    for first in range(0, len(samples), block):
        found += segmenter.push(samples[first : first + block])
    return found + segmenter.finish()


def check_cover(segmenter: Segmenter, segments: list[Segment], samples: np.ndarray) -> None:
    """Segments and what was removed are the whole recording, each sample once; segments hold their samples."""
    spans = sorted([(segment.start, segment.end) for segment in segments] + segmenter.removed)
    position = 0
    for start, end in spans:
        assert round(start * RATE) == position
        position = round(end * RATE)
    assert position == len(samples)
    for segment in segments:
        first = round(segment.start * RATE)
        np.testing.assert_array_equal(segment.samples, samples[first : first + len(segment.samples)])


def test_the_network_is_silero_vads(detector: VoiceDetector, speech: np.ndarray) -> None:
    threads = torch.get_num_threads()
    from silero_vad import load_silero_vad  # sets the number of threads

    torch.set_num_threads(threads)
    original = load_silero_vad()
    samples = torch.from_numpy(speech[: len(speech) // STEP * STEP])
    with torch.inference_mode():
        expected = torch.stack([original(step, RATE)[0, 0] for step in samples.split(STEP)])
        found, _ = detector(torch.cat((torch.zeros(64), samples)).unfold(0, STEP + 64, STEP))
    assert expected.max() > 0.9
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_probabilities_do_not_depend_on_pieces(detector: VoiceDetector, speech: np.ndarray) -> None:
    loud = speech / np.abs(speech).max()
    loud[: 10 * STEP] = np.sign(np.sin(np.arange(10 * STEP)))  # the loudest comes first, so that the level never changes
    whole = VoiceActivity(detector)
    expected = np.concatenate((whole.push(loud), whole.finish()))
    parts = VoiceActivity(detector)
    found = np.concatenate([parts.push(loud[n : n + 7777]) for n in range(0, len(loud), 7777)] + [parts.finish()])
    assert len(found) == -(-len(loud) // STEP)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@settings(max_examples=12)
@given(
    pieces=st.lists(st.tuples(st.sampled_from(["speech", "pause", "noise"]), st.floats(0.02, 9)), min_size=1, max_size=8),
    longest=st.sampled_from([3.0, 10.0, 28.0]),
    block=st.sampled_from([1600, 12345, 160000]),
    voice=st.booleans(),
)
def test_every_sample_is_in_one_segment_or_removed(
    detector: VoiceDetector,
    speech: np.ndarray,
    pieces: list[tuple[str, float]],
    longest: float,
    block: int,
    voice: bool,
) -> None:
    generator = np.random.default_rng(0)
    made = {
        "speech": speech,
        "pause": np.zeros(9 * RATE, np.float32),
        "noise": generator.normal(0, 0.05, 9 * RATE).astype(np.float32),
    }
    samples = np.concatenate([made[kind][: int(seconds * RATE)] for kind, seconds in pieces])
    segmenter: Segmenter = SpeechSegmenter(detector, longest) if voice else EnergySegmenter(longest)
    segments = cut(segmenter, samples, block)
    check_cover(segmenter, segments, samples)
    # A segment ends with the step that fills it.
    assert all(segment.duration <= longest + 2 * STEP / RATE for segment in segments)
    assert all(segment.duration > 0 for segment in segments)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_speech_is_removed(detector: VoiceDetector, kind: str) -> None:
    samples = nonspeech(kind, 60 * RATE, np.random.default_rng(3))
    segmenter = SpeechSegmenter(detector)
    segments = cut(segmenter, samples)
    if kind == "tones":  # the network takes the first note of a melody for a voice
        assert sum(segment.duration for segment in segments) < 1.0
    else:
        assert segments == []
        assert segmenter.removed == [(0.0, 60.0)]


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.01, 0.003])
def test_quiet_speech_is_speech(detector: VoiceDetector, speech: np.ndarray, gain: float) -> None:
    segmenter = SpeechSegmenter(detector)
    segments = cut(segmenter, speech * np.float32(gain))
    assert sum(segment.duration for segment in segments) > 0.95 * len(speech) / RATE


def test_speech_between_noises_is_found_where_it_is(detector: VoiceDetector, speech: np.ndarray) -> None:
    noise = np.random.default_rng(1).normal(0, 0.003, 20 * RATE).astype(np.float32)
    segments = cut(SpeechSegmenter(detector), np.concatenate((noise, speech, noise)))
    assert 19.3 < segments[0].start < 20.1
    assert 20 + len(speech) / RATE - 0.6 < segments[-1].end < 20 + len(speech) / RATE + 0.6


def test_segments_are_cut_in_pauses(detector: VoiceDetector, speech: np.ndarray, data: Path) -> None:
    sentence = files.read(data / "weather.wav")
    pause = np.zeros(RATE // 2, np.float32)  # too short to end a segment by itself
    samples = np.concatenate([sentence, pause] * 12)
    segments = cut(SpeechSegmenter(detector, longest=15.0), samples)
    period = len(sentence) + len(pause)
    assert len(segments) > 2
    for segment in segments[:-1]:
        place = round(segment.end * RATE) % period
        assert place > len(sentence) - RATE // 10 or place < RATE // 10


def test_the_cut_is_where_nothing_sounds() -> None:
    noise = np.random.default_rng(0).normal(size=RATE * 20).astype(np.float32)
    noise[RATE * 15 : RATE * 16] = 0
    assert RATE * 15 < quietest(noise) < RATE * 16


def test_no_utterance_of_a_corpus_is_without_speech(detector: VoiceDetector, corpora: Path) -> None:
    for folder, least in (("LibriSpeech/dev-extra", 0.97), ("data_aishell/wav/dev", 0.85)):
        kept = total = 0.0
        for path in sorted((corpora / folder).rglob("*.opus"))[::40]:
            samples = files.read(path)
            segments = cut(SpeechSegmenter(detector), samples)
            assert segments, path
            kept += sum(segment.duration for segment in segments)
            total += len(samples) / RATE
        assert kept > least * total
