"""Long recordings in pieces that the model can hear at once, cut where it is quietest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.audio import files
from asr.audio.files import SAMPLE_RATE

LONGEST_SECONDS = 28.0
_SEARCH_SECONDS = 12.0
_WINDOW_SECONDS = 0.2
# Below -80 dBFS there is nothing to hear: digital silence with at most dither.
_SILENT = 1e-4


@dataclass(frozen=True)
class Segment:
    """A piece of a recording: float32 samples at 16 kHz and where they begin, in seconds."""

    start: float
    samples: NDArray[np.float32]

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE


def segments(path: Path, longest: float = LONGEST_SECONDS) -> Iterator[Segment]:
    """Read a file as segments of at most ``longest`` seconds; memory does not grow with the file.

    A recording that is longer is cut in the middle of the quietest 0.2 s of the last 12 s that fit, so that words
    stay whole.

    Raises:
        AudioError: the file cannot be read, or not to its end.
    """
    limit = int(longest * SAMPLE_RATE)
    waiting = np.zeros(0, dtype=np.float32)
    position = 0
    for block in files.stream(path, seconds=longest):
        waiting = np.concatenate((waiting, block))
        while len(waiting) > limit:
            cut = quietest(waiting[:limit])
            yield Segment(position / SAMPLE_RATE, waiting[:cut])
            position, waiting = position + cut, waiting[cut:]
    if len(waiting):
        yield Segment(position / SAMPLE_RATE, waiting)


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
