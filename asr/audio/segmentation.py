"""Long recordings in segments that the model can hear at once: where somebody speaks, cut in pauses.

Both ways take a recording as it arrives, so that a file of any length and a microphone are the same to them, and hold no
more than a segment of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr.audio.files import SAMPLE_RATE
from asr.audio.voice_activity import STEP, VoiceActivity, VoiceDetector

LONGEST_SECONDS = 28.0
_SEARCH_SECONDS = 12.0
_WINDOW_SECONDS = 0.2
# Below -80 dBFS there is nothing to hear: digital silence with at most dither.
_SILENT = 1e-4
# Speech begins where it is this probable and ends where it is less probable than the second. The network's authors use
# 0.5 and 0.35; lower values keep short single words, and of synthetic noises still none.
_ONSET, _OFFSET = 0.3, 0.2
# What is spoken begins before the network is sure of it and dies away after.
_PADDING_SECONDS = 0.3
# A breath, a click or a door is not speech, however sure the network is for a moment.
_SHORTEST_STEPS = 3
_SHORTEST_GAP_SECONDS = 0.1


@dataclass(frozen=True)
class Segment:
    """A piece of a recording: float32 samples at 16 kHz and where they begin, in seconds."""

    start: float
    samples: NDArray[np.float32]

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE

    @property
    def end(self) -> float:
        """Where it ends in the recording, in seconds."""
        return self.start + self.duration


class Segmenter(Protocol):
    """Cuts one recording.

    Attributes:
        removed: what is in no segment, (start, end) in seconds, in order; complete after ``finish``.
    """

    removed: list[tuple[float, float]]

    def push(self, samples: NDArray[np.float32]) -> list[Segment]:
        """Take the next samples, float32 at 16 kHz; return the segments that are complete with them."""

    def finish(self) -> list[Segment]:
        """The recording has ended: return the rest."""


class SpeechSegmenter:
    """Segments of speech; what the voice detector takes for none is left out and listed.

    A segment begins 0.3 s before speech and ends 0.3 s after the last of it, when a pause lasts. One that would get too
    long is cut in the middle of its longest pause, or where it is quietest if it has none.

    Args:
        detector: the network.
        longest: of a segment, in seconds.
        pause: seconds without speech that end a segment, at least 0.6; shorter ones stay in it.
    """

    def __init__(self, detector: VoiceDetector, longest: float = LONGEST_SECONDS, pause: float = 1.0) -> None:
        self.removed: list[tuple[float, float]] = []
        self._activity = VoiceActivity(detector)
        self._longest = int(longest * SAMPLE_RATE)
        self._padding = int(_PADDING_SECONDS * SAMPLE_RATE)
        self._pause = max(int(pause * SAMPLE_RATE), 2 * self._padding)
        # All positions are samples from the recording's start.
        self._waiting = np.zeros(0, dtype=np.float32)  # from _origin on
        self._origin = 0
        self._kept = 0  # everything before is in a segment or removed
        self._judged = 0  # everything before has a probability
        self._start: int | None = None  # of the segment in progress
        self._speaking = False
        self._speech_end = 0  # end of the last step of speech
        self._steps = 0  # of speech in the segment in progress
        self._gaps: list[tuple[int, int]] = []  # pauses within it

    def push(self, samples: NDArray[np.float32]) -> list[Segment]:
        """As ``Segmenter.push``."""
        self._waiting = np.concatenate((self._waiting, samples))
        return self._judge(self._activity.push(samples))

    def finish(self) -> list[Segment]:
        """As ``Segmenter.finish``."""
        found = self._judge(self._activity.finish())
        end = self._origin + len(self._waiting)
        if self._start is not None:
            found += self._emit(min(self._speech_end + self._padding, end))
        self._remove(end)
        return found

    def _judge(self, probabilities: NDArray[np.float32]) -> list[Segment]:
        found: list[Segment] = []
        for probability in probabilities.tolist():
            position, self._judged = self._judged, self._judged + STEP
            self._speaking = probability >= (_OFFSET if self._speaking else _ONSET)
            if self._speaking:
                if self._start is None:
                    self._start, self._steps, self._gaps = max(position - self._padding, self._kept), 0, []
                elif position - self._speech_end >= _SHORTEST_GAP_SECONDS * SAMPLE_RATE:
                    self._gaps.append((self._speech_end, position))
                self._steps += 1
                self._speech_end = self._judged
            elif self._start is not None and self._judged - self._speech_end >= self._pause:
                found += self._emit(self._speech_end + self._padding)
            if self._start is not None and self._judged - self._start >= self._longest:
                found += self._cut(self._start)
        if self._start is None:
            # Of silence only what a segment may still begin with is held.
            self._forget(self._judged - self._padding)
        return found

    def _emit(self, end: int) -> list[Segment]:
        """End the segment in progress."""
        assert self._start is not None
        start, self._start = self._start, None
        if self._steps < _SHORTEST_STEPS:
            return []
        return [self._take(start, end)]

    def _cut(self, start: int) -> list[Segment]:
        """End the segment in progress where it is too long, and begin the next one there."""
        gaps = [(begin, end) for begin, end in self._gaps if begin + end > 2 * start + self._longest // 2]
        if self._judged - self._speech_end >= _SHORTEST_GAP_SECONDS * SAMPLE_RATE:
            gaps.append((self._speech_end, self._judged))
        if gaps:
            begin, end = max(gaps, key=lambda gap: gap[1] - gap[0])
            at = (begin + end) // 2
        else:
            first = start - self._origin
            at = start + quietest(self._waiting[first : first + self._longest])
        segment = self._take(start, at)
        self._gaps = [(begin, end) for begin, end in self._gaps if begin >= at]
        # What follows is speech that goes on, or the end of a pause after which nothing may come.
        self._start = at if self._speech_end > at else None
        self._steps = max((self._speech_end - at) // STEP, 0)
        return [segment]

    def _take(self, start: int, end: int) -> Segment:
        self._remove(start)
        self._kept = end
        samples = self._waiting[start - self._origin : end - self._origin].copy()
        self._forget(end)
        return Segment(start / SAMPLE_RATE, samples)

    def _remove(self, end: int) -> None:
        if end > self._kept:
            self.removed.append((self._kept / SAMPLE_RATE, end / SAMPLE_RATE))
            self._kept = end

    def _forget(self, position: int) -> None:
        if position > self._origin:
            self._waiting = self._waiting[position - self._origin :]
            self._origin = position


class EnergySegmenter:
    """The whole recording in segments, each cut in the middle of the quietest 0.2 s of the last 12 s that fit.

    Only segments without a sound above -80 dBFS are left out.
    """

    def __init__(self, longest: float = LONGEST_SECONDS) -> None:
        self.removed: list[tuple[float, float]] = []
        self._longest = int(longest * SAMPLE_RATE)
        self._waiting = np.zeros(0, dtype=np.float32)
        self._position = 0

    def push(self, samples: NDArray[np.float32]) -> list[Segment]:
        """As ``Segmenter.push``."""
        self._waiting = np.concatenate((self._waiting, samples))
        found: list[Segment] = []
        while len(self._waiting) > self._longest:
            found += self._take(quietest(self._waiting[: self._longest]))
        return found

    def finish(self) -> list[Segment]:
        """As ``Segmenter.finish``."""
        return self._take(len(self._waiting)) if len(self._waiting) else []

    def _take(self, count: int) -> list[Segment]:
        segment = Segment(self._position / SAMPLE_RATE, self._waiting[:count].copy())
        self._waiting = self._waiting[count:]
        self._position += count
        if is_silent(segment.samples):
            self.removed.append((segment.start, segment.end))
            return []
        return [segment]


def quietest(samples: NDArray[np.float32]) -> int:
    """Where to cut: the centre of the quietest window in the last 12 s, in samples."""
    window = int(_WINDOW_SECONDS * SAMPLE_RATE)
    first = max(len(samples) - int(_SEARCH_SECONDS * SAMPLE_RATE), 0)
    power = np.concatenate(([0.0], np.cumsum(samples[first:].astype(np.float64) ** 2)))
    energy = power[window:] - power[:-window]
    return first + int(np.argmin(energy)) + window // 2


def is_silent(samples: NDArray[np.float32]) -> bool:
    """Whether nothing in it reaches -80 dBFS."""
    return not len(samples) or float(np.abs(samples).max()) < _SILENT
