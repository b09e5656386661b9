"""An open sound file at its own rate, in blocks: libsndfile where it can, otherwise FFmpeg through PyAV."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from asr.exceptions import AudioError

# What FFmpeg may take a file for: not a playlist, which would open other files or the network, not text, not a picture.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,ac3,eac3,asf,avi,flv,mpeg,mpegts,mp3,ogg,flac,wav,w64,aiff,au,caf,amr,"
    "ape,wv,tta,tak,mpc,mpc8,dsf,rm"
)

# Slower than 1 kHz holds no speech, and no converter samples faster than 768 kHz: such a header is wrong.
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
BLOCK_SECONDS = 4.0  # decoded at a time

Samples = NDArray[np.float32]


class Source(Protocol):
    """An open file at its own rate."""

    rate: int
    channels: int

    def count(self) -> int | None:
        """Samples per channel that the header promises; None if it does not say."""

    def promised(self) -> float | None:
        """Seconds that the header speaks of, be it a guess."""

    def blocks(self, start: int, stop: int | None) -> Iterator[Samples]:
        """Decode ``(samples, channels)`` from sample ``start`` to before ``stop``, or to the end."""


@contextmanager
def open_source(path: str | Path, track: int = 0) -> Iterator[Source]:
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
def _ffmpeg(path: str | Path, track: int) -> Iterator[Source]:
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


def _checked(path: str | Path, source: Source) -> Source:
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
