"""The constants of the front end: window and triangular mel filters, in Kaldi's convention or Whisper's."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from asr.audio.files import SAMPLE_RATE

if TYPE_CHECKING:
    from asr.audio.features import FilterbankConfiguration

WHISPER_FFT = 400


def window(configuration: FilterbankConfiguration) -> Tensor:
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


def filters(configuration: FilterbankConfiguration) -> Tensor:
    """Triangular mel filters ``(fft_length // 2 + 1, mels)``."""
    if configuration.convention == "whisper":
        return _slaney_filters(configuration.mels)
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


def _slaney_filters(mels: int) -> Tensor:
    """Whisper's filters ``(WHISPER_FFT // 2 + 1, mels)``: Slaney's mel scale, each triangle of the same area.

    The scale of the Auditory Toolbox (Slaney 1998), linear up to 1 kHz and logarithmic above. ``librosa.filters.mel``
    gives the same numbers, but importing it takes longer than transcribing a sentence.
    """
    step, bend, logarithmic_step = 200.0 / 3, 1000.0, math.log(6.4) / 27.0
    highest = bend / step + math.log(SAMPLE_RATE / 2 / bend) / logarithmic_step
    scale = np.linspace(0.0, highest, mels + 2)
    edges = np.where(scale < bend / step, scale * step, bend * np.exp(logarithmic_step * (scale - bend / step)))
    distances = edges[:, None] - np.arange(WHISPER_FFT // 2 + 1) * (SAMPLE_RATE / WHISPER_FFT)
    widths = np.diff(edges)[:, None]
    triangles = np.maximum(0.0, np.minimum(-distances[:-2] / widths[:-1], distances[2:] / widths[1:])).astype(np.float32)
    return torch.from_numpy((triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)).T.contiguous()


def bands(filters: Tensor) -> list[tuple[slice, slice]]:
    """Ranges of mels and of the bins that they are made of, so that most of the zeros need not be multiplied.

    Low mels are a few bins each; three ranges take a third of the time of the whole matrix, and less than a sparse one.
    """
    mels = filters.shape[1]
    bounds = [0, round(0.6 * mels), round(0.8 * mels), mels]
    bands = []
    for begin, end in itertools.pairwise(bounds):
        bins = filters[:, begin:end].any(1).nonzero().flatten().tolist() or [0]
        bands.append((slice(begin, end), slice(bins[0], bins[-1] + 1)))
    return bands
