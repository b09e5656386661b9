"""The non-autoregressive decoder's objective where it writes CTC's text anew (Align-Refine, Chi et al. 2021).

It reads the rows that the search makes of CTC's greedy path, with mistakes put in, and what it says at their places is
compared with the text as CTC's path is: over all ways of writing the text in so many places.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from asr.model.configuration import LengthWay
from asr.model.nonautoregressive import NonautoregressiveDecoder
from asr.model.recognizer import Encoded
from asr.search.ctc import ctc_texts
from asr.search.realignment import SURE, AlignmentRows, alignment_rows, rewritten

_UNHEARD_RUN = 8  # places of a row, some five tokens and the blanks between them
# CTC puts in less than it leaves out or takes for another.
_PUT_IN = 0.3
# Of the batches this share reads what the decoder itself has written of CTC's text, as later passes do.
_OWN = 0.25
# Half of them have no blank between tokens that are surer than 1 less a share of this.
_UNSURE = 0.1


def realigns(ways: Sequence[LengthWay], generator: torch.Generator | None) -> bool:
    """Whether a batch is for this objective, half of them where there are other ways too; without a generator the first's."""
    if generator is None:
        return ways[0] == "alignment"
    if set(ways) == {"alignment"}:
        return True
    return "alignment" in ways and bool(torch.rand((), generator=generator) < 0.5)


def realignment_loss(
    decoder: NonautoregressiveDecoder,
    encoded: Encoded,
    log_probabilities: Tensor,
    labels: Tensor,
    label_lengths: Tensor,
    blank: int,
    never: Sequence[int] = (),
    generator: torch.Generator | None = None,
    misread: float = 0.0,
    unheard: float = 0.0,
) -> Tensor:
    """CTC's loss of the decoder's answers, per token; a float32 scalar.

    Args:
        decoder: the decoder.
        encoded: the encoder's output.
        log_probabilities: of the CTC head, (batch, positions, tokens); no gradient goes there.
        labels: int64 (sum of lengths,), the texts end to end.
        label_lengths: int64 (batch,).
        blank: the blank token.
        never: tokens that the search does not say.
        generator: draws mistakes, the search's threshold, and whether it is the first pass; without it the rows are those of
            the search's first.
        misread: see ``mistaken``.
        unheard: share of the row's places whose sound is taken away, in runs.
    """
    texts = ctc_texts(log_probabilities.detach(), encoded.lengths, blank)
    threshold = SURE
    if generator is not None:
        own, some, below = torch.rand(3, generator=generator).tolist()
        threshold = 1.0 - _UNSURE * below if some < 0.5 else 1.0
        if own < _OWN:
            texts = rewritten(decoder, texts, encoded, blank, never, threshold)
    rows = alignment_rows(texts, encoded.lengths.tolist(), blank, threshold)
    heard = encoded.values
    if generator is not None:
        rows = mistaken(rows, labels.cpu(), blank, misread, generator)
        silent = unheard_positions(rows, encoded.values.shape[1], unheard, generator)
        heard = heard.masked_fill(silent.to(heard.device)[..., None], 0.0)
    rows = rows.to(heard.device)
    acoustic = decoder.heard_embedding(heard, rows.begins, rows.ends)
    logits = decoder(rows.tokens, rows.lengths, heard, encoded.lengths, acoustic=acoustic)
    with torch.autocast(heard.device.type, enabled=False):
        # A text that does not fit into its row, since CTC has left out much of it, teaches nothing.
        each = F.ctc_loss(
            logits.float().log_softmax(dim=-1).transpose(0, 1),
            labels,
            rows.lengths,
            label_lengths,
            blank=blank,
            reduction="none",
            zero_infinity=True,
        )
    taught = label_lengths[each.detach() != 0].sum()
    return each.sum() / taught.clamp(min=1)


def mistaken(rows: AlignmentRows, letters: Tensor, blank: int, most: float, generator: torch.Generator) -> AlignmentRows:
    """Rows in which some tokens are others, or left out, and some blanks are tokens.

    Of each row a share is changed that is drawn from none to ``most``; half of the tokens among that become blanks. What is
    put in is as frequent as it is in ``letters``.

    Args:
        rows: of the CTC head's texts.
        letters: int64 (count,), tokens to draw from.
        blank: the blank token.
        most: largest share.
        generator: draws.
    """
    if not len(letters) or most == 0:
        return rows
    size = rows.tokens.shape
    shares = torch.rand(size[0], 1, generator=generator) * most
    isblank = rows.tokens == blank
    changed = torch.rand(size, generator=generator) < torch.where(isblank, shares * _PUT_IN, shares)
    others = letters[torch.randint(len(letters), size, generator=generator)]
    left_out = ~isblank & (torch.rand(size, generator=generator) < 0.5)
    tokens = torch.where(changed, others.masked_fill(left_out, blank), rows.tokens)
    return AlignmentRows(tokens, rows.lengths, rows.places, rows.begins, rows.ends)


def unheard_positions(rows: AlignmentRows, positions: int, share: float, generator: torch.Generator) -> Tensor:
    """Positions whose sound is taken away, bool (batch, positions): those of runs of places of the row."""
    silent = torch.zeros(len(rows.lengths), positions, dtype=torch.bool)
    if share == 0:
        return silent
    starts = torch.rand(rows.tokens.shape, generator=generator) < share / _UNHEARD_RUN
    for row, start in starts.nonzero().tolist():
        last = min(start + _UNHEARD_RUN, int(rows.lengths[row])) - 1
        if start <= last:
            silent[row, int(rows.begins[row, start]) : int(rows.ends[row, last])] = True
    return silent
