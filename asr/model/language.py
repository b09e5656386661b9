"""Which language is spoken: a small convolutional network over log-mels, pooled over time.

After x-vectors (D. Snyder et al., "Spoken language recognition using x-vectors", Odyssey 2018), far smaller.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.audio.features import Filterbank, FilterbankConfiguration
from asr.audio.files import SAMPLE_RATE
from asr.exceptions import CheckpointError

WEIGHTS = "model.safetensors"
LISTENED_SECONDS = 8.0
"""How much of the beginning is listened to."""
_WIDTH = 64
_RANGE = 8.0  # natural logarithm of energy: 35 dB


class LanguageClassifier(nn.Module):
    """Log-mels, three convolutions, mean and deviation over time, one linear layer.

    Args:
        languages: codes, in the order of the outputs.
    """

    def __init__(self, languages: Sequence[str], width: int = _WIDTH) -> None:
        super().__init__()
        self.languages = tuple(languages)
        self.width = width
        self.filterbank = Filterbank(FilterbankConfiguration(convention="kaldi", mels=80))
        self.layers = nn.ModuleList(
            nn.Conv1d(channels, width, kernel_size=5, stride=stride, padding=2)
            for channels, stride in ((self.filterbank.mels, 2), (width, 2), (width, 1))
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.layers)
        self.output = nn.Linear(2 * width, len(self.languages))

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Scores of the languages before softmax.

        Shape:
            waveforms ``(batch, samples)``, lengths ``(batch,)``; the result is ``(batch, languages)``.
        """
        features, frames = self.filterbank(waveforms, lengths)
        mask = _mask(frames, features.shape[1])
        # Without what is far below the loudest sound, and without the mean of the recording, neither its noise floor, its
        # level nor its microphone's colour is left: they tell corpora apart, not languages.
        loudest = features.masked_fill(mask == 0, -torch.inf).amax((1, 2), keepdim=True)
        features = torch.maximum(features, loudest - _RANGE)
        mean = (features * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        x = ((features - mean) * mask) / 4
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = torch.relu(norm(layer(x.transpose(1, 2)).transpose(1, 2)))
            if isinstance(layer, nn.Conv1d) and layer.stride[0] == 2:
                frames = (frames + 1) // 2
            mask = _mask(frames, x.shape[1])
            x = x * mask  # (batch, frames, width)
        count = mask.sum(1).clamp(min=1)
        average = x.sum(1) / count
        variance = ((x - average[:, None]).square() * mask).sum(1) / count
        scores: Tensor = self.output(torch.cat((average, (variance + 1e-5).sqrt()), dim=1))
        return scores

    @torch.inference_mode()
    def identify(self, samples: NDArray[np.float32]) -> dict[str, float]:
        """Probability of each language for one waveform, float32 (samples,) at 16 kHz, of which the beginning counts.

        Silence before the first sound is passed over.
        """
        heard = torch.from_numpy(np.array(from_first_sound(samples), dtype=np.float32))
        if len(heard) < SAMPLE_RATE // 20:
            return dict.fromkeys(self.languages, 1 / len(self.languages))
        probabilities = self(heard[None], torch.tensor([len(heard)])).softmax(1)[0]
        return {language: float(value) for language, value in zip(self.languages, probabilities, strict=True)}

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` with 16-bit weights, the languages in its metadata."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.half().contiguous() for name, value in self.state_dict().items()}
        metadata = {"languages": json.dumps(self.languages), "width": str(self.width)}
        save_file(weights, folder / WEIGHTS, metadata)


def from_first_sound(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The 8 seconds that are listened to: from the first sample above -60 dBFS; nothing where there is none."""
    audible = np.flatnonzero(np.abs(samples) > 1e-3)
    if not len(audible):
        return samples[:0]
    first = int(audible[0])
    return samples[first : first + int(LISTENED_SECONDS * SAMPLE_RATE)]


def load(folder: Path) -> LanguageClassifier:
    """Read a classifier back.

    Raises:
        CheckpointError: the file is missing or is no classifier.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            classifier = LanguageClassifier(json.loads(metadata["languages"]), int(metadata["width"]))
            classifier.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        detail = " ".join(str(error).split())
        raise CheckpointError(f"{path}: is no language classifier ({detail}); train one with asr train-language.") from error
    return classifier.eval()


def _mask(frames: Tensor, longest: int) -> Tensor:
    """1 where there is sound, 0 in padding: ``(batch, frames, 1)``."""
    return (torch.arange(longest, device=frames.device) < frames[:, None]).unsqueeze(-1).float()
