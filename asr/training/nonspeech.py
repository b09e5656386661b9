"""Utterances in which nobody speaks: silence, noise, hum and tones, with empty text.

A recogniser that has only ever heard speech writes words to everything; these teach it to write nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from asr.audio.files import SAMPLE_RATE
from asr.corpora.batches import Batch

KINDS = ("zeros", "white", "pink", "brown", "hum", "tones", "clicks")


def add_nonspeech(batch: Batch, share: float, generator: np.random.Generator) -> Batch:
    """Add utterances without speech, as many as makes them this share of the result on average.

    Their lengths are at most that of the batch, so no utterance gets more padding than it had.
    """
    wanted = len(batch.ids) * share / (1 - share)
    count = int(wanted) + int(generator.random() < wanted - int(wanted))
    if not count or not batch.waveforms.shape[1]:
        return batch
    longest = batch.waveforms.shape[1]
    lengths = generator.integers(max(longest // 8, 1), longest + 1, size=count)
    sounds = torch.zeros(count, longest)
    for row, length in enumerate(lengths):
        kind = KINDS[generator.integers(len(KINDS))]
        sounds[row, :length] = torch.from_numpy(nonspeech(kind, int(length), generator))
    return Batch(
        ids=(*batch.ids, *(f"nonspeech-{n}" for n in range(count))),
        waveforms=torch.cat((batch.waveforms, sounds)),
        lengths=torch.cat((batch.lengths, torch.from_numpy(lengths))),
        texts=(*batch.texts, *("",) * count),
        speakers=(*batch.speakers, *("",) * count),
        languages=batch.languages,
        undisturbed=None if batch.undisturbed is None else torch.cat((batch.undisturbed, sounds)),
    )


def nonspeech(kind: str, samples: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """A sound of one of ``KINDS``, float32 (samples,) at 16 kHz, at a level drawn from -70 to -10 dBFS."""
    time = np.arange(samples) / SAMPLE_RATE
    if kind == "zeros":
        return np.zeros(samples, dtype=np.float32)
    if kind in ("white", "pink", "brown"):
        # The spectrum of noise falls by 0, 3 or 6 dB an octave.
        slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind]
        spectrum = np.fft.rfft(generator.standard_normal(max(samples, 2)))
        spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** slope
        sound = np.fft.irfft(spectrum, n=max(samples, 2))[:samples]
    elif kind == "hum":
        base = generator.choice([50.0, 60.0])
        phases = generator.uniform(0, 2 * np.pi, size=8)
        sound = sum(np.sin(2 * np.pi * base * (n + 1) * time + phase) / (n + 1) for n, phase in enumerate(phases))
        sound = sound + 0.05 * generator.standard_normal(samples)
    elif kind == "tones":
        # Notes of a scale that last a quarter of a second: music as far as it matters here.
        steps = generator.integers(0, 25, size=samples * 4 // SAMPLE_RATE + 1)
        frequency = 220.0 * 2 ** (np.repeat(steps, SAMPLE_RATE // 4)[:samples] / 12)
        phase = 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
        sound = np.sin(phase) + 0.3 * np.sin(2 * phase)
    else:
        sound = np.zeros(samples)
        sound[generator.integers(0, samples, size=max(samples // SAMPLE_RATE, 1) * 2)] = 1.0
        sound = np.convolve(sound, np.exp(-np.arange(200) / 30), mode="full")[:samples]
    level = 10 ** (generator.uniform(-70, -10) / 20)
    return (sound / max(float(np.sqrt(np.mean(sound**2))), 1e-9) * level).clip(-1, 1).astype(np.float32)
