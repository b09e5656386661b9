"""Text to encoder: what the encoder would say of a sentence that nobody has spoken (T. Hayashi et al. 2018,
"Back-translation-style data augmentation for end-to-end ASR").

A decoder learns to spell, and which of many words that sound alike is meant, from far more text than can be recorded or
synthesised. Between a text and the decoder there is only what the encoder makes of speech: 50 vectors a second. A small network
of convolutions says which ones, given the sounds, how long each lasts and whose voice it is. It sees as much to both sides as
sounds colour each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from asr import configuration
from asr.configuration import StrictModel
from asr.exceptions import CheckpointError
from asr.model import checkpoint as folders
from asr.model.layers import length_mask, sinusoids

SILENCE = ""
"""The unit that is no sound; it is the first of the units."""
VOICE_NOISE = 0.3
"""Deviation of what is added to a voice, whose numbers are between -1 and 1: they shall not say what was spoken."""
_LONGEST_SOUND = 25.0  # positions
_SHORTEST_SOUND = 0.5


class NetworkConfiguration(StrictModel):
    """Size of a text-to-encoder network."""

    width: int = Field(384, ge=2, multiple_of=2)
    layers: int = Field(6, ge=1)
    kernel: int = Field(17, ge=1, description="positions that a convolution sees, an odd number")
    duration_width: int = Field(192, ge=1)
    duration_layers: int = Field(3, ge=1)
    duration_kernel: int = Field(9, ge=1, description="sounds that a convolution sees, an odd number")
    voice: int = Field(8, ge=1, description="numbers that say whose voice it is")

    @field_validator("kernel", "duration_kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"{kernel} is even; a convolution sees as much on both sides")
        return kernel


class TextToEncoderConfiguration(NetworkConfiguration):
    """The network, as ``config.yaml`` of its folder has it."""

    kind: Literal["text_to_encoder"] = "text_to_encoder"
    language: Literal["en", "zh"]
    encoder: str = Field(description="fingerprint of the encoder that is imitated, up to ``encoder_layers``")
    encoder_layers: int = Field(ge=1, description="how many layers of it are imitated, from the features up")
    positions_per_second: float = Field(50.0, gt=0, description="of this encoder")
    units: tuple[str, ...] = Field(min_length=2, description="silence, then the sounds")
    output: int = Field(ge=1, description="width of the encoder")
    voices: int = Field(1, ge=1, description="utterances whose voices are kept")
    residuals: int = Field(1, ge=1, description="positions of utterances that are kept")
    segments: int = Field(1, ge=1, description="units of these")


@dataclass(frozen=True)
class Sounds:
    """Which unit each position of an utterance is in.

    Attributes:
        units: int64 (positions,).
        occurrences: int64 (positions,), which of the sentence's units, from 0.
        places: float32 (positions, 3): how much of the unit is over, how long it is, how long it has been.
    """

    units: Tensor
    occurrences: Tensor
    places: Tensor


def lay_out(units: Sequence[int], durations: Sequence[float]) -> Sounds:
    """Units one after another, each as many positions long as its duration says; positions are where their middle is."""
    lengths = torch.tensor(durations, dtype=torch.float32)
    ends = lengths.cumsum(0)
    middles = torch.arange(max(round(float(ends[-1])), 1)) + 0.5
    index = torch.searchsorted(ends, middles).clamp(max=len(units) - 1)
    length = lengths[index].clamp(min=0.1)
    since = middles - (ends - lengths)[index]
    places = torch.stack(((since / length).clamp(0, 1), (length / 5).clamp(max=3), since.clamp(0, 20) / 5), dim=-1)
    return Sounds(torch.tensor(units)[index], index, places)


class TextToEncoder(nn.Module):
    """Sounds in, the encoder's output out.

    It knows the encoder's output by the mean and deviation of each feature. Beside its weights it keeps what a decoder should
    be prepared for: ``voices`` (utterances, output), means of utterances; ``residuals`` (positions, output), what the network
    did not explain of utterances, one after another, and ``segments`` int64 (segments, 3), which unit begins and ends where in
    them; ``confusions`` (units, units), how often a unit is heard for another.
    """

    mean: Tensor
    deviation: Tensor
    voices: Tensor
    residuals: Tensor
    segments: Tensor
    confusions: Tensor

    def __init__(self, settings: TextToEncoderConfiguration) -> None:
        super().__init__()
        self.configuration = settings
        units = len(settings.units)
        self.unit_embedding = nn.Embedding(units, settings.width)
        self.place = nn.Linear(3, settings.width)
        self.position = nn.Linear(settings.width, settings.width)
        self.voice = nn.Sequential(nn.Linear(settings.output, settings.voice), nn.Tanh())
        self.spoken_by = nn.Linear(settings.voice, settings.width)
        self.blocks = nn.ModuleList(_Block(settings.width, settings.kernel) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.width)
        self.output = nn.Linear(settings.width, settings.output)
        self.duration_embedding = nn.Embedding(units, settings.duration_width)
        self.lasting_by = nn.Linear(settings.voice, settings.duration_width)
        self.duration_blocks = nn.ModuleList(
            _Block(settings.duration_width, settings.duration_kernel) for _ in range(settings.duration_layers)
        )
        self.duration = nn.Linear(settings.duration_width, 1)
        self.register_buffer("mean", torch.zeros(settings.output))
        self.register_buffer("deviation", torch.ones(settings.output))
        self.register_buffer("voices", torch.zeros(settings.voices, settings.output))
        self.register_buffer("residuals", torch.zeros(settings.residuals, settings.output))
        self.register_buffer("segments", torch.zeros(settings.segments, 3, dtype=torch.int64))
        self.register_buffer("confusions", torch.eye(units))

    def forward(self, units: Tensor, places: Tensor, lengths: Tensor, voice: Tensor) -> Tensor:
        """Predict the encoder's output in deviations from its mean.

        Args:
            units: int64 (batch, positions), padded.
            places: float32 (batch, positions, 3), of ``Sounds``.
            lengths: int64 (batch,), positions.
            voice: (batch, voice), of ``self.voice``.

        Returns:
            (batch, positions, output).
        """
        mask = length_mask(lengths, units.shape[1])[..., None]
        where = self.position(sinusoids(units.shape[1], self.configuration.width, device=units.device))
        hidden = self.unit_embedding(units) + self.place(places) + self.spoken_by(voice)[:, None] + where
        for block in self.blocks:
            hidden = block(hidden, mask)
        return cast(Tensor, self.output(self.norm(hidden)))

    def log_durations(self, units: Tensor, lengths: Tensor, voice: Tensor) -> Tensor:
        """Logarithm of half a position more than each unit lasts, (batch, units); arguments as of ``forward``."""
        mask = length_mask(lengths, units.shape[1])[..., None]
        hidden = self.duration_embedding(units) + self.lasting_by(voice)[:, None]
        for block in self.duration_blocks:
            hidden = block(hidden, mask)
        return cast(Tensor, self.duration(hidden)[..., 0])

    @torch.no_grad()
    def durations(self, sentences: Sequence[Sequence[int]], voice: Tensor) -> list[list[float]]:
        """Positions that each unit of each sentence lasts in a voice (batch, voice)."""
        units, lengths = padded([torch.tensor(sentence) for sentence in sentences])
        found = (self.log_durations(units, lengths, voice).float().exp() - 0.5).clamp(_SHORTEST_SOUND, _LONGEST_SOUND)
        return [row[: len(sentence)] for row, sentence in zip(found.tolist(), sentences, strict=True)]

    @torch.no_grad()
    def speak(self, sounds: Sequence[Sounds], voice: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's output in deviations from its mean, (batch, positions, output), and lengths int64 (batch,)."""
        units, lengths = padded([each.units for each in sounds])
        places, _ = padded([each.places for each in sounds])
        return self(units, places, lengths, voice).float(), lengths


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows one below the other with zeros behind the shorter ones, and their lengths int64 (rows,)."""
    return pad_sequence(list(rows), batch_first=True), torch.tensor([len(row) for row in rows])


class _Block(nn.Module):
    """A gated convolution of each feature for itself and a feed-forward, both with a residual; padding is not seen."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.project = nn.Linear(width, width)
        self.second_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        hidden = F.glu(self.gate(self.norm(inputs)), dim=-1) * mask
        hidden = self.convolution(hidden.transpose(1, 2)).transpose(1, 2)
        inputs = inputs + self.project(F.silu(hidden))
        return inputs + cast(Tensor, self.feed_forward(self.second_norm(inputs)))


def save(model: TextToEncoder, folder: Path, card: str) -> None:
    """Write a folder: ``model.safetensors`` in float16, ``config.yaml`` and the card."""
    folders.save_model(model, folder, card, "float16")


def load(folder: Path) -> TextToEncoder:
    """Read what ``save`` wrote, for evaluation.

    Raises:
        CheckpointError: the folder is not of this kind, or its files do not fit each other.
        ConfigurationError: the configuration is not valid.
    """
    folders.check_files(folder, tokens=False)
    if folders.kind(folder) != "text_to_encoder":
        raise CheckpointError(f"{folder}: is no text-to-encoder network; give a folder that asr train-text-to-encoder wrote.")
    settings = configuration.load(folder / folders.CONFIGURATION, TextToEncoderConfiguration)
    model = folders.filled(folder, lambda: TextToEncoder(settings)).eval()
    model.segments = model.segments.long()
    return model
