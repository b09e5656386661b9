"""Sound in: any audio file, or the audio track of a video, as 16 kHz mono float32, whole or in parts.

libsndfile reads WAV, FLAC, Ogg (Vorbis, Opus), MP3, AIFF and the like; FFmpeg, through PyAV, the rest. Files are
decoded and resampled in blocks, so memory follows what is asked for and never the length of the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from asr.audio.sources import Samples, open_source
from asr.exceptions import AudioError

SAMPLE_RATE = 16_000

# Lower case. What else is audio can be named outright; these are what a search through a folder takes up.
AUDIO_SUFFIXES: frozenset[str] = (
    frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aiff", ".aif", ".aifc", ".caf"})
    | {".au", ".snd", ".w64", ".rf64", ".sph", ".m4a", ".m4b", ".aac", ".ac3", ".mka", ".wma", ".amr", ".spx"}
    | {".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".avi", ".wmv", ".asf"}
)

# Float samples a little over full scale are clipped; far over it they are integers that nobody divided.
LARGEST_SAMPLE = 16.0

MARGIN_SECONDS = 0.25  # decoded and dropped on either side of a part, so that filters and codecs have settled


@dataclass(frozen=True)
class AudioInformation:
    """What a file's header says: rate in Hz, number of channels, duration in seconds."""

    sample_rate: int
    channels: int
    duration: float


def inspect(path: str | Path) -> AudioInformation:
    """Read a file's header; where the header does not say how long the file is, the file is decoded to find out.

    Raises:
        AudioError: as ``read``, as far as the header shows it.
    """
    with open_source(path) as source:
        count = source.count()
        if count is None:
            count = sum(len(block) for block in source.blocks(0, None))
        if count == 0:
            raise AudioError(f"{path}: holds no samples; give a recording that is longer than nothing.")
        return AudioInformation(source.rate, source.channels, count / source.rate)


def estimate(path: str | Path) -> float | None:
    """Seconds that a file promises to last, without decoding it; None if it does not say, or cannot be read."""
    try:
        with open_source(path) as source:
            return source.promised()
    except AudioError:
        return None


def count_channels(path: str | Path) -> int:
    """Number of a file's channels, from its header.

    Raises:
        AudioError: as ``inspect``.
    """
    with open_source(path) as source:
        return source.channels


def read(path: str | Path, start: float = 0.0, duration: float | None = None, channel: int | None = None) -> Samples:
    """Read a file, or a part of it, as 16 kHz mono.

    A part equals the same samples of the whole: it is decoded and resampled with a margin on either side. Some files
    allow that only nearly: Opus and AAC decoders that begin in mid-file differ in the third decimal (AAC may also hold
    random noise), and Matroska and WebM give positions in milliseconds.

    Args:
        path: any file that libsndfile or FFmpeg reads; of a video, its first audio track.
        start: seconds from the beginning.
        duration: seconds; None reads to the end, and so does a duration that reaches over the end.
        channel: index of the channel to read; None averages all.

    Returns:
        float32 ``(samples,)`` in [-1, 1]; float files that go over full scale are clipped.

    Raises:
        AudioError: the file is missing, a folder, not permitted, empty, not audio, without audio track or samples,
            truncated, damaged, has samples that are not finite or not scaled, a rate outside 1 to 768 kHz, no such
            channel, or ends before ``start``.
    """
    if start < 0 or not math.isfinite(start) or (duration is not None and not duration > 0):
        raise AudioError(f"{path}: cannot be read from {start} s for {duration} s; give a start >= 0, a duration > 0.")
    first = round(start * SAMPLE_RATE)
    last = None if duration is None or math.isinf(duration) else first + max(round(duration * SAMPLE_RATE), 1)
    blocks = list(_resampled(path, first, last, channel))
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]


def stream(path: str | Path, seconds: float = 30.0, channel: int | None = None, track: int = 0) -> Iterator[Samples]:
    """Read a file as consecutive 16 kHz mono blocks of ``seconds``, the last one shorter; together they are ``read``.

    Of a video with several audio tracks, ``track`` says which. Memory is a few blocks, whatever the length of the file.

    Raises:
        AudioError: as ``read``; of what is found late, such as truncation, when the stream gets there.
    """
    size = round(seconds * SAMPLE_RATE)
    if size < 1:
        raise AudioError(f"{path}: cannot be read in blocks of {seconds} s; give a positive number of seconds.")
    waiting: list[Samples] = []
    held = 0
    for block in _resampled(path, 0, None, channel, track):
        waiting.append(block)
        held += len(block)
        if held >= size:
            joined = np.concatenate(waiting)
            for begin in range(0, held - size + 1, size):
                yield joined[begin : begin + size].copy()
            held %= size
            waiting = [joined[len(joined) - held :].copy()]
    if held:
        yield np.concatenate(waiting)


def _resampled(path: str | Path, first: int, last: int | None, channel: int | None, track: int = 0) -> Iterator[Samples]:
    """Blocks of the 16 kHz samples from ``first`` to before ``last``; at least one, none of them empty."""
    with open_source(path, track) as source:
        rate = source.rate
        if channel is not None and not 0 <= channel < source.channels:
            raise AudioError(f"{path}: has no channel {channel}; choose one from 0 to {source.channels - 1}.")
        # Source and result have a sample at the same instant every so many samples: a part begins on such an instant,
        # so that its samples fall on the same instants as those of the whole.
        common = math.gcd(rate, SAMPLE_RATE)
        step_in, step_out = rate // common, SAMPLE_RATE // common
        margin = round(MARGIN_SECONDS * SAMPLE_RATE) if first else 0
        steps = max(first - margin, 0) // step_out
        position = steps * step_out
        stop = None
        if last is not None:
            stop = math.ceil((last / SAMPLE_RATE + MARGIN_SECONDS) * rate)
        resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        decoded = delivered = 0
        for block in _mono(path, source.blocks(steps * step_in, stop), channel):
            decoded += len(block)
            if resampler is not None:
                block = resampler.resample_chunk(block)
            for piece in _cut(block, position, first, last):
                delivered += len(piece)
                yield piece
            position += len(block)
        if resampler is not None:
            # As many samples as the duration holds: the resampler's own count differs by one or two.
            expected = steps * step_out + math.ceil(decoded * SAMPLE_RATE / rate)
            block = resampler.resample_chunk(np.empty(0, np.float32), last=True)
            block = np.pad(block, (0, max(expected - position - len(block), 0)))[: max(expected - position, 0)]
            for piece in _cut(block, position, first, last):
                delivered += len(piece)
                yield piece
        if delivered == 0:
            if first == 0 and decoded == 0:
                raise AudioError(f"{path}: holds no samples; give a recording that is longer than nothing.")
            raise AudioError(f"{path}: ends before {first / SAMPLE_RATE:g} s; give an earlier start.")


def _cut(block: Samples, position: int, first: int, last: int | None) -> Iterator[Samples]:
    """The part of a block at ``position`` that lies from ``first`` to before ``last``, clipped; nothing if none."""
    begin = max(first - position, 0)
    end = len(block) if last is None else min(last - position, len(block))
    if begin < end:
        yield np.clip(block[begin:end], -1.0, 1.0)


def _mono(path: str | Path, blocks: Iterator[Samples], channel: int | None) -> Iterator[Samples]:
    """One channel of each block, or the average of all, after a look at the samples."""
    for block in blocks:
        largest = np.abs(block).max(initial=0.0)
        if not np.isfinite(largest):
            raise AudioError(f"{path}: has samples that are not finite numbers (NaN or infinite); export it again.")
        if largest > LARGEST_SAMPLE:
            raise AudioError(f"{path}: has samples up to {largest:.0f} where full scale is 1; scale them to [-1, 1].")
        if channel is not None or block.shape[1] == 1:
            yield np.ascontiguousarray(block[:, channel or 0])
        else:
            yield block.mean(axis=1, dtype=np.float32)
