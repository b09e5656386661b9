"""Where somebody speaks: silero-vad's network, run over a whole block of audio at once.

Silero Team, "Silero VAD: pre-trained enterprise-grade voice activity detector", 2021, version 6, MIT licence; the weights
come with the package ``silero-vad``. Its own runtimes take one step of 32 ms after the other. Only the LSTM needs that:
here spectrum and convolutions are computed for all steps of a block together, which is an order of magnitude faster.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

STEP = 512  # samples: 32 ms
_CONTEXT = 64  # samples before a step that its spectrum also sees
_FFT, _HOP = 256, 128
_STEPS_AT_ONCE = 1024  # bounds the memory of a pass: 30 MB
# The network misses speech that was recorded at a low level: it hears each step as if the loudest of the last half
# minute had this root mean square, amplified at most so much that dither stays inaudible.
_LEVEL, _LARGEST_GAIN = 0.05, 100.0
_DECAY = 0.5 ** (STEP / 16000 / 30.0)  # of the loudest in each step: half in 30 s


class VoiceDetector(nn.Module):
    """The probability of speech in each 32 ms; one detector serves any number of recordings."""

    def __init__(self) -> None:
        super().__init__()
        bins = _FFT // 2 + 1
        self.stft_conv = nn.Conv1d(1, 2 * bins, _FFT, _HOP, bias=False)
        self.conv1 = nn.Conv1d(bins, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)
        # Importing the package would set the number of torch's threads to one, so its file is read without.
        package = find_spec("silero_vad")
        assert package is not None, "silero-vad is a dependency"
        assert package.origin is not None
        weights = torch.jit.load(Path(package.origin).parent / "data" / "silero_vad.jit", "cpu").state_dict()  # type: ignore[no-untyped-call]
        self.load_state_dict({ours: weights[f"_model.{theirs}"] for ours, theirs in _names().items()})
        self.eval()

    def forward(self, steps: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Steps float32 (steps, 64 + 512 samples) and the LSTM's state -> probabilities (steps,) and the new state."""
        padded = F.pad(steps[:, None], (0, _CONTEXT), mode="reflect")
        spectrum = self.stft_conv(padded)
        real, imaginary = spectrum.chunk(2, dim=1)
        hidden = (real.square() + imaginary.square()).sqrt()
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            hidden = F.relu(convolution(hidden))
        outputs, state = self.lstm(hidden.transpose(1, 2).transpose(0, 1)[0], state)  # (steps, 128)
        return self.final_conv(F.relu(outputs)[..., None])[:, 0, 0].sigmoid(), state


def _names() -> dict[str, str]:
    """This module's parameters and their names in the package's file."""
    names = {"stft_conv.weight": "stft.forward_basis_buffer"}
    for number in range(4):
        for part in ("weight", "bias"):
            names[f"conv{number + 1}.{part}"] = f"encoder.{number}.reparam_conv.{part}"
    for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        names[f"lstm.{part}_l0"] = f"decoder.rnn.{part}"
    for part in ("weight", "bias"):
        names[f"final_conv.{part}"] = f"decoder.decoder.2.{part}"
    return names


class VoiceActivity:
    """The detector on one recording that arrives in pieces.

    Args:
        detector: the network.
    """

    def __init__(self, detector: VoiceDetector) -> None:
        self.detector = detector
        self._state: tuple[Tensor, Tensor] | None = None
        self._waiting = np.zeros(_CONTEXT, dtype=np.float32)  # the context, then samples that do not fill a step yet
        self._loudest = 1e-9

    @torch.inference_mode()
    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of the steps that are complete with these samples, float32 (steps,)."""
        self._waiting = np.concatenate((self._waiting, samples))
        count = (len(self._waiting) - _CONTEXT) // STEP
        found = [np.zeros(0, dtype=np.float32)]
        for first in range(0, count, _STEPS_AT_ONCE):
            last = min(first + _STEPS_AT_ONCE, count)
            part = torch.from_numpy(self._waiting[first * STEP : last * STEP + _CONTEXT])
            steps = part.unfold(0, STEP + _CONTEXT, STEP)
            gains = torch.from_numpy(self._gains(steps[:, _CONTEXT:].numpy()))
            probabilities, self._state = self.detector(steps * gains[:, None], self._state)
            found.append(probabilities.numpy())
        self._waiting = self._waiting[count * STEP :]
        return np.concatenate(found)

    def _gains(self, steps: NDArray[np.float32]) -> NDArray[np.float32]:
        """By how much each step (steps, samples) is amplified, float32 (steps,)."""
        decay = _DECAY ** np.arange(len(steps))
        loudness = np.sqrt(np.square(steps, dtype=np.float64).mean(axis=1))
        # What is pushed together is heard at one level, so that a recording does not begin with amplified hiss.
        loudest = np.maximum(loudness.max(), self._loudest * _DECAY * decay)
        self._loudest = float(max(np.max(loudness / decay) * decay[-1], self._loudest * _DECAY * decay[-1]))
        return np.asarray(np.clip(_LEVEL / np.maximum(loudest, 1e-9), 1.0, _LARGEST_GAIN), dtype=np.float32)

    def finish(self) -> NDArray[np.float32]:
        """Probability of the last step, filled up with silence; none if nothing is left."""
        rest = len(self._waiting) - _CONTEXT
        return self.push(np.zeros((STEP - rest) if rest else 0, dtype=np.float32))
