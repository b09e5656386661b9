"""The joint objective: (1 - w) * label-smoothed cross-entropy of the decoder + w * CTC (Watanabe et al. 2017).

A non-autoregressive decoder adds its own (``asr.training.masking`` or ``asr.training.realignment``), with a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from asr.audio.augmentation import SpecAugment
from asr.model.checkpoint import Checkpoint
from asr.model.recognizer import Encoded, Recognizer
from asr.search.language import heard_languages
from asr.training.encoder_cache import Lower
from asr.training.imitation import Taught, Teacher, difference, divergence
from asr.training.masking import IGNORED, MaskedRows, mask_rows, masked_loss, spoken_rates
from asr.training.realignment import realignment_loss, realigns


@dataclass(frozen=True)
class Targets:
    """Tokens of a batch.

    Attributes:
        inputs: int64 (batch, prompt + length), what the decoder reads: start tokens, then the text.
        outputs: int64, of the same shape, what it shall say next, stop token last; -100 where nothing is asked.
        lengths: int64 (batch,), tokens of the decoder's input.
        labels: int64 (sum of lengths,), the texts end to end, for CTC.
        label_lengths: int64 (batch,).
        rows: what the non-autoregressive decoder reads and is asked, where there is one; None where it reads CTC's text.
    """

    inputs: Tensor
    outputs: Tensor
    lengths: Tensor
    labels: Tensor
    label_lengths: Tensor
    rows: MaskedRows | None = None


def targets(
    texts: Sequence[Sequence[int]],
    start: Sequence[int],
    stop: int,
    padding: int,
    ctc_texts: Sequence[Sequence[int]] | None = None,
    rows: MaskedRows | None = None,
) -> Targets:
    """Teacher forcing: the decoder reads start tokens and text, and is asked for text and stop token.

    ``ctc_texts`` are the labels of a CTC head whose vocabulary is not the decoder's, ``rows`` of the second decoder.
    """
    inputs = [torch.tensor([*start, *text]) for text in texts]
    outputs = [torch.tensor([*([IGNORED] * (len(start) - 1)), *text, stop]) for text in texts]
    labels = [torch.tensor(text, dtype=torch.int64) for text in (texts if ctc_texts is None else ctc_texts)]
    return Targets(
        inputs=pad_sequence(inputs, batch_first=True, padding_value=padding),
        outputs=pad_sequence(outputs, batch_first=True, padding_value=IGNORED),
        lengths=torch.tensor([len(row) for row in inputs]),
        labels=torch.cat(labels) if labels else torch.zeros(0, dtype=torch.int64),
        label_lengths=torch.tensor([len(row) for row in labels]),
        rows=rows,
    )


def encoded_targets(
    checkpoint: Checkpoint,
    texts: Sequence[str],
    samples: Sequence[int] | Tensor,
    generator: torch.Generator | None,
    unheard: float = 0.0,
    languages: Sequence[str] = (),
) -> Targets:
    """Targets of a batch for all parts of a model.

    Args:
        checkpoint: model and tokenizers.
        texts: of the utterances.
        samples: (batch,), their lengths.
        generator: draws what the non-autoregressive decoder reads, and which tokens it does not see; without it, it sees none.
        unheard: share of the tokens that it does not hear.
        languages: codes of the utterances, the first so many of them; where a multilingual model has a token for a code, the
            decoder's prompt asks for that language.
    """
    model, tokenizer, ctc_tokenizer = checkpoint.model, checkpoint.tokenizer, checkpoint.ctc_tokenizer
    start = [tokenizer.identifier(token) for token in model.decoder.configuration.prompt] if model.decoder else []
    tokens = [tokenizer.encode(text) for text in texts]
    rows = None
    if model.nonautoregressive is not None:
        settings = model.nonautoregressive.configuration
        longest = [model.nonautoregressive.longest_text(int(count)) for count in samples]
        mask = tokenizer.identifier(settings.mask)
        if not realigns(settings.lengths, generator):
            rows = mask_rows(tokens, longest, settings, mask, tokenizer.stop, generator, unheard)
    labels = [ctc_tokenizer.encode(text) for text in texts] if ctc_tokenizer is not tokenizer else None
    wanted = targets(tokens, start, tokenizer.stop, tokenizer.blank, labels, rows)
    known = heard_languages(model.configuration, tokenizer)
    for row, code in enumerate(languages):
        if code in known:
            said = torch.tensor([token in known.values() for token in start])
            wanted.inputs[row, : len(start)][said] = known[code]
    return wanted


def moved(wanted: Targets, device: torch.device) -> Targets:
    """The same targets on another device."""
    tensors = {name: value.to(device) for name, value in vars(wanted).items() if value is not None}
    return replace(wanted, **tensors)


@dataclass(frozen=True)
class Losses:
    """Losses of a batch, float32 scalars; those of the decoders and CTC are per token. Zero where a part is missing.

    With a teacher, ``attention`` is of what it says too, and ``encoder`` the difference from its encoder's output.
    """

    total: Tensor
    attention: Tensor
    ctc: Tensor
    nonautoregressive: Tensor
    encoder: Tensor


class Objective(nn.Module):
    """A recogniser with its loss, so that data-parallel training wraps one forward pass.

    Args:
        model: what is trained.
        blank: number of CTC's blank.
        ctc_weight: share of CTC in the loss.
        label_smoothing: of the cross-entropy (Szegedy et al. 2016).
        spec_augment: masks on the features in training.
        nonautoregressive_weight: of the non-autoregressive decoder's loss, which is added to the others.
        length_weight: of its length predictor's loss in that.
        unheard: share of what is said that it does not hear.
        misread: largest share of CTC's text that it reads wrong.
        unsaid: tokens that its search does not say.
        teacher: whom the decoder and the encoder imitate where it has heard the same speech.
    """

    def __init__(
        self,
        model: Recognizer,
        blank: int,
        ctc_weight: float,
        label_smoothing: float,
        spec_augment: SpecAugment | None = None,
        nonautoregressive_weight: float = 1.0,
        length_weight: float = 0.1,
        unheard: float = 0.0,
        misread: float = 0.0,
        unsaid: Sequence[int] = (),
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.blank = blank
        self.ctc_weight = ctc_weight
        self.label_smoothing = label_smoothing
        self.spec_augment = spec_augment
        self.nonautoregressive_weight = nonautoregressive_weight
        self.length_weight = length_weight
        self.unheard = unheard
        self.misread = misread
        self.unsaid = unsaid
        self.teacher = teacher

    def forward(
        self,
        waveforms: Tensor | None,
        lengths: Tensor | None,
        targets: Targets,
        generator: torch.Generator | None = None,
        lower: Lower | None = None,
        undisturbed: Tensor | None = None,
    ) -> Losses:
        """Loss of a padded batch of waveforms float32 (batch, samples) with ``lengths`` in samples.

        ``generator`` draws SpecAugment's masks; without it, or in evaluation, features are left as they are.
        ``lower`` is what the encoder's frozen layers say, where it is known already; nothing else is heard then.
        ``undisturbed`` is what the teacher hears, of the shape of ``waveforms``.
        """
        if lower is not None:
            encoded = Encoded(*self.model.encoder.upper(lower.values, lower.lengths, lower.layers))
            return self.losses(encoded, targets, generator)
        assert waveforms is not None, "there is nothing to hear"
        assert lengths is not None
        with torch.no_grad(), torch.autocast(waveforms.device.type, enabled=False):
            features, frames = self.model.features(waveforms, lengths)
            if self.training and self.spec_augment is not None and generator is not None:
                features = self.spec_augment(features, frames, generator)
        taught = None
        if self.teacher is not None and undisturbed is not None:
            taught = self.teacher(undisturbed, lengths, targets.inputs, targets.lengths)
        return self.losses(self.model.encode_features(features, frames), targets, generator, taught)

    def losses(
        self, encoded: Encoded, targets: Targets, generator: torch.Generator | None = None, taught: Taught | None = None
    ) -> Losses:
        """Loss of the encoder's output against the targets and what the teacher says of them.

        ``generator`` draws what the second decoder reads wrong.
        """
        attention = ctc = masked = apart = torch.zeros((), device=encoded.values.device)
        spoken = None
        if self.model.decoder is not None and self.ctc_weight < 1:
            logits = self.model.decoder(targets.inputs, encoded.values, encoded.lengths, token_lengths=targets.lengths)
            asked = targets.outputs != IGNORED
            # Only where something is asked: a vocabulary's worth of scores for each padded position is not small.
            scores = logits[asked].float()
            told = F.cross_entropy(scores, targets.outputs[asked], label_smoothing=self.label_smoothing, reduction="none")
            if taught is not None:
                # Where nobody speaks there is a right answer, and the teacher may not know it.
                spoken_of = (asked & (asked.sum(1, keepdim=True) > 1))[asked]
                told = told.lerp(divergence(scores, taught.logits[asked]), taught.share * spoken_of)
            attention = told.mean()
        second = self.model.nonautoregressive if self.nonautoregressive_weight > 0 else None
        realigned = second is not None and targets.rows is None
        log_probabilities = None
        if self.model.ctc is not None and (self.ctc_weight > 0 or realigned):
            log_probabilities = self.model.ctc_log_probabilities(encoded)
        if log_probabilities is not None and self.ctc_weight > 0:
            with torch.autocast(encoded.values.device.type, enabled=False):
                total = F.ctc_loss(
                    log_probabilities.transpose(0, 1).float(),
                    targets.labels,
                    encoded.lengths,
                    targets.label_lengths,
                    blank=self.blank,
                    reduction="sum",
                )
            ctc = total / targets.label_lengths.sum().clamp(min=1)
            if targets.rows is not None and self.model.configuration.ctc_characters is None:
                spoken = spoken_rates(log_probabilities, encoded.lengths, targets.labels, targets.label_lengths, self.blank)
        weight = self.ctc_weight
        if self.model.decoder is None:
            # What is not autoregressive has nothing to share with.
            weight = 1.0
        elif self.model.ctc is None:
            weight = 0.0
        total = (1 - weight) * attention + weight * ctc
        if second is not None and targets.rows is not None:
            masked = masked_loss(second, encoded, targets.rows, self.label_smoothing, self.length_weight, spoken)
        elif second is not None and log_probabilities is not None:
            masked = realignment_loss(
                second,
                encoded,
                log_probabilities,
                targets.labels,
                targets.label_lengths,
                self.blank,
                self.unsaid,
                generator,
                self.misread,
                self.unheard,
            )
        if second is not None:
            total = total + self.nonautoregressive_weight * masked
        if taught is not None and taught.encoder_weight:
            apart = difference(encoded, taught.encoded)
            total = total + taught.encoder_weight * apart
        return Losses(total, attention, ctc, masked, apart)


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
