"""Where a segment has sound and where it pauses, by its energy: words begin and end in sound, and do not go through a pause."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from asr.audio.files import SAMPLE_RATE

FRAME_SECONDS = 0.01
# Where the sound is 30 dB below the segment's loudest 10 ms, nobody speaks.
_SILENT = 1e-3
_PAUSE_FRAMES = 15  # longer than the closure of a plosive
# The rumble of a room is below, and in AISHELL's recordings only 20 dB softer than the voice; of a voice most is above.
_LOWEST_HERTZ = 150.0


def sound(samples: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each 10 ms have sound: above 150 Hz they are at most 30 dB softer than the loudest.

    Args:
        samples: float32 at 16 kHz.

    Returns:
        bool (frames,).
    """
    # Imported here: it takes a tenth of a second, which a transcript without times need not wait for.
    from torchaudio.functional import highpass_biquad

    size = round(FRAME_SECONDS * SAMPLE_RATE)
    waveform = torch.from_numpy(samples[: len(samples) // size * size])
    if not len(waveform):
        return np.zeros(0, dtype=np.bool_)
    for _ in range(2):  # twice 12 dB an octave
        waveform = highpass_biquad(waveform, SAMPLE_RATE, _LOWEST_HERTZ)
    power = np.square(waveform.numpy().reshape(-1, size), dtype=np.float64).mean(axis=1)
    return np.asarray(power > _SILENT * power.max())


def pauses(frames: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Start and end of each pause in seconds: 150 ms without sound, or fewer before the first sound or after the last.

    Args:
        frames: see ``sound``; where nothing sounds there are no pauses either.
    """
    loud = np.flatnonzero(frames)
    if not len(loud):
        return []
    inner = [(before + 1, after) for before, after in itertools.pairwise(loud) if after - before > _PAUSE_FRAMES]
    found = [(0, loud[0]), *inner, (loud[-1] + 1, len(frames))]
    return [(float(start) * FRAME_SECONDS, float(end) * FRAME_SECONDS) for start, end in found if start < end]


def sounding(times: Sequence[tuple[float, float]], frames: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Times without the pause that a word may begin or end with: the model can be sure of a letter long before it is heard.

    Nothing gets longer. Silence as short as that before a ``t`` belongs to its word; a word that is silent throughout, and
    words in loud noise, keep their times.

    Args:
        times: start and end of each word in seconds from the segment's start.
        frames: see ``sound``.
    """
    loud = np.flatnonzero(frames)
    # Beyond the segment nobody speaks.
    bounds = np.concatenate(([-np.inf], loud, [np.inf]))
    found = []
    for start, end in times:
        first, last = start / FRAME_SECONDS, end / FRAME_SECONDS
        # The first frame of sound that ends after the word's start, the last one that begins before its end.
        begin = int(np.searchsorted(loud + 1, first, side="right")) + 1
        stop = int(np.searchsorted(loud, last, side="left"))
        if begin <= stop:
            if bounds[begin] - bounds[begin - 1] > _PAUSE_FRAMES:
                start = max(start, float(bounds[begin]) * FRAME_SECONDS)
            if bounds[stop + 1] - bounds[stop] > _PAUSE_FRAMES:
                end = min(end, (float(bounds[stop]) + 1) * FRAME_SECONDS)
        found.append((start, end))
    return found
