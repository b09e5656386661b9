"""The front end: a padded batch of waveforms to log-mel filterbank features, in Kaldi's convention or Whisper's.

Both conventions are the same five steps: cut the waveform into overlapping frames, weigh each with a window, take its
power spectrum, sum that under triangular mel filters, take the logarithm. They differ in the constants, in what
happens at the edges and in the scale of the result; ``FilterbankConfiguration.convention`` says which is meant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal, overload

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from asr.audio.files import SAMPLE_RATE
from asr.audio.filters import WHISPER_FFT, bands, filters, window
from asr.configuration import StrictModel
from asr.exceptions import ConfigurationError

LOG_FLOOR = torch.finfo(torch.float32).eps  # Kaldi's floor of a mel energy
WHISPER_HOP, WHISPER_FLOOR = 160, 1e-10

# Frames that go through all steps together: few enough for a core's cache (about 8 kB each), many enough that the calls
# themselves cost little. Measured: 128 to 1024 differ by a third, 512 to 768 by nothing.
CHUNK_FRAMES = 640


class FilterbankConfiguration(StrictModel):
    """What the features are. The options from ``frame_length_ms`` to ``logarithm`` are Kaldi's alone.

    The defaults are the field's usual features: 80 mels, 25 ms Povey windows every 10 ms, pre-emphasis 0.97.
    """

    convention: Literal["kaldi", "whisper"] = "kaldi"
    mels: int = Field(default=80, ge=4, le=512)
    frame_length_ms: float = Field(default=25.0, gt=0, le=1000)
    frame_shift_ms: float = Field(default=10.0, gt=0, le=1000)
    low_frequency: float = Field(default=20.0, ge=0)
    high_frequency: float = Field(default=0.0, description="Hz; 0 or less is an offset from the Nyquist frequency")
    preemphasis: float = Field(default=0.97, ge=0, le=1)
    window: Literal["povey", "hamming", "hanning", "rectangular", "blackman"] = "povey"
    blackman_coefficient: float = 0.42
    remove_dc: bool = True
    snip_edges: bool = Field(default=True, description="only whole frames; otherwise the edges are mirrored")
    round_to_power_of_two: bool = True
    power: bool = Field(default=True, description="power spectrum; otherwise magnitudes")
    logarithm: bool = True
    normalization: Literal["none", "utterance", "global"] = "none"
    mean: list[float] | None = Field(default=None, description="of each mel, for global normalization; training measures it")
    standard_deviation: list[float] | None = Field(default=None, description="of each mel, for global normalization")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.convention == "whisper":
            if self.mels not in (80, 128):
                raise ValueError(f"the whisper convention has 80 or 128 mels, not {self.mels}")
            shared = {"convention", "mels", "normalization", "mean", "standard_deviation"}
            fields = type(self).model_fields
            own = [name for name in fields if name not in shared and getattr(self, name) != fields[name].default]
            if own:
                raise ValueError(f"{', '.join(own)} cannot be chosen in the whisper convention, remove it")
        elif self.frame_length < 2 or self.frame_shift < 1 or self.fft_length % 2:
            raise ValueError("frames need at least 2 samples, a shift of at least 1 and an even FFT length")
        if not self.low_frequency < self.nyquist_bound <= SAMPLE_RATE / 2:
            raise ValueError(f"frequencies {self.low_frequency} to {self.high_frequency} Hz do not fit 16 kHz audio")
        statistics = (self.mean, self.standard_deviation)
        unfit = statistics != (None, None) and any(s is None or len(s) != self.mels for s in statistics)
        if self.normalization == "global" and unfit:
            raise ValueError(f"global normalization needs mean and standard_deviation, {self.mels} numbers each")
        if any(deviation <= 0 for deviation in self.standard_deviation or ()):
            raise ValueError("standard_deviation must be positive")
        return self

    @property
    def frame_length(self) -> int:
        """Window length in samples."""
        return WHISPER_FFT if self.convention == "whisper" else int(SAMPLE_RATE * self.frame_length_ms * 0.001)

    @property
    def frame_shift(self) -> int:
        """Hop in samples."""
        return WHISPER_HOP if self.convention == "whisper" else int(SAMPLE_RATE * self.frame_shift_ms * 0.001)

    @property
    def fft_length(self) -> int:
        """Length of the discrete Fourier transform in samples."""
        rounded = self.convention == "kaldi" and self.round_to_power_of_two
        return 1 << (self.frame_length - 1).bit_length() if rounded else self.frame_length

    @property
    def nyquist_bound(self) -> float:
        """Upper edge of the highest filter, Hz."""
        return self.high_frequency + (SAMPLE_RATE / 2 if self.high_frequency <= 0 else 0)


class Filterbank(nn.Module):
    """Waveforms to log-mel features and their true lengths, on any device, without a loop over utterances.

    Kaldi's convention equals ``torchaudio.compliance.kaldi.fbank(dither=0)`` on the same array, that is on samples in
    [-1, 1]; Kaldi itself reads 16-bit integers, whose log energies are higher by 2 ln 32768. Whisper's equals
    ``log_mel_spectrogram(audio, padding=480000)`` of A. Radford et al., "Robust Speech Recognition via Large-Scale
    Weak Supervision", 2022, section 2.2: the utterance is followed by silence, and the maximum from which the floor is
    taken (8 below, in log10) is over every frame that still hears the utterance, which are up to two more than those
    that are returned. Not differentiable; computes in float32 under autocast and after ``half()``.
    """

    window: Tensor
    filters: Tensor
    mean: Tensor | None
    inverse_deviation: Tensor | None

    def __init__(self, configuration: FilterbankConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        whisper = configuration.convention == "whisper"
        self.frame_length, self.frame_shift = configuration.frame_length, configuration.frame_shift
        # Frames of the following silence that still overlap the utterance count towards Whisper's maximum.
        self.extra_frames = math.ceil(self.frame_length / 2 / self.frame_shift) if whisper else 0
        # Constants are computed and not loaded, so they are real even where a model is built without memory first.
        with torch.device("cpu"):
            self.register_buffer("window", window(configuration), persistent=False)
            self.register_buffer("filters", filters(configuration), persistent=False)
            self._bands = bands(self.filters)
            mean = inverse = None
            if configuration.normalization == "global":
                if configuration.mean is None:
                    raise ConfigurationError(
                        "front_end: global normalization has no mean yet; give it, or train the model first."
                    )
                mean = torch.tensor(configuration.mean, dtype=torch.float32)
                inverse = 1 / torch.tensor(configuration.standard_deviation, dtype=torch.float32)
            self.register_buffer("mean", mean, persistent=False)
            self.register_buffer("inverse_deviation", inverse, persistent=False)

    @property
    def mels(self) -> int:
        """Width of the features."""
        return self.configuration.mels

    @overload
    def frames(self, samples: int) -> int: ...
    @overload
    def frames(self, samples: Tensor) -> Tensor: ...
    def frames(self, samples: int | Tensor) -> int | Tensor:
        """Number of frames that an utterance of so many samples gives; 0 for one that is too short."""
        shift = self.frame_shift
        if self.configuration.convention == "whisper":
            count = (samples + shift - 1) // shift
        elif self.configuration.snip_edges:
            count = (samples - self.frame_length) // shift + 1
        else:
            count = (samples + shift // 2) // shift
        return count.clamp(min=0) if isinstance(count, Tensor) else max(count, 0)

    @torch.no_grad()
    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features.

        Args:
            waveforms: float ``(batch, samples)``, 16 kHz, in [-1, 1]; what lies beyond an utterance's length is
                ignored, whatever it is.
            lengths: int64 ``(batch,)`` in samples.

        Returns:
            Features, float32 ``(batch, frames, mels)``, zero beyond an utterance's frames, and their lengths, int64
            ``(batch,)`` in frames.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            lengths = lengths.to(waveforms.device, torch.int64)
            frames = self.frames(lengths)
            # The widest utterance decides the width; a batch's own padding beyond it costs nothing.
            width = self.frames(waveforms.shape[1]) if waveforms.is_cuda else int(frames.max()) if len(frames) else 0
            if width == 0:
                return waveforms.new_zeros(len(lengths), 0, self.mels, dtype=torch.float32), frames
            features = self._features(self._edges(waveforms.float(), lengths, width), frames)
            if self.configuration.convention == "whisper":
                features = self._whisper_scale(features, frames)
            return self._normalize(features[:, :width], frames), frames

    def _edges(self, waveforms: Tensor, lengths: Tensor, width: int) -> Tensor:
        """Waveforms ``(batch, rows x frame_shift)`` in which frame ``t`` starts at ``t x frame_shift``.

        Args:
            waveforms: float32 ``(batch, samples)``.
            lengths: int64 ``(batch,)`` in samples.
            width: most frames of an utterance.
        """
        configuration, shift = self.configuration, self.frame_shift
        before = 0
        if configuration.convention == "whisper":
            before = self.frame_length // 2
        elif not configuration.snip_edges:
            before = self.frame_length // 2 - shift // 2
        total = (width + self.extra_frames + self._overlap) * shift
        padded = nn.functional.pad(waveforms, (before, total - before - waveforms.shape[1]))
        if configuration.convention == "kaldi" and configuration.snip_edges:
            return padded  # no frame reaches beyond its utterance
        position = torch.arange(total, device=waveforms.device) - before
        padded.masked_fill_(position >= lengths[:, None], 0.0)
        if configuration.convention == "whisper":
            # The start is mirrored without repeating the first sample; an utterance shorter than that ends in silence.
            mirrored = padded[:, before + 1 : 2 * before + 1].flip(1)
            padded[:, :before] = mirrored
        elif not configuration.snip_edges:
            # Both edges are mirrored, the outermost sample repeated, as often as a short utterance needs (Kaldi's
            # feature-window.cc); only frames that reach over an edge are touched.
            period = 2 * lengths[:, None].clamp(min=1)
            folded = position.remainder(period)
            folded = torch.where(folded < period // 2, folded, period - 1 - folded)
            outside = (position < 0) | (position >= lengths[:, None])
            padded = torch.where(outside, padded.gather(1, (folded + before).clamp_(0, total - 1)), padded)
        return padded

    @property
    def _overlap(self) -> int:
        """Rows of ``frame_shift`` samples that a frame reaches into beyond its first."""
        return math.ceil(self.frame_length / self.frame_shift) - 1

    def _features(self, waveforms: Tensor, frames: Tensor) -> Tensor:
        """Mel energies ``(batch, width + extra_frames, mels)``, zero beyond ``frames + extra_frames``.

        Args:
            waveforms: as from ``_edges``: cut into rows of ``frame_shift`` samples, a frame starts at each row.
            frames: int64 ``(batch,)``.
        """
        length, shift, device = self.frame_length, self.frame_shift, waveforms.device
        rows = waveforms.view(-1, shift)
        batch, height = len(waveforms), waveforms.shape[1] // shift
        width = height - self._overlap
        # Utterances stand end to end, without their padding, and go through all steps a few frames at a time, which
        # stay in the processor's cache. The last rows of an utterance start no frame of its own: what is computed
        # there, over the seam, goes to a row of the result that is dropped.
        computed = torch.where(frames > 0, frames + self.extra_frames, 0)[:, None]
        row = torch.arange(height, device=device)
        target = torch.where(row < computed, row + torch.arange(batch, device=device)[:, None] * width, batch * width)
        source = torch.arange(batch * height, device=device)
        step = len(source)
        if device.type == "cpu":  # elsewhere one step is faster, and dropping the padding would wait for the device
            kept = ((row < computed + self._overlap) & (computed > 0)).flatten()
            source, target = source[kept], target.flatten()[kept]
            step = CHUNK_FRAMES * torch.get_num_threads()
        count = len(source) - self._overlap
        target = target.flatten()[:count]
        features = rows.new_zeros(batch * width + 1, self.mels)
        windowed = rows.new_zeros(min(step, count), self.configuration.fft_length)
        for start in range(0, count, step):
            stop = min(start + step, count)
            waveform = rows.index_select(0, source[start : stop + self._overlap])
            cut = waveform.as_strided((stop - start, length), (shift, 1))
            torch.mul(self._emphasised(cut), self.window, out=windowed[: stop - start, :length])
            energies = self._mel_energies(torch.fft.rfft(windowed[: stop - start]))
            features.index_copy_(0, target[start:stop], energies)
        return features[:-1].view(batch, width, self.mels)

    def _emphasised(self, frames: Tensor) -> Tensor:
        """Frames ``(frames, length)`` without their offset and pre-emphasised, as Kaldi does it.

        With the window these are three linear operations that could be one pass over the samples. But rounding counts
        here: beside speech that was cut off at 4 or 7 kHz lies next to nothing, and its logarithm is what rounding
        left. Only the same operations in the same order give torchaudio's result within 1e-4; another order is no less
        exact, but differs from it by 1e-3.
        """
        configuration = self.configuration
        if configuration.convention == "kaldi" and configuration.remove_dc:
            frames = frames - frames.mean(1, keepdim=True)
        if configuration.convention == "whisper" or not configuration.preemphasis:
            return frames
        emphasised = frames if configuration.remove_dc else frames.clone(memory_format=torch.contiguous_format)
        predecessors = emphasised * configuration.preemphasis
        # Kaldi takes the first sample of a frame for its own predecessor. The others are subtracted as if all frames
        # were one row, which is faster than row by row and wrong in the first column alone.
        first = emphasised[:, 0] - predecessors[:, 0]
        emphasised.view(-1)[1:].sub_(predecessors.view(-1)[:-1])
        emphasised[:, 0] = first
        return emphasised

    def _mel_energies(self, spectrum: Tensor) -> Tensor:
        """Mel energies ``(frames, mels)`` of a complex spectrum ``(frames, bins)``, logarithmic if configured."""
        configuration = self.configuration
        squares = torch.view_as_real(spectrum).square_()
        power = squares[..., 0] + squares[..., 1]
        if not configuration.power:
            power.sqrt_()
        energies = power.new_empty(len(power), self.mels)
        for mels, bins in self._bands:
            torch.mm(power[:, bins], self.filters[bins, mels], out=energies[:, mels])
        if configuration.convention == "whisper":
            return energies.clamp_(min=WHISPER_FLOOR).log10_()
        return energies.clamp_(min=LOG_FLOOR).log_() if configuration.logarithm else energies

    def _whisper_scale(self, features: Tensor, frames: Tensor) -> Tensor:
        """Raise what is more than 8 (80 dB) below the utterance's maximum, then scale to about [-1, 1]."""
        heard = _within(features, frames + self.extra_frames)
        maximum = features.masked_fill(~heard, math.log10(WHISPER_FLOOR)).amax((1, 2), keepdim=True)
        scaled = (torch.maximum(features, maximum - 8.0) + 4.0) / 4.0
        return scaled.masked_fill_(~_within(features, frames), 0.0)

    def _normalize(self, features: Tensor, frames: Tensor) -> Tensor:
        """Bring each mel to mean 0 and variance 1, over the utterance's own frames or by the given statistics.

        Features beyond an utterance's frames are zero before and after.
        """
        valid = _within(features, frames)
        if self.mean is not None and self.inverse_deviation is not None:
            return ((features - self.mean) * self.inverse_deviation).masked_fill_(~valid, 0.0)
        if self.configuration.normalization == "none":
            return features
        count = frames.clamp(min=1)[:, None, None]
        centred = (features - features.sum(1, keepdim=True) / count).masked_fill_(~valid, 0.0)
        return centred * (centred.square().sum(1, keepdim=True) / count + 1e-10).rsqrt()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Follow the model to another device but not to half precision, in which these constants would be wrong.
        move = lambda t: t.to(fn(t.new_empty(0)).device)  # noqa: E731
        super()._apply(move, recurse)  # type: ignore[no-untyped-call]
        return self


def global_statistics(filterbank: Filterbank, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each mel over a corpus, for ``normalization: global``.

    Args:
        filterbank: with ``normalization: none``.
        batches: pairs of waveforms ``(batch, samples)`` and lengths ``(batch,)``.
    """
    count = 0
    total = torch.zeros(filterbank.mels, dtype=torch.float64)
    squares = torch.zeros(filterbank.mels, dtype=torch.float64)
    for waveforms, lengths in batches:
        features, frames = filterbank(waveforms, lengths)
        # Frames beyond an utterance's end are zero and add nothing to the sums.
        values = features.to("cpu", torch.float64)
        total += values.sum((0, 1))
        squares += values.square().sum((0, 1))
        count += int(frames.sum())
    mean = total / max(count, 1)
    variance = squares / max(count, 1) - mean.square()
    return mean.tolist(), variance.clamp(min=1e-10).sqrt().tolist()


def _within(features: Tensor, frames: Tensor) -> Tensor:
    """Which frames ``(batch, frames, 1)`` are an utterance's own."""
    return (torch.arange(features.shape[1], device=features.device) < frames[:, None])[..., None]
