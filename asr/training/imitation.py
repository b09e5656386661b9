"""Imitation: a teacher hears speech as it was spoken, the model hears it disturbed and learns to say what the teacher says.

Teacher-student learning over pairs of clean and disturbed speech (J. Li et al., "Large-scale domain adaptation via
teacher-student learning", Interspeech 2017). Where the teacher is what the model was before, it learns of noise without
learning new habits from the few voices that it is taught with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from asr import pretrained
from asr.exceptions import ConfigurationError
from asr.model import checkpoint as model_folder
from asr.model.checkpoint import Checkpoint
from asr.model.layers import length_mask
from asr.model.recognizer import Encoded
from asr.training.configuration import ImitationConfiguration


@dataclass(frozen=True)
class Taught:
    """What a teacher says of a batch.

    Attributes:
        encoded: its encoder's output.
        logits: float32 (batch, length, vocabulary), of the successor of each token that the decoder reads.
        share: part of the decoder's loss that asks for them.
        encoder_weight: of the difference from ``encoded``.
    """

    encoded: Encoded
    logits: Tensor
    share: float
    encoder_weight: float


class Teacher:
    """A model that is not trained. No module, so that it is no part of what is: it has no gradient and is not stored.

    Args:
        checkpoint: the teacher.
        settings: what of it is imitated, and how much it counts.
    """

    def __init__(self, checkpoint: Checkpoint, settings: ImitationConfiguration) -> None:
        self._model = checkpoint.model.eval().requires_grad_(False)
        self._settings = settings

    @classmethod
    def load(cls, settings: ImitationConfiguration, pupil: Checkpoint, device: torch.device | str) -> Teacher:
        """The teacher of a model.

        Raises:
            CheckpointError: there is no such teacher.
            ConfigurationError: teacher or model has no decoder, or they do not hear or write alike.
        """
        teacher = model_folder.load(pretrained.find(settings.teacher), device)
        own, other = pupil.model.configuration, teacher.model.configuration
        if own.decoder is None or other.decoder is None:
            raise ConfigurationError(f"training.imitation: {settings.teacher} and the model both need an autoregressive decoder.")
        alike = {
            "tokens": pupil.tokenizer.tokens == teacher.tokenizer.tokens,
            "front_end": own.front_end == other.front_end,
            # The texts that fit the model must fit the teacher.
            "decoder.maximum_length": own.decoder.maximum_length <= other.decoder.maximum_length,
        }
        # What decides which position hears what, and how wide that is where it is compared.
        for key in ("stem", "minimum_seconds", "trailing_seconds", *(["width"] if settings.encoder_weight else [])):
            alike[f"encoder.{key}"] = getattr(own.encoder, key) == getattr(other.encoder, key)
        if unlike := ", ".join(key for key, same in alike.items() if not same):
            raise ConfigurationError(
                f"training.imitation: {settings.teacher} does not fit the model, it differs in {unlike}; give a model of the "
                "same kind, as that which the run is initialised from."
            )
        return cls(teacher, settings)

    @torch.no_grad()
    def __call__(self, waveforms: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> Taught:
        """What it says of waveforms float32 (batch, samples), where the decoder reads ``tokens`` int64 (batch, length)."""
        with torch.autocast(waveforms.device.type, enabled=False):
            features, frames = self._model.features(waveforms, lengths)
        # The batch at once, and not utterance by utterance as where nothing is trained.
        encoded = Encoded(*self._model.encoder(features, frames))
        assert self._model.decoder is not None
        logits = self._model.decoder(tokens, encoded.values, encoded.lengths, token_lengths=token_lengths)
        return Taught(encoded, logits, self._settings.share, self._settings.encoder_weight)


def divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence of each prediction from the wanted one, nats (tokens,).

    Both are (tokens, vocabulary), before softmax.
    """
    wanted, own = (each.float().log_softmax(-1) for each in (wanted, logits))
    return F.kl_div(own, wanted, log_target=True, reduction="none").sum(-1)


def difference(encoded: Encoded, wanted: Encoded) -> Tensor:
    """Mean square of the difference of two encoders' outputs, in shares of the variance of the wanted one in the batch."""
    valid = length_mask(wanted.lengths, wanted.values.shape[1])
    own, other = (each.values[valid].float() for each in (encoded, wanted))
    return (own - other).square().mean() / other.var(0, unbiased=False).mean().clamp(min=1e-12)
