"""The recogniser: front end, encoder, decoders and CTC head under one configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asr.audio.features import Filterbank
from asr.audio.files import SAMPLE_RATE
from asr.model.configuration import ModelConfiguration
from asr.model.decoder import Decoder
from asr.model.encoder import Encoder
from asr.model.nonautoregressive import NonautoregressiveDecoder
from asr.text.tokenizer import CharacterTokenizer


@dataclass(frozen=True)
class Encoded:
    """The encoder's output: values (batch, positions, width) and lengths int64 (batch,)."""

    values: Tensor
    lengths: Tensor


class Recognizer(nn.Module):
    """Waveforms in, scores of tokens out.

    Args:
        configuration: the whole model.
        vocabulary: number of tokens.
    """

    def __init__(self, configuration: ModelConfiguration, vocabulary: int) -> None:
        super().__init__()
        self.configuration = configuration
        self.vocabulary = vocabulary
        width = configuration.encoder.width
        self.front_end = Filterbank(configuration.front_end)
        self.encoder = Encoder(configuration.encoder, configuration.front_end.mels)
        self.decoder = Decoder(configuration.decoder, width, vocabulary) if configuration.decoder else None
        second = configuration.nonautoregressive
        self.nonautoregressive = NonautoregressiveDecoder(second, width, vocabulary) if second else None
        own = configuration.ctc_characters
        ctc_vocabulary = vocabulary if own is None else len(CharacterTokenizer.of(own))
        self.ctc = nn.Linear(width, ctc_vocabulary) if configuration.ctc else None

    def features(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Filterbank features of a padded batch, with the silence that the encoder expects after each utterance.

        Args:
            waveforms: float32 (batch, samples), 16 kHz.
            lengths: int64 (batch,), samples.

        Returns:
            float32 (batch, frames, mels) and lengths int64 (batch,).
        """
        encoder = self.configuration.encoder
        if encoder.minimum_seconds or encoder.trailing_seconds:
            inside = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]
            waveforms = waveforms * inside
            lengths = lengths + round(encoder.trailing_seconds * SAMPLE_RATE)
            lengths = lengths.clamp(min=round(encoder.minimum_seconds * SAMPLE_RATE))
            missing = int(lengths.max()) - waveforms.shape[1]
            waveforms = nn.functional.pad(waveforms, (0, max(missing, 0)))
        features, frames = self.front_end(waveforms, lengths)
        return features, frames

    def encode(self, waveforms: Tensor, lengths: Tensor) -> Encoded:
        """Waveforms float32 (batch, samples) with lengths int64 (batch,) in samples -> the encoder's output."""
        return self.encode_features(*self.features(waveforms, lengths))

    def encode_features(self, features: Tensor, lengths: Tensor, weights: list[Tensor] | None = None) -> Encoded:
        """Features (batch, frames, mels) with lengths in frames -> the encoder's output.

        Each layer's self-attention (batch, heads, positions, positions) is added to ``weights`` if given.
        """
        features = features.to(next(self.encoder.parameters()).dtype)
        if torch.is_grad_enabled() or not features.is_cpu or weights is not None or not len(features):
            return Encoded(*self.encoder(features, lengths, weights))
        # On a processor one after another, without padding: an utterance is computed alike in any batch.
        frames = lengths.tolist()
        parts = [
            self.encoder(features[row : row + 1, : max(count, 1)], lengths[row : row + 1]) for row, count in enumerate(frames)
        ]
        most = max(values.shape[1] for values, _ in parts)
        padded = [nn.functional.pad(values, (0, 0, 0, most - values.shape[1])) for values, _ in parts]
        return Encoded(torch.cat(padded), torch.cat([positions for _, positions in parts]))

    def ctc_log_probabilities(self, encoded: Encoded) -> Tensor:
        """Log-probabilities of each token of the CTC head at each position, float32 (batch, positions, tokens)."""
        assert self.ctc is not None, "the model has no CTC head"
        logits: Tensor = self.ctc(encoded.values)
        return logits.float().log_softmax(dim=-1)

    def silence_ctc(self, blank: int) -> None:
        """Let a new CTC head on a trained encoder say blank everywhere and ask nothing of the encoder at first.

        A random head's loss is large, and so is its gradient: it would undo what the encoder knows before it learns
        anything itself.
        """
        assert self.ctc is not None, "the model has no CTC head"
        with torch.no_grad():
            self.ctc.weight.zero_()
            self.ctc.bias.zero_()
            self.ctc.bias[blank] = math.log(10 * self.ctc.out_features)

    def positions(self, seconds: float) -> int:
        """Encoder positions of an utterance of so many seconds."""
        encoder = self.configuration.encoder
        seconds = max(seconds + encoder.trailing_seconds, encoder.minimum_seconds)
        frames = self.front_end.frames(torch.tensor(round(seconds * SAMPLE_RATE)))
        return int(self.encoder.positions(frames))

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each part, counted before weights are brought to eight bits."""
        with torch.device("meta"):
            whole = Recognizer(self.configuration, self.vocabulary)
        parts = {
            "encoder": whole.encoder,
            "decoder": whole.decoder,
            "nonautoregressive": whole.nonautoregressive,
            "ctc": whole.ctc,
        }
        return {
            name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items() if part is not None
        }
