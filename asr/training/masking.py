"""The non-autoregressive decoder's objective: a conditional masked language model (Ghazvininejad et al. 2019, section 2.2).

Of each text a number of tokens drawn from 1 to all is hidden, and the decoder is asked for these, seeing the others. So it
learns both what the search asks first, everything at once, and what it asks later, the few that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.model.configuration import NonautoregressiveConfiguration
from asr.model.nonautoregressive import NonautoregressiveDecoder, rates_around
from asr.model.recognizer import Encoded
from asr.search.ctc import spikes

IGNORED = -100
_UNHEARD_RUN = 4  # tokens in a row whose sound is taken away: of one alone the encoder's neighbours say much


@dataclass(frozen=True)
class MaskedRows:
    """Rows of a batch.

    Attributes:
        inputs: int64 (batch, length), what the decoder sees: tokens, and the mask where they are hidden.
        outputs: int64, of the same shape: the hidden tokens; -100 where nothing is asked.
        lengths: int64 (batch,), of each row.
        texts: int64 (batch,), tokens of each text, without the stop token.
        known: bool (batch,), whether the length is known, so that the row ends with the text's stop token.
        unheard: bool (batch, length), tokens whose sound the decoder is not given.
    """

    inputs: Tensor
    outputs: Tensor
    lengths: Tensor
    texts: Tensor
    known: Tensor
    unheard: Tensor

    def to(self, device: torch.device) -> MaskedRows:
        """The same rows on another device."""
        return MaskedRows(*(value.to(device) for value in vars(self).values()))


def mask_rows(
    texts: Sequence[Sequence[int]],
    longest: Sequence[int],
    configuration: NonautoregressiveConfiguration,
    mask: int,
    stop: int,
    generator: torch.Generator | None,
    unheard: float = 0.0,
) -> MaskedRows:
    """Draw what is hidden of each text.

    Args:
        texts: tokens, without start and stop.
        longest: most tokens that each text could have, which makes the row where the length is not known.
        configuration: its ``lengths`` say which kinds of rows there are; each text becomes one, drawn at random.
        mask: token that hides another.
        stop: the stop token.
        generator: draws; without it everything is hidden, as in the first pass of the search, and the kind of row is
            that of the first of ``lengths``.
        unheard: share of the tokens whose sound is taken away, in runs of ``_UNHEARD_RUN``. An encoder that knows its
            training speech by heart leaves nothing to learn from the other tokens otherwise. None without a generator.
    """
    kinds = sorted({way != "row" for way in configuration.lengths if way != "alignment"})
    inputs, outputs, known, silent = [], [], [], []
    for text, bound in zip(texts, longest, strict=True):
        is_known = configuration.lengths[0] != "row"
        if generator is not None:
            is_known = kinds[int(torch.randint(len(kinds), (), generator=generator))]
        size = len(text) if is_known else max(bound, len(text)) + 1
        row = torch.full((size + is_known,), stop, dtype=torch.int64)
        row[: len(text)] = torch.tensor(text, dtype=torch.int64)
        hidden = torch.zeros(len(row), dtype=torch.bool)
        if generator is None or size == 0:
            hidden[:size] = True
        else:
            count = int(torch.randint(1, size + 1, (), generator=generator))
            hidden[torch.randperm(size, generator=generator)[:count]] = True
        inputs.append(row.masked_fill(hidden, mask))
        outputs.append(row.masked_fill(~hidden, IGNORED))
        known.append(is_known)
        quiet = torch.zeros(len(row), dtype=torch.bool)
        if generator is not None and unheard > 0:
            for start in (torch.rand(len(text), generator=generator) < unheard / _UNHEARD_RUN).nonzero().flatten().tolist():
                quiet[start : min(start + _UNHEARD_RUN, len(text))] = True
        silent.append(quiet)
    return MaskedRows(
        inputs=pad_sequence(inputs, batch_first=True, padding_value=stop),
        outputs=pad_sequence(outputs, batch_first=True, padding_value=IGNORED),
        lengths=torch.tensor([len(row) for row in inputs]),
        texts=torch.tensor([len(text) for text in texts]),
        known=torch.tensor(known),
        unheard=pad_sequence(silent, batch_first=True),
    )


def without_sound(values: Tensor, spoken: Tensor, unheard: Tensor) -> Tensor:
    """The encoder's output (batch, positions, width) with zeros where an ``unheard`` token is said.

    Args:
        values: the encoder's output.
        spoken: how much of a token each position holds, (batch, positions); each token has its positions to itself.
        unheard: bool (batch, tokens).
    """
    tokens = (spoken.cumsum(dim=1) - spoken / 2).floor().long().clamp(max=unheard.shape[1] - 1)
    return values.masked_fill((unheard.gather(1, tokens) & (spoken > 0))[..., None], 0.0)


def spoken_rates(log_probabilities: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor, blank: int) -> Tensor:
    """How much of a token each position holds by CTC's alignment of the text, float32 (batch, positions); no gradient.

    Args:
        log_probabilities: of the CTC head, (batch, positions, tokens).
        lengths: int64 (batch,), positions of each utterance.
        labels: int64 (sum of lengths,), the texts end to end; each fits into its positions.
        label_lengths: int64 (batch,).
        blank: the blank token.
    """
    from torchaudio.functional import forced_align

    log_probabilities = log_probabilities.detach().float().cpu()
    rates = torch.zeros(log_probabilities.shape[:2])
    texts = torch.split(labels.cpu(), label_lengths.tolist())
    for row, (text, length) in enumerate(zip(texts, lengths.tolist(), strict=True)):
        if len(text):
            path, scores = forced_align(log_probabilities[row : row + 1, :length], text[None].int(), blank=blank)
            places = [spike.place for spike in spikes(path[0].tolist(), scores[0].tolist(), blank)]
            rates[row, :length] = rates_around(places, length)
    return rates.to(lengths.device)


def masked_loss(
    decoder: NonautoregressiveDecoder,
    encoded: Encoded,
    rows: MaskedRows,
    label_smoothing: float,
    length_weight: float,
    spoken: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the hidden tokens, and ``length_weight`` times that of the texts' lengths; a float32 scalar.

    ``spoken``, the result of ``spoken_rates``, says where the tokens are; the length predictor learns to say the same.
    Without it the decoder is given the predictor's own guess, and hears all tokens.
    """
    rates = acoustic = None
    heard = encoded.values if spoken is None else without_sound(encoded.values, spoken, rows.unheard)
    if decoder.length_predictor is not None:
        rates = decoder.length_predictor.rates(encoded.values, encoded.lengths)
        if decoder.acoustic is not None and spoken is not None:
            acoustic = decoder.acoustic_embedding(heard, spoken, rows.inputs.shape[1], None)
        elif decoder.acoustic is not None:
            # Where the length is not known, neither is what the rates should sum up to.
            wanted = torch.where(rows.known, rows.texts, rates.detach().sum(dim=1))
            acoustic = decoder.acoustic_embedding(encoded.values, rates, rows.inputs.shape[1], wanted)
    logits = decoder(rows.inputs, rows.lengths, heard, encoded.lengths, acoustic=acoustic)
    asked = rows.outputs != IGNORED
    # Texts without a token ask for nothing; the sum keeps the graph and is 0 then.
    loss = F.cross_entropy(logits[asked].float(), rows.outputs[asked], label_smoothing=label_smoothing, reduction="sum")
    loss = loss / asked.sum().clamp(min=1)
    if decoder.length_predictor is not None and rates is not None:
        log_probabilities = decoder.length_predictor(rates)
        longest = rows.texts.clamp(max=decoder.length_predictor.maximum)
        loss = loss + length_weight * F.nll_loss(log_probabilities, longest)
        if spoken is not None:
            apart = (rates - spoken).abs().sum(dim=1) / rows.texts.clamp(min=1)
            loss = loss + length_weight * apart.mean()
    return loss
