"""Augmentation: training speech made slower, louder, noisier, more distant and full of holes, from a seed.

``WaveformAugmentation`` changes one waveform before it is batched (in the data loader's workers); ``SpecAugment``
masks a batch of features in the training step. Every draw comes from the generator that is passed in.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from asr.audio.files import AUDIO_SUFFIXES, SAMPLE_RATE, inspect, read
from asr.configuration import StrictModel
from asr.exceptions import AudioError

Samples = NDArray[np.float32]
Settings = TypeVar("Settings", bound=StrictModel)
Probability = Field(default=0.0, ge=0, le=1)

TELEPHONE_BAND = (300.0, 3400.0)  # Hz, ITU-T G.712
BABBLE_VOICES = 6


def _ordered(settings: Settings, lowest: float, highest: float) -> Settings:
    if lowest > highest:
        raise ValueError(f"the range {lowest} to {highest} is upside down")
    return settings


class SpeedConfiguration(StrictModel):
    """Speed perturbation (T. Ko et al., "Audio augmentation for speech recognition", Interspeech 2015)."""

    factors: list[float] = Field(default=[1.0], min_length=1, description="one is drawn; 1.1 is faster and higher")

    @model_validator(mode="after")
    def _audible(self) -> Self:
        if any(not 0.25 <= factor <= 4 for factor in self.factors):
            raise ValueError("speed factors must lie between 0.25 and 4")
        return self


class VolumeConfiguration(StrictModel):
    """Gain drawn evenly in decibels."""

    probability: float = Probability
    lowest: float = Field(default=-10.0, description="dB")
    highest: float = Field(default=6.0, description="dB")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        return _ordered(self, self.lowest, self.highest)


class NoiseConfiguration(StrictModel):
    """Noise at a drawn signal-to-noise ratio, from files or generated."""

    probability: float = Probability
    lowest: float = Field(default=5.0, description="signal-to-noise ratio, dB")
    highest: float = Field(default=30.0, description="signal-to-noise ratio, dB")
    folder: Path | None = Field(default=None, description="noise recordings; none: generated")
    kinds: list[Literal["white", "pink", "brown", "babble"]] = Field(default=["white", "pink", "brown", "babble"], min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        return _ordered(self, self.lowest, self.highest)


class ReverberationConfiguration(StrictModel):
    """Room impulse responses, from files or as exponentially decaying noise (J. Moorer, 1979)."""

    probability: float = Probability
    folder: Path | None = Field(default=None, description="impulse responses; none: generated")
    shortest: float = Field(default=0.1, gt=0, description="time to decay by 60 dB, s")
    longest: float = Field(default=0.7, gt=0, le=10, description="time to decay by 60 dB, s")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        return _ordered(self, self.shortest, self.longest)


class TelephoneConfiguration(StrictModel):
    """Speech as over a telephone: 300 to 3400 Hz at a sample rate of 8 kHz."""

    probability: float = Probability


class SpecAugmentConfiguration(StrictModel):
    """Masks over mels and frames (D. Park et al., "SpecAugment", Interspeech 2019).

    ``time_masks`` is the number of time masks, unless ``time_mask_ratio`` makes it grow with the utterance (D. Park et
    al., "SpecAugment on large scale datasets", ICASSP 2020, equation 1). No mask is wider than ``time_width`` frames
    nor, by the same paper's equation 2, than the part ``time_part`` of its utterance.
    """

    frequency_masks: int = Field(default=0, ge=0)
    frequency_width: int = Field(default=27, ge=0, description="mels, at most")
    time_masks: int = Field(default=0, ge=0)
    time_mask_ratio: float = Field(default=0.0, ge=0, le=1, description="masks for each frame; 0: time_masks")
    time_masks_most: int = Field(default=20, ge=1, description="at most so many, whatever the ratio")
    time_width: int = Field(default=100, ge=0, description="frames, at most")
    time_part: float = Field(default=0.05, ge=0, le=1, description="of the utterance's frames, at most")
    fill: Literal["zero", "mean"] = Field(default="mean", description="mean: of the utterance, for each mel")


class AugmentationConfiguration(StrictModel):
    """All augmentation; the defaults leave everything as it is."""

    speed: SpeedConfiguration = SpeedConfiguration()
    volume: VolumeConfiguration = VolumeConfiguration()
    noise: NoiseConfiguration = NoiseConfiguration()
    reverberation: ReverberationConfiguration = ReverberationConfiguration()
    telephone: TelephoneConfiguration = TelephoneConfiguration()
    spec_augment: SpecAugmentConfiguration = SpecAugmentConfiguration()


class WaveformAugmentation:
    """Speed, reverberation, noise, telephone and volume, in the order in which they happen to speech on its way.

    Raises:
        AudioError: a folder of noises or impulse responses holds no audio.
    """

    def __init__(self, configuration: AugmentationConfiguration) -> None:
        self.configuration = configuration
        self.noises = _files(configuration.noise.folder)
        self.responses = _files(configuration.reverberation.folder)

    def __call__(self, samples: Samples, generator: np.random.Generator) -> Samples:
        """Augment one waveform, float32 ``(samples,)`` at 16 kHz; only another speed changes its length.

        The result is clipped to [-1, 1] where it would go beyond, as a recording would be. Equal states of the
        generator give equal results.
        """
        if len(samples) == 0:
            return samples
        configuration = self.configuration
        samples = self.at_speed(samples, generator)
        if generator.random() < configuration.reverberation.probability:
            samples = reverberate(samples, self._response(generator))
        if generator.random() < configuration.noise.probability:
            ratio = generator.uniform(configuration.noise.lowest, configuration.noise.highest)
            samples = add_noise(samples, self._noise(len(samples), generator), ratio)
        if generator.random() < configuration.telephone.probability:
            samples = telephone(samples)
        if generator.random() < configuration.volume.probability:
            gain = generator.uniform(configuration.volume.lowest, configuration.volume.highest)
            samples = samples * np.float32(10 ** (gain / 20))
        return np.clip(samples, -1.0, 1.0)

    def at_speed(self, samples: Samples, generator: np.random.Generator) -> Samples:
        """The waveform before anything else disturbs it: with an equal generator, of the augmented one's length."""
        return np.clip(change_speed(samples, float(generator.choice(self.configuration.speed.factors))), -1.0, 1.0)

    def _noise(self, length: int, generator: np.random.Generator) -> Samples:
        """Noise ``(length,)``: a piece of a recording, repeated if it is too short, or generated."""
        if not self.noises:
            return generate_noise(str(generator.choice(self.configuration.noise.kinds)), length, generator)
        path = self.noises[generator.integers(len(self.noises))]
        spare = inspect(path).duration - length / SAMPLE_RATE
        noise = read(path, start=generator.uniform(0, spare) if spare > 0 else 0.0, duration=length / SAMPLE_RATE)
        return np.resize(noise, length)

    def _response(self, generator: np.random.Generator) -> Samples:
        """Impulse response ``(samples,)``, from a recording or generated."""
        if self.responses:
            return read(self.responses[generator.integers(len(self.responses))], duration=10.0)
        settings = self.configuration.reverberation
        return generate_response(generator.uniform(settings.shortest, settings.longest), generator)


def change_speed(samples: Samples, factor: float) -> Samples:
    """Speech ``factor`` times as fast, higher by the same factor and shorter by it."""
    if factor == 1.0:
        return samples
    faster: Samples = soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE).astype(np.float32, copy=False)
    return faster


def add_noise(samples: Samples, noise: Samples, ratio: float) -> Samples:
    """Speech with noise of equal length at a signal-to-noise ratio in dB; silence on either side changes nothing."""
    signal, disturbance = _power(samples), _power(noise)
    if signal == 0 or disturbance == 0:
        return samples
    scale = math.sqrt(signal / disturbance / 10 ** (ratio / 10))
    return (samples + noise * np.float32(scale)).astype(np.float32, copy=False)


def generate_noise(kind: str, length: int, generator: np.random.Generator) -> Samples:
    """White, pink (power falls by 3 dB an octave), brown (6 dB) or babble-like noise ``(length,)`` of power 1.

    Babble is the sum of some voices' worth of pink noise in the speech band, each rising and falling at the rate of
    syllables (3 to 6 Hz).
    """
    if kind == "babble":
        time = np.arange(length) / SAMPLE_RATE
        total = np.zeros(length)
        for _ in range(BABBLE_VOICES):
            phase, rate = generator.uniform(0, 2 * math.pi), generator.uniform(3, 6)
            total += (1 + np.sin(2 * math.pi * rate * time + phase)) * _shaped(length, 0.5, (100, 4000), generator)
    else:
        exponent = {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind]
        total = _shaped(length, exponent, (20, SAMPLE_RATE / 2), generator)
    return (total / max(math.sqrt(float(np.mean(total**2))), 1e-12)).astype(np.float32)


def generate_response(decay: float, generator: np.random.Generator) -> Samples:
    """Impulse response of a room whose sound falls by 60 dB in ``decay`` seconds: the direct sound, then noise."""
    length = max(round(decay * SAMPLE_RATE), 2)
    time = np.arange(length) / SAMPLE_RATE
    tail = generator.standard_normal(length) * 10 ** (-3 * time / decay)
    tail[0] = 0
    # Direct sound between half and four times as strong as all that is reflected: near to far from the microphone.
    tail *= 1 / math.sqrt(float(np.sum(tail**2)) * generator.uniform(0.5, 4.0))
    tail[0] = 1
    return tail.astype(np.float32)


def reverberate(samples: Samples, response: Samples) -> Samples:
    """Speech in a room: convolved with its impulse response, neither delayed nor longer nor louder."""
    if _power(samples) == 0 or _power(response) == 0:
        return samples
    size = 1 << (len(samples) + len(response) - 2).bit_length()
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    # The strongest path is the direct one: from there on, so that words stay where their timestamps say.
    delay = int(np.argmax(np.abs(response)))
    wet = wet[delay : delay + len(samples)]
    return (wet * math.sqrt(_power(samples) / max(_power(wet), 1e-20))).astype(np.float32)


def telephone(samples: Samples) -> Samples:
    """Speech as over a telephone, of equal length: at 8 kHz and from 300 to 3400 Hz."""
    narrow = soxr.resample(samples, SAMPLE_RATE, SAMPLE_RATE // 2)
    spectrum = np.fft.rfft(narrow)
    frequency = np.fft.rfftfreq(len(narrow), 2 / SAMPLE_RATE)
    low, high = TELEPHONE_BAND
    # Edges of 100 Hz, so that the filter does not ring.
    pass_band = np.clip((frequency - low) / 100 + 0.5, 0, 1) * np.clip((high - frequency) / 100 + 0.5, 0, 1)
    wide = soxr.resample(np.fft.irfft(spectrum * pass_band, len(narrow)), SAMPLE_RATE // 2, SAMPLE_RATE)
    return np.resize(np.pad(wide, (0, max(len(samples) - len(wide), 0))), len(samples)).astype(np.float32)


class SpecAugment(nn.Module):
    """Masks over mels and frames of a batch, each utterance its own.

    torchaudio's masking draws from the global random state and gives a whole batch one number of masks and one bound
    of their width, whatever the utterances' lengths; so the masks are made here, all at once.
    """

    def __init__(self, configuration: SpecAugmentConfiguration) -> None:
        super().__init__()
        self.configuration = configuration

    @torch.no_grad()
    def forward(self, features: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
        """Mask features.

        Args:
            features: ``(batch, frames, mels)``; not changed.
            lengths: int64 ``(batch,)`` in frames; frames beyond are left as they are.
            generator: on the CPU; equal states give equal masks on any device.

        Returns:
            Masked features ``(batch, frames, mels)``.
        """
        settings = self.configuration
        batch, width, mels = features.shape
        frames = lengths.to("cpu", torch.int64)
        count = torch.full((batch,), settings.time_masks)
        if settings.time_mask_ratio:
            count = (settings.time_mask_ratio * frames).long().clamp_(max=settings.time_masks_most)
        widest = (settings.time_part * frames).long().clamp_(max=settings.time_width)
        time = _masks(width, frames, widest, count, generator).to(features.device)
        everything = torch.full((batch,), mels)
        widest = torch.full((batch,), min(settings.frequency_width, mels))
        chosen = torch.full((batch,), settings.frequency_masks)
        frequency = _masks(mels, everything, widest, chosen, generator).to(features.device)
        valid = torch.arange(width, device=features.device) < lengths.to(features.device)[:, None]
        masked = (time[:, :, None] | frequency[:, None, :]) & valid[:, :, None]
        if settings.fill == "zero":
            return features.masked_fill(masked, 0.0)
        total = features.masked_fill(~valid[:, :, None], 0.0).sum(1, keepdim=True)
        mean = total / lengths.to(features.device).clamp(min=1)[:, None, None]
        return torch.where(masked, mean.to(features.dtype), features)


def _masks(size: int, lengths: Tensor, widest: Tensor, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Bool ``(batch, size)``, True in ``counts`` spans, each of 0 to ``widest`` within the first ``lengths``.

    Width and start are drawn evenly, as in section 2 of the paper. All of lengths, widest, counts are ``(batch,)``.
    """
    most = int(counts.max()) if len(counts) else 0
    draws = torch.rand(2, len(lengths), most, generator=generator, dtype=torch.float64)
    widths = (draws[0] * (widest[:, None] + 1)).long()
    starts = (draws[1] * (lengths[:, None] - widths + 1)).long()
    widths = torch.where(torch.arange(most) < counts[:, None], widths, 0)
    position = torch.arange(size)
    inside = (position >= starts[..., None]) & (position < (starts + widths)[..., None])  # (batch, masks, size)
    return inside.any(1)


def _shaped(length: int, exponent: float, band: tuple[float, float], generator: np.random.Generator) -> NDArray[np.float64]:
    """Noise ``(length,)`` whose amplitude falls with frequency to the power ``exponent`` within a band in Hz."""
    spectrum = np.fft.rfft(generator.standard_normal(length))
    frequency = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    inside = (frequency >= band[0]) & (frequency <= band[1])
    if not inside.any():  # too short to hold such a frequency
        return np.fft.irfft(spectrum, length)
    weight = np.where(inside, np.maximum(frequency, 1.0) ** -exponent, 0.0)
    return np.fft.irfft(spectrum * weight, length)


def _power(samples: NDArray[np.floating]) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


def _files(folder: Path | None) -> list[Path]:
    """Audio files in a folder and below, sorted so that a seed means the same everywhere; none for no folder."""
    if folder is None:
        return []
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not paths:
        raise AudioError(f"{folder}: holds no audio files; give a folder of recordings, or none to generate them.")
    return paths
