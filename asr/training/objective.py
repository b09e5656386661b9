"""The joint objective: (1 - w) * label-smoothed cross-entropy of the decoder + w * CTC (Watanabe et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from asr.audio.augmentation import SpecAugment
from asr.model.checkpoint import Checkpoint
from asr.model.recognizer import Encoded, Recognizer

_IGNORED = -100


@dataclass(frozen=True)
class Targets:
    """Tokens of a batch.

    Attributes:
        inputs: int64 (batch, prompt + length), what the decoder reads: start tokens, then the text.
        outputs: int64, of the same shape, what it shall say next, stop token last; -100 where nothing is asked.
        lengths: int64 (batch,), tokens of the decoder's input.
        labels: int64 (sum of lengths,), the texts end to end, for CTC.
        label_lengths: int64 (batch,).
    """

    inputs: Tensor
    outputs: Tensor
    lengths: Tensor
    labels: Tensor
    label_lengths: Tensor


def targets(
    texts: Sequence[Sequence[int]],
    start: Sequence[int],
    stop: int,
    padding: int,
    ctc_texts: Sequence[Sequence[int]] | None = None,
) -> Targets:
    """Teacher forcing: the decoder reads start tokens and text, and is asked for text and stop token.

    ``ctc_texts`` are the labels of a CTC head whose vocabulary is not the decoder's.
    """
    inputs = [torch.tensor([*start, *text]) for text in texts]
    outputs = [torch.tensor([*([_IGNORED] * (len(start) - 1)), *text, stop]) for text in texts]
    labels = [torch.tensor(text, dtype=torch.int64) for text in (texts if ctc_texts is None else ctc_texts)]
    return Targets(
        inputs=pad_sequence(inputs, batch_first=True, padding_value=padding),
        outputs=pad_sequence(outputs, batch_first=True, padding_value=_IGNORED),
        lengths=torch.tensor([len(row) for row in inputs]),
        labels=torch.cat(labels) if labels else torch.zeros(0, dtype=torch.int64),
        label_lengths=torch.tensor([len(row) for row in labels]),
    )


def encoded_targets(checkpoint: Checkpoint, texts: Sequence[str]) -> Targets:
    """Targets of a batch of texts for a model's decoder and its CTC head."""
    tokenizer, ctc_tokenizer = checkpoint.tokenizer, checkpoint.ctc_tokenizer
    decoder = checkpoint.model.decoder
    start = [tokenizer.identifier(token) for token in decoder.configuration.prompt] if decoder else []
    return targets(
        [tokenizer.encode(text) for text in texts],
        start,
        tokenizer.stop,
        tokenizer.blank,
        [ctc_tokenizer.encode(text) for text in texts] if ctc_tokenizer is not tokenizer else None,
    )


def moved(wanted: Targets, device: torch.device) -> Targets:
    """The same targets on another device."""
    return Targets(*(value.to(device) for value in vars(wanted).values()))


@dataclass(frozen=True)
class Losses:
    """Losses of a batch, float32 scalars; ``attention`` and ``ctc`` are per token, zero where the part is missing."""

    total: Tensor
    attention: Tensor
    ctc: Tensor


class Objective(nn.Module):
    """A recogniser with its loss, so that data-parallel training wraps one forward pass.

    Args:
        model: what is trained.
        blank: number of CTC's blank.
        ctc_weight: share of CTC in the loss.
        label_smoothing: of the cross-entropy (Szegedy et al. 2016).
        spec_augment: masks on the features in training.
    """

    def __init__(
        self,
        model: Recognizer,
        blank: int,
        ctc_weight: float,
        label_smoothing: float,
        spec_augment: SpecAugment | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.blank = blank
        self.ctc_weight = ctc_weight
        self.label_smoothing = label_smoothing
        self.spec_augment = spec_augment

    def forward(self, waveforms: Tensor, lengths: Tensor, targets: Targets, generator: torch.Generator | None = None) -> Losses:
        """Loss of a padded batch of waveforms float32 (batch, samples) with ``lengths`` in samples.

        ``generator`` draws SpecAugment's masks; without it, or in evaluation, features are left as they are.
        """
        with torch.no_grad(), torch.autocast(waveforms.device.type, enabled=False):
            features, frames = self.model.features(waveforms, lengths)
            if self.training and self.spec_augment is not None and generator is not None:
                features = self.spec_augment(features, frames, generator)
        return self.losses(self.model.encode_features(features, frames), targets)

    def losses(self, encoded: Encoded, targets: Targets) -> Losses:
        """Loss of the encoder's output against the targets."""
        attention = ctc = torch.zeros((), device=encoded.values.device)
        if self.model.decoder is not None and self.ctc_weight < 1:
            logits = self.model.decoder(targets.inputs, encoded.values, encoded.lengths, token_lengths=targets.lengths)
            asked = targets.outputs != _IGNORED
            # Only where something is asked: a vocabulary's worth of scores for each padded position is not small.
            attention = F.cross_entropy(logits[asked].float(), targets.outputs[asked], label_smoothing=self.label_smoothing)
        if self.model.ctc is not None and self.ctc_weight > 0:
            log_probabilities = self.model.ctc_log_probabilities(encoded).transpose(0, 1)
            with torch.autocast(encoded.values.device.type, enabled=False):
                total = F.ctc_loss(
                    log_probabilities.float(),
                    targets.labels,
                    encoded.lengths,
                    targets.label_lengths,
                    blank=self.blank,
                    reduction="sum",
                )
            ctc = total / targets.label_lengths.sum().clamp(min=1)
        if self.model.decoder is None:
            return Losses(ctc, attention, ctc)
        if self.model.ctc is None:
            return Losses(attention, attention, ctc)
        return Losses((1 - self.ctc_weight) * attention + self.ctc_weight * ctc, attention, ctc)


def fits(
    positions: int, labels: Sequence[int], maximum_length: int | None, prompt: int, tokens: Sequence[int] | None = None
) -> bool:
    """Whether a text can be aligned to so many encoder positions and be read by the decoder.

    ``labels`` are what CTC aligns; ``tokens`` are what the decoder reads, where these are others.

    CTC needs a position for each token and a blank between equal neighbours; without that its loss is infinite.
    """
    repeated = sum(first == second for first, second in pairwise(labels))
    if len(labels) + repeated > positions:
        return False
    return maximum_length is None or len(labels if tokens is None else tokens) + prompt <= maximum_length
