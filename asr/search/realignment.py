"""Search that reads CTC's text and writes it anew (Align-Refine, Chi, Salazar and Kirchhoff 2021).

The row that the decoder reads is the text with blanks before, between and behind its tokens, but none between two that are
sure. At each of these places it says a token or a blank, and what it says is read as CTC's path is. So a token can be
replaced, left out or put in, which a row as long as the text does not allow. What comes out is the text that the next pass
reads.

In the paper a row is CTC's whole path, a place for each position of the encoder. For English letters that is more than
twice as long, and most of it are blanks beside blanks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.model.attention import KeyValueCache
from asr.model.nonautoregressive import NonautoregressiveDecoder, extents
from asr.model.recognizer import Encoded, Recognizer
from asr.search.ctc import Spike, ctc_texts, spikes
from asr.search.hypothesis import FinishReason, Hypothesis
from asr.text.tokenizer import Tokenizer

# Probability of a token above which the search takes it for sure.
SURE = 0.99


@dataclass(frozen=True)
class AlignmentRows:
    """What the decoder reads of a batch: the tokens of each text and the blanks beside them.

    Attributes:
        tokens: int64 (batch, length).
        lengths: int64 (batch,), of each row.
        places: int64 (batch, length), position of the encoder's output that each place of the row is at.
        begins: int64 (batch, length), first position that it hears.
        ends: int64 (batch, length), position behind the last one.
    """

    tokens: Tensor
    lengths: Tensor
    places: Tensor
    begins: Tensor
    ends: Tensor

    def to(self, device: torch.device) -> AlignmentRows:
        """The same rows on another device."""
        return AlignmentRows(*(value.to(device) for value in vars(self).values()))


def alignment_rows(texts: Sequence[Sequence[Spike]], positions: Sequence[int], blank: int, threshold: float) -> AlignmentRows:
    """Rows of texts whose tokens have places.

    A token hears the positions that are nearer to it than to its neighbours, as in ``rates_around``, and its own; a blank
    hears all from the token before it to the one behind it.

    Args:
        texts: their tokens, in the order of their places.
        positions: of the encoder's output, of each utterance.
        blank: the blank token.
        threshold: between two different tokens that are sure, with a probability above this, there is no blank.
    """
    columns: list[tuple[Tensor, ...]] = []
    for text, count in zip(texts, positions, strict=True):
        edges = [0, *(spike.place for spike in text), max(count - 1, 0)]
        near = extents(edges[1:-1], count)
        sure = [is_sure(spike, threshold) for spike in text]
        row: list[tuple[int, int, int, int]] = []
        for number, (before, behind) in enumerate(pairwise(edges)):
            if number:
                begin, end = near[number - 1]
                row.append((text[number - 1].token, before, min(begin, before), max(end, before + 1)))
            inside = 0 < number < len(text)
            # Two equal tokens side by side would be read as one.
            if not (inside and sure[number - 1] and sure[number] and text[number - 1].token != text[number].token):
                row.append((blank, (before + behind) // 2, before, behind + 1))
        columns.append(torch.tensor(row, dtype=torch.int64).unbind(dim=1))
    tokens, places, begins, ends = (list(column) for column in zip(*columns, strict=True))
    return AlignmentRows(
        tokens=pad_sequence(tokens, batch_first=True, padding_value=blank),
        lengths=torch.tensor([len(row) for row in tokens]),
        places=pad_sequence(places, batch_first=True),
        begins=pad_sequence(begins, batch_first=True),
        ends=pad_sequence(ends, batch_first=True),
    )


def is_sure(token: Spike, threshold: float) -> bool:
    """Whether its probability, CTC's or that of the pass that wrote it, is above the threshold."""
    return math.exp(token.log_probability) > threshold


def unsaid(decoder: NonautoregressiveDecoder, tokenizer: Tokenizer) -> list[int]:
    """Tokens that have no place in a text: the stop token, the mask, and what the configuration suppresses."""
    settings = decoder.configuration
    return sorted({tokenizer.stop, tokenizer.identifier(settings.mask), *settings.suppressed} - {tokenizer.blank})


@torch.no_grad()
def rewritten(
    decoder: NonautoregressiveDecoder,
    texts: Sequence[Sequence[Spike]],
    encoded: Encoded,
    blank: int,
    never: Sequence[int],
    threshold: float,
    memory: KeyValueCache | None = None,
) -> list[list[Spike]]:
    """One pass: what the decoder says of each text, its tokens at the places of the row that said them.

    Args:
        decoder: the decoder.
        texts: of CTC or of the pass before.
        encoded: the encoder's output.
        blank: the blank token.
        never: tokens that are not said.
        threshold: see ``alignment_rows``.
        memory: keys and values of ``encoded``, filled by the first pass.
    """
    rows = alignment_rows(texts, encoded.lengths.tolist(), blank, threshold).to(encoded.values.device)
    acoustic = decoder.heard_embedding(encoded.values, rows.begins, rows.ends)
    logits = decoder(rows.tokens, rows.lengths, encoded.values, encoded.lengths, memory, acoustic)
    logits[..., list(never)] = float("-inf")
    scores, paths = logits.log_softmax(dim=-1).max(dim=-1)
    found = []
    columns = (paths, scores, rows.places, rows.lengths)
    for path, score, places, length in zip(*(column.tolist() for column in columns), strict=True):
        said = spikes(path[:length], score[:length], blank)
        found.append([Spike(each.token, places[each.place], each.log_probability) for each in said])
    return found


@torch.inference_mode()
def realign_search(
    model: Recognizer,
    tokenizer: Tokenizer,
    encoded: Encoded,
    sample_lengths: Sequence[int] | Tensor,
    iterations: int = 1,
    threshold: float = SURE,
    steps: list[list[int | None]] | None = None,
) -> list[Hypothesis]:
    """Decode a batch in at most so many passes; one that changes nothing is the last.

    Args:
        model: recogniser with a CTC head and a non-autoregressive decoder.
        tokenizer: its tokenizer.
        encoded: the encoder's output.
        sample_lengths: (batch,), samples of each utterance without added silence; they bound the text's length.
        iterations: passes of the decoder, at least 1.
        threshold: see ``alignment_rows``.
        steps: if given, the tokens of the first utterance before each pass and after the last are appended to it.

    Returns:
        One hypothesis an utterance, in order. A token's log-probability is the best of the places that say it in a row; the
        score is their mean. The reason is ``length`` where the text came to its bound.
    """
    decoder = cast(NonautoregressiveDecoder, model.nonautoregressive)
    bounds = [decoder.longest_text(int(samples)) for samples in sample_lengths]
    if not bounds:
        return []
    never = unsaid(decoder, tokenizer)
    memory = decoder.memory()
    found = _cut(ctc_texts(model.ctc_log_probabilities(encoded), encoded.lengths, tokenizer.blank), bounds)
    for _ in range(iterations):
        if steps is not None:
            steps.append([spike.token for spike in found[0]])
        before = found
        found = _cut(rewritten(decoder, found, encoded, tokenizer.blank, never, threshold, memory), bounds)
        if _outlines(found, threshold) == _outlines(before, threshold):
            break
    if steps is not None:
        steps.append([spike.token for spike in found[0]])
    hypotheses = []
    for text, bound in zip(found, bounds, strict=True):
        tokens = tuple(spike.token for spike in text)
        values = tuple(spike.log_probability for spike in text)
        reason: FinishReason = "length" if len(text) >= bound else "stop"
        hypotheses.append(Hypothesis(tokenizer.decode(tokens).strip(), tokens, values, sum(values) / max(len(values), 1), reason))
    return hypotheses


def _cut(texts: list[list[Spike]], bounds: Sequence[int]) -> list[list[Spike]]:
    return [text[:bound] for text, bound in zip(texts, bounds, strict=True)]


def _outlines(texts: list[list[Spike]], threshold: float) -> list[list[tuple[int, int, bool]]]:
    """All that the next rows depend on."""
    return [[(each.token, each.place, is_sure(each, threshold)) for each in text] for text in texts]
