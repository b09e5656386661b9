"""Sound in: any audio file, or the audio track of a video, as 16 kHz mono float32, whole or in parts.

libsndfile reads WAV, FLAC, Ogg (Vorbis, Opus), MP3, AIFF and the like; FFmpeg, through PyAV, the rest. Files are
decoded and resampled in blocks, so memory follows what is asked for and never the length of the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asr.exceptions import AudioError

SAMPLE_RATE = 16_000

# Lower case. What else is audio can be named outright; these are what a search through a folder takes up.
AUDIO_SUFFIXES: frozenset[str] = (
    frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aiff", ".aif", ".aifc", ".caf"})
    | {".au", ".snd", ".w64", ".rf64", ".sph", ".m4a", ".m4b", ".aac", ".ac3", ".mka", ".wma", ".amr", ".spx"}
    | {".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".avi", ".wmv", ".asf"}
)

# What FFmpeg may take a file for: not a playlist, which would open other files or the network, not text, not a picture.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,ac3,eac3,asf,avi,flv,mpeg,mpegts,mp3,ogg,flac,wav,w64,aiff,au,caf,amr,"
    "ape,wv,tta,tak,mpc,mpc8,dsf,rm"
)

# Slower than 1 kHz holds no speech, and no converter samples faster than 768 kHz: such a header is wrong.
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
# Float samples a little over full scale are clipped; far over it they are integers that nobody divided.
LARGEST_SAMPLE = 16.0

BLOCK_SECONDS = 4.0  # decoded at a time
MARGIN_SECONDS = 0.25  # decoded and dropped on either side of a part, so that filters and codecs have settled

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class AudioInformation:
    """What a file's header says: rate in Hz, number of channels, duration in seconds."""

    sample_rate: int
    channels: int
    duration: float


class _Source(Protocol):
    """An open file at its own rate."""

    rate: int
    channels: int

    def count(self) -> int | None:
        """Samples per channel that the header promises; None if it does not say."""

    def promised(self) -> float | None:
        """Seconds that the header speaks of, be it a guess."""

    def blocks(self, start: int, stop: int | None) -> Iterator[Samples]:
        """Decode ``(samples, channels)`` from sample ``start`` to before ``stop``, or to the end."""


def inspect(path: str | Path) -> AudioInformation:
    """Read a file's header; where the header does not say how long the file is, the file is decoded to find out.

    Raises:
        AudioError: as ``read``, as far as the header shows it.
    """
    with _open(path) as source:
        count = source.count()
        if count is None:
            count = sum(len(block) for block in source.blocks(0, None))
        if count == 0:
            raise AudioError(f"{path}: holds no samples; give a recording that is longer than nothing.")
        return AudioInformation(source.rate, source.channels, count / source.rate)


def estimate(path: str | Path) -> float | None:
    """Seconds that a file promises to last, without decoding it; None if it does not say, or cannot be read."""
    try:
        with _open(path) as source:
            return source.promised()
    except AudioError:
        return None


def count_channels(path: str | Path) -> int:
    """Number of a file's channels, from its header.

    Raises:
        AudioError: as ``inspect``.
    """
    with _open(path) as source:
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
    with _open(path, track) as source:
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


@contextmanager
def _open(path: str | Path, track: int = 0) -> Iterator[_Source]:
    """Open a file with libsndfile, else with FFmpeg; failures of either, then and later, become an ``AudioError``."""
    _check_file(Path(path))
    try:
        try:
            handle = soundfile.SoundFile(str(path))
        except soundfile.LibsndfileError:
            handle = None
        if handle is None:
            with _ffmpeg(path, track) as source:
                yield _checked(path, source)
            return
        with handle:
            if track:
                raise AudioError(f"{path}: has no audio track {track}; it is a sound file, whose only track is 0.")
            yield _checked(path, _LibsndfileSource(path, handle))
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: is truncated or damaged ({_sentence(error)}); copy or export it again.") from error
    except ValueError as error:
        raise AudioError(_NOT_AUDIO.format(path, _sentence(error))) from error


@contextmanager
def _ffmpeg(path: str | Path, track: int) -> Iterator[_Source]:
    import av  # here, since most files do without it

    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    try:
        with av.open(str(path), options=options, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise AudioError(f"{path}: holds no audio track; give a sound file or a video with sound.")
            count = len(container.streams.audio)
            if not 0 <= track < count:
                raise AudioError(f"{path}: has no audio track {track}; choose one from 0 to {count - 1}.")
            yield _FFmpegSource(path, container, track)
    except av.FFmpegError as error:
        raise AudioError(_NOT_AUDIO.format(path, _sentence(error))) from error


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise AudioError(f"{path}: is a folder; give an audio file.")
        with path.open("rb") as file:
            if not file.read(1):
                raise AudioError(f"{path}: is empty (0 bytes); copy or record it again.")
    except FileNotFoundError:
        raise AudioError(f"{path}: does not exist; check the path.") from None
    except PermissionError:
        raise AudioError(f"{path}: may not be read; change its permissions.") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{path}: cannot be opened ({_sentence(error)}); check the path.") from error


def _checked(path: str | Path, source: _Source) -> _Source:
    if not LOWEST_RATE <= source.rate <= HIGHEST_RATE:
        raise AudioError(f"{path}: has a sample rate of {source.rate} Hz; give audio of 1 to 768 kHz.")
    return source


def _sentence(error: Exception) -> str:
    reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(reason).split()).rstrip(".")


_NOT_AUDIO = "{}: is not audio, or damaged ({}); give a sound file."
_CHUNK_TOO_LONG = r"(?m)^\s*(?:data|SSND|Data Size|riff)\s*:\s*(\d+) \(should be (\d+)"


class _LibsndfileSource:
    def __init__(self, path: str | Path, handle: Any) -> None:
        self.path, self.handle = path, handle
        self.rate: int = handle.samplerate
        self.channels: int = handle.channels
        # libsndfile quietly takes a chunk that is longer than the file for one that ends with it, and says so only in
        # its log. A chunk of about 2 or 4 GiB is a writer's way to say that it did not know the length.
        for match in re.finditer(_CHUNK_TOO_LONG, handle.extra_info):
            promised, present = int(match[1]), int(match[2])
            if present < promised < 0x7FFF0000:
                raise AudioError(f"{path}: is truncated, it holds {present} of {promised} bytes of audio; copy it again.")

    def count(self) -> int | None:
        frames: int = self.handle.frames
        return frames if frames < 1 << 62 else None

    def promised(self) -> float | None:
        count = self.count()
        return None if count is None else count / self.rate

    def blocks(self, start: int, stop: int | None) -> Iterator[Samples]:
        count = self.count()
        end = count if stop is None else stop if count is None else min(stop, count)
        if count is not None and start >= count:
            return
        if start:
            self.handle.seek(start)
        position = start
        size = round(BLOCK_SECONDS * self.rate)
        while end is None or position < end:
            block = self.handle.read(size if end is None else min(size, end - position), "float32", always_2d=True)
            if len(block) == 0:
                break
            position += len(block)
            yield block
        # An MP3 encoder's delay and padding may be counted in its header and left out of the samples.
        missing = 0 if end is None else end - position
        if missing > (4608 if self.handle.format == "MP3" else 0):
            raise AudioError(
                f"{self.path}: is truncated, it ends at {position / self.rate:.2f} s of the "
                f"{(count or 0) / self.rate:.2f} s that its header promises; copy it again."
            )


class _FFmpegSource:
    def __init__(self, path: str | Path, container: Any, track: int) -> None:
        self.path, self.container = path, container
        self.stream = container.streams.audio[track]
        if self.stream.codec_context is None:
            raise AudioError(f"{path}: has sound of a kind that is not known here; export it as WAV or FLAC.")
        self.rate: int = self.stream.codec_context.sample_rate or 0
        self.channels: int = self.stream.codec_context.channels or 1

    def _duration(self) -> float | None:
        """Seconds that the track lasts according to its header."""
        if self.stream.duration is not None and "mov" in self.container.format.name:
            return float(self.stream.duration * self.stream.time_base)
        # Matroska gives one duration for all tracks; other containers' is a guess from the first packets.
        if "matroska" in self.container.format.name and len(self.container.streams) == 1:
            return None if self.container.duration is None else float(self.container.duration / 1e6)
        return None

    def count(self) -> int | None:
        # A container's duration may count an encoder's delay or another track: only decoding says how much there is.
        return None

    def promised(self) -> float | None:
        duration = self.container.duration
        return self._duration() or (None if duration is None else float(duration / 1e6))

    def blocks(self, start: int, stop: int | None) -> Iterator[Samples]:
        import av

        resampler = av.AudioResampler(format="flt", layout=self.stream.codec_context.layout, rate=self.rate)
        frames = self._frames(start)
        position, gathered, held = -1, [], 0
        for time, frame in frames:
            if position < 0:
                position = time
            for converted in resampler.resample(frame):
                block = converted.to_ndarray().reshape(-1, self.channels)
                begin = max(start - position, 0)
                end = len(block) if stop is None else min(stop - position, len(block))
                position += len(block)
                if begin < end:
                    gathered.append(block[begin:end])
                    held += end - begin
            if held >= BLOCK_SECONDS * self.rate:
                yield np.concatenate(gathered)
                gathered, held = [], 0
            if stop is not None and position >= stop:
                break
        if held:
            yield np.concatenate(gathered)
        promised = self._duration()
        if promised is not None and stop is None and max(position, 0) < (promised - 0.5) * self.rate:
            raise AudioError(
                f"{self.path}: is truncated, it ends at {max(position, 0) / self.rate:.2f} s of the {promised:.2f} s "
                "that its header promises; copy it again."
            )

    def _frames(self, start: int) -> Iterator[tuple[int, Any]]:
        """Decoded frames and the sample at which each begins, from somewhat before ``start``."""
        decoded = self.container.decode(self.stream)
        first = next(decoded, None)
        if first is None:
            return
        origin = first.pts
        early = start / self.rate - 1.0
        if origin is None or early <= 0:
            yield 0, first
            yield from ((-1, frame) for frame in decoded)
            return
        base = self.stream.time_base
        # The decoder needs some packets before it gives what it would have given in the course of the file.
        self.container.seek(origin + int(early / base), stream=self.stream)
        for frame in self.container.decode(self.stream):
            yield round((frame.pts - origin) * base * self.rate), frame
