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
from asr.configuration import StrictModel

LOG_FLOOR = torch.finfo(torch.float32).eps  # Kaldi's floor of a mel energy
WHISPER_FFT, WHISPER_HOP, WHISPER_FLOOR = 400, 160, 1e-10

# Frames whose samples, spectrum and mel energies stay together in a core's second-level cache (about 5 kB a frame).
CHUNK_FRAMES = 128


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
    mean: list[float] | None = Field(default=None, description="of each mel, for global normalization")
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
        if self.normalization == "global" and any(s is None or len(s) != self.mels for s in statistics):
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
        self.register_buffer("window", _window(configuration), persistent=False)
        self.register_buffer("filters", _filters(configuration), persistent=False)
        mean = inverse = None
        if configuration.normalization == "global":
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
            rows, offsets = self._rows(self._edges(waveforms.float(), lengths, width), frames)
            energies = self._energies(rows)
            computed = torch.arange(width + self.extra_frames, device=frames.device)
            index = offsets[:, None] + computed
            features = energies[index.clamp_(max=len(energies) - 1).flatten()].view(*index.shape, self.mels)
            if self.configuration.convention == "whisper":
                features = self._whisper_scale(features, frames, computed)[:, :width]
            valid = (computed[:width] < frames[:, None])[..., None]
            return self._normalize(features, frames, valid).masked_fill_(~valid, 0.0), frames

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
        position = torch.arange(total, device=waveforms.device) - before
        samples = waveforms.shape[1]
        # What is kept of the batch, between the edges and within the lengths.
        padded = nn.functional.pad(waveforms, (before, total - before - samples))
        padded.masked_fill_((position < 0) | (position >= lengths[:, None]), 0.0)
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

    def _rows(self, waveforms: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """One long waveform ``(rows, frame_shift)`` without padding, and the row at which each utterance starts.

        Frames start at whole rows, so utterances can stand end to end; the last frames of each, which reach into the
        next, are computed for nothing. On an accelerator the padding stays, because dropping it waits for the device.
        """
        batch, rows = len(waveforms), waveforms.shape[1] // self.frame_shift
        flat = waveforms.reshape(batch * rows, self.frame_shift)
        if waveforms.device.type != "cpu" or batch == 1:
            return flat, torch.arange(batch, device=waveforms.device) * rows
        used = torch.where(frames > 0, frames + self.extra_frames + self._overlap, 0)
        kept = (torch.arange(rows) < used[:, None]).flatten().nonzero().flatten()
        return flat.index_select(0, kept), used.cumsum(0) - used

    def _energies(self, rows: Tensor) -> Tensor:
        """Mel energies ``(frames, mels)``, on a logarithmic scale if configured, of frames that start at each row."""
        length, shift = self.frame_length, self.frame_shift
        count = len(rows) - self._overlap
        energies = rows.new_empty(count, self.mels)
        waveform = rows.flatten()
        # Whatever runs on the processor is faster when a few frames go through all steps before the next ones do.
        step = CHUNK_FRAMES * torch.get_num_threads() if rows.device.type == "cpu" else count
        buffer = rows.new_zeros(min(step, count), self.configuration.fft_length)
        for start in range(0, count, max(step, 1)):
            stop = min(start + step, count)
            frames = waveform.as_strided((stop - start, length), (shift, 1), start * shift)
            self._windowed(frames, buffer[: stop - start, :length])
            self._mel_energies(torch.fft.rfft(buffer[: stop - start]), energies[start:stop])
        return energies

    def _windowed(self, frames: Tensor, output: Tensor) -> None:
        """Write frames ``(frames, length)`` with their offset removed, pre-emphasised and windowed.

        All three are linear and could be one pass over the samples, but rounding counts here: below speech that was
        cut off at 4 or 7 kHz lies next to nothing, and its logarithm is what rounding leaves. Only the same operations
        in the same order give torchaudio's result within 1e-4; another order is no worse, but differs by 1e-3.
        """
        configuration = self.configuration
        if configuration.convention == "kaldi":
            if configuration.remove_dc:
                frames = frames - frames.mean(1, keepdim=True)
            if configuration.preemphasis:
                # Kaldi takes the first sample of a frame for its own predecessor.
                predecessors = frames * configuration.preemphasis
                torch.sub(frames[:, 1:], predecessors[:, :-1], out=output[:, 1:])
                torch.sub(frames[:, 0], predecessors[:, 0], out=output[:, 0])
                frames = output
        torch.mul(frames, self.window, out=output)

    def _mel_energies(self, spectrum: Tensor, output: Tensor) -> None:
        """Write the mel energies ``(frames, mels)`` of a complex spectrum ``(frames, bins)``."""
        configuration = self.configuration
        magnitudes = spectrum.abs()
        if configuration.power or configuration.convention == "whisper":
            magnitudes.square_()
        torch.mm(magnitudes, self.filters, out=output)
        if configuration.convention == "whisper":
            output.clamp_(min=WHISPER_FLOOR).log10_()
        elif configuration.logarithm:
            output.clamp_(min=LOG_FLOOR).log_()

    def _whisper_scale(self, features: Tensor, frames: Tensor, computed: Tensor) -> Tensor:
        """Raise what is more than 8 (80 dB) below the utterance's maximum, then scale to about [-1, 1]."""
        heard = (computed < frames[:, None] + self.extra_frames)[..., None]
        maximum = features.masked_fill(~heard, math.log10(WHISPER_FLOOR)).amax((1, 2), keepdim=True)
        return (torch.maximum(features, maximum - 8.0) + 4.0) / 4.0

    def _normalize(self, features: Tensor, frames: Tensor, valid: Tensor) -> Tensor:
        """Bring each mel to mean 0 and variance 1, over the utterance's own frames or by the given statistics."""
        if self.mean is not None and self.inverse_deviation is not None:
            return (features - self.mean) * self.inverse_deviation
        if self.configuration.normalization == "none":
            return features
        count = frames.clamp(min=1)[:, None, None]
        mean = features.masked_fill(~valid, 0.0).sum(1, keepdim=True) / count
        centred = (features - mean).masked_fill_(~valid, 0.0)
        variance = centred.square().sum(1, keepdim=True) / count
        return centred * (variance + 1e-10).rsqrt_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Follow the model to another device but not to half precision, in which these constants would be wrong.
        move = lambda t: t.to(fn(t.new_empty(0)).device)  # noqa: E731
        super()._apply(move, recurse)  # type: ignore[no-untyped-call]
        return self


def global_statistics(
    filterbank: Filterbank, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[list[float], list[float]]:
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


def _window(configuration: FilterbankConfiguration) -> Tensor:
    """Window ``(frame_length,)``, in float32 arithmetic as published (see ``Filterbank._windowed``)."""
    length = configuration.frame_length
    if configuration.convention == "whisper":
        return torch.hann_window(length)
    if configuration.window == "povey":
        return torch.hann_window(length, periodic=False).pow(0.85)
    if configuration.window == "hanning":
        return torch.hann_window(length, periodic=False)
    if configuration.window == "hamming":
        return torch.hamming_window(length, periodic=False, alpha=0.54, beta=0.46)
    if configuration.window == "rectangular":
        return torch.ones(length)
    # Kaldi's generalised Blackman window, which torch does not have.
    coefficient = configuration.blackman_coefficient
    angle, position = 2 * math.pi / (length - 1), torch.arange(length, dtype=torch.float32)
    return coefficient - 0.5 * torch.cos(angle * position) + (0.5 - coefficient) * torch.cos(2 * angle * position)


def _filters(configuration: FilterbankConfiguration) -> Tensor:
    """Triangular mel filters ``(fft_length // 2 + 1, mels)``."""
    if configuration.convention == "whisper":
        import librosa

        filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=WHISPER_FFT, n_mels=configuration.mels)
        return torch.from_numpy(filters).T.contiguous()
    from torchaudio.compliance.kaldi import get_mel_banks

    filters, _ = get_mel_banks(
        configuration.mels,
        configuration.fft_length,
        float(SAMPLE_RATE),
        configuration.low_frequency,
        configuration.high_frequency,
        vtln_low=100.0,
        vtln_high=-500.0,
        vtln_warp_factor=1.0,
    )
    # Kaldi leaves the Nyquist bin out.
    return nn.functional.pad(filters, (0, 1)).T.contiguous()
