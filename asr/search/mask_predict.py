"""Search over the non-autoregressive decoder: all tokens at once, then the least sure ones again.

Mask-predict (Ghazvininejad et al. 2019, section 3): the first pass reads a row in which nothing is known. Each further pass
hides the tokens with the lowest probability, fewer each time, and asks for them again given the others. From CTC's greedy
path (Mask-CTC, Higuchi et al. 2020) the first pass knows the tokens that CTC is sure of, and these stay; or each pass writes
the text of the one before it anew (``asr.search.realignment``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor

from asr.model.configuration import LengthWay
from asr.model.layers import length_mask
from asr.model.nonautoregressive import NonautoregressiveDecoder, rates_around
from asr.model.recognizer import Encoded, Recognizer
from asr.search.ctc import ctc_texts
from asr.search.hypothesis import FinishReason, Hypothesis
from asr.search.realignment import SURE, realign_search
from asr.text.tokenizer import Tokenizer


@dataclass
class MaskPredictSteps:
    """What is known of the first utterance before each pass and after the last, filled on request; None where hidden."""

    rows: list[list[int | None]] = field(default_factory=list)


@dataclass(frozen=True)
class Rows:
    """Candidates of a batch before the first pass, some of each utterance.

    Attributes:
        utterances: int64 (rows,), which utterance each is of.
        tokens: int64 (rows, length), known tokens; anything where ``hidden``.
        log_probabilities: float32 (rows, length), of the known tokens.
        hidden: bool (rows, length), where the decoder is asked.
        lengths: int64 (rows,), of the whole row, stop token included.
        texts: int64 (rows,), tokens of the text; None where that is not known.
    """

    utterances: Tensor
    tokens: Tensor
    log_probabilities: Tensor
    hidden: Tensor
    lengths: Tensor
    texts: Tensor | None


@torch.inference_mode()
def mask_predict_search(
    model: Recognizer,
    tokenizer: Tokenizer,
    encoded: Encoded,
    sample_lengths: Sequence[int] | Tensor,
    iterations: int = 4,
    length_by: LengthWay | None = None,
    candidates: int = 1,
    ctc_threshold: float = SURE,
    steps: MaskPredictSteps | None = None,
) -> list[Hypothesis]:
    """Decode a batch in so many passes, whatever its texts' lengths.

    Args:
        model: recogniser with a non-autoregressive decoder.
        tokenizer: its tokenizer.
        encoded: the encoder's output.
        sample_lengths: (batch,), samples of each utterance without added silence; they bound the text's length.
        iterations: passes of the decoder, at least 1.
        length_by: how the length is found; None: the first way of the model's configuration.
        candidates: with ``predictor``, so many of the most probable lengths are decoded, and the best by score is kept.
        ctc_threshold: with ``ctc``, tokens of at least this probability are known from the start; with ``alignment``, there is
            no place between two different tokens above it.
        steps: if given, filled with what is known at each pass.

    Returns:
        One hypothesis an utterance, in order. A token's log-probability is that of the pass that wrote it; the score is
        their mean, as in the paper, since candidates differ in length. The reason is ``length`` where the length came to
        its bound, or no stop token was found.
    """
    decoder = cast(NonautoregressiveDecoder, model.nonautoregressive)
    way = length_by or decoder.configuration.lengths[0]
    if way == "alignment":
        rows_seen = steps.rows if steps is not None else None
        return realign_search(model, tokenizer, encoded, sample_lengths, iterations, ctc_threshold, rows_seen)
    bounds = torch.tensor([decoder.longest_text(int(samples)) for samples in sample_lengths], dtype=torch.int64)
    if not len(bounds):
        return []
    bounds = bounds.to(encoded.values.device)
    predictor = decoder.length_predictor
    rates = predictor.rates(encoded.values, encoded.lengths) if predictor is not None else None
    if way == "ctc":
        rows, rates = ctc_rows(model, tokenizer, encoded, bounds, ctc_threshold)
    elif way == "row":
        rows = hidden_rows(bounds, None, tokenizer.stop)
    else:
        assert predictor is not None
        assert rates is not None
        rows = hidden_rows(bounds, likely_lengths(predictor(rates), bounds, candidates), tokenizer.stop)

    # <eos> is an answer only where the length is asked for.
    forbidden = {tokenizer.blank, tokenizer.identifier(decoder.configuration.mask), *decoder.configuration.suppressed}
    forbidden = forbidden - {tokenizer.stop} if way == "row" else forbidden | {tokenizer.stop}
    rows = refine(decoder, encoded, rates, rows, iterations, tokenizer.identifier(decoder.configuration.mask), forbidden, steps)
    return _best(rows, bounds, tokenizer)


def likely_lengths(log_probabilities: Tensor, bounds: Tensor, candidates: int) -> Tensor:
    """The most probable lengths within the bounds, int64 (batch, candidates), best first.

    A text of nothing has no token to be scored by, so it is a candidate only where it is the most probable length.

    Args:
        log_probabilities: (batch, lengths), of the lengths from 0.
        bounds: int64 (batch,).
        candidates: how many; bounded by the number of lengths.
    """
    sizes = torch.arange(log_probabilities.shape[1], device=bounds.device)
    best = log_probabilities.argmax(dim=1).minimum(bounds)
    possible = log_probabilities.masked_fill(sizes > bounds[:, None], float("-inf"))
    # All that lies beyond the bound is the bound's.
    possible = possible.scatter(1, best[:, None], float("inf"))
    possible[:, 0] = torch.where(best == 0, possible[:, 0], float("-inf"))
    values, found = possible.topk(min(candidates, possible.shape[1]), dim=1)
    return torch.where(values == float("-inf"), best[:, None], found)


def hidden_rows(bounds: Tensor, texts: Tensor | None, stop: int) -> Rows:
    """Rows of which nothing is known but the length, or not even that.

    Args:
        bounds: int64 (batch,), most tokens of each text.
        texts: int64 (batch, candidates), lengths of the texts; None where only the bound is known.
        stop: the stop token, which ends a row of known length.
    """
    candidates = 1 if texts is None else texts.shape[1]
    utterances = torch.arange(len(bounds), device=bounds.device).repeat_interleave(candidates)
    lengths = (bounds if texts is None else texts.flatten()) + 1
    size = int(lengths.max())
    return Rows(
        utterances=utterances,
        tokens=bounds.new_full((len(lengths), size), stop),
        log_probabilities=torch.zeros(len(lengths), size, device=bounds.device),
        hidden=length_mask(lengths if texts is None else lengths - 1, size),
        lengths=lengths,
        texts=None if texts is None else texts.flatten(),
    )


def ctc_rows(model: Recognizer, tokenizer: Tokenizer, encoded: Encoded, bounds: Tensor, threshold: float) -> tuple[Rows, Tensor]:
    """Rows from CTC's greedy path: its tokens where it is sure of them, hidden where not (Higuchi et al. 2020, section 3.3).

    A token's probability is the highest of the positions that say it in a row. Also returns how much of a token each
    position holds, float32 (batch, positions), by ``rates_around``.
    """
    found = ctc_texts(model.ctc_log_probabilities(encoded), encoded.lengths, tokenizer.blank)
    texts = torch.tensor([len(text) for text in found], device=bounds.device).minimum(bounds)
    rows = hidden_rows(bounds, texts[:, None], tokenizer.stop)
    known, log_probabilities = rows.tokens.clone(), rows.log_probabilities.clone()
    rates = torch.zeros(encoded.values.shape[:2])
    for row, (text, size, length) in enumerate(zip(found, texts.tolist(), encoded.lengths.tolist(), strict=True)):
        known[row, :size] = torch.tensor([each.token for each in text[:size]], dtype=known.dtype)
        log_probabilities[row, :size] = torch.tensor([each.log_probability for each in text[:size]])
        rates[row, :length] = rates_around([each.place for each in text[:size]], length)
    unsure = log_probabilities.exp() < threshold
    rows = replace(rows, tokens=known, log_probabilities=log_probabilities, hidden=rows.hidden & unsure)
    return rows, rates.to(bounds.device)


def refine(
    decoder: NonautoregressiveDecoder,
    encoded: Encoded,
    rates: Tensor | None,
    rows: Rows,
    iterations: int,
    mask: int,
    forbidden: set[int],
    steps: MaskPredictSteps | None = None,
) -> Rows:
    """Fill what is hidden, and ask for the least probable of it again, in ``iterations`` passes.

    Before pass ``n`` (from 0) of K, floor(M (K - n) / K) of the M tokens that were hidden at first are hidden: those with the
    lowest probability, the first of equal ones. What is asked again replaces token and probability.
    """
    asked = rows.hidden
    sizes = asked.sum(dim=1)
    hidden, tokens, scores = asked, rows.tokens, rows.log_probabilities
    memory = decoder.memory()
    values, lengths = encoded.values[rows.utterances], encoded.lengths[rows.utterances]
    acoustic = None
    if rates is not None:
        acoustic = decoder.acoustic_embedding(values, rates[rows.utterances], tokens.shape[1], rows.texts)
    never = sorted(forbidden)
    for iteration in range(iterations):
        if iteration:
            counts = sizes * (iterations - iteration) // iterations
            # What was not asked at first is never hidden: it is behind all others.
            order = scores.masked_fill(~asked, float("inf")).argsort(dim=1, stable=True)
            ranks = order.argsort(dim=1)
            hidden = (ranks < counts[:, None]) & asked
        if steps is not None:
            _note(steps, tokens, hidden, int(rows.lengths[0]))
        if not bool(hidden.any()):
            # CTC was sure of everything, or the texts are shorter than the number of passes.
            continue
        logits = decoder(tokens.masked_fill(hidden, mask), rows.lengths, values, lengths, memory, acoustic)
        logits[..., never] = float("-inf")
        found, chosen = logits.log_softmax(dim=-1).max(dim=-1)
        tokens = torch.where(hidden, chosen, tokens)
        scores = torch.where(hidden, found, scores)
    if steps is not None:
        _note(steps, tokens, torch.zeros_like(hidden), int(rows.lengths[0]))
    return replace(rows, tokens=tokens, log_probabilities=scores, hidden=torch.zeros_like(hidden))


def _note(steps: MaskPredictSteps, tokens: Tensor, hidden: Tensor, length: int) -> None:
    pairs = zip(tokens[0, :length].tolist(), hidden[0, :length].tolist(), strict=True)
    steps.rows.append([None if unknown else token for token, unknown in pairs])


def _best(rows: Rows, bounds: Tensor, tokenizer: Tokenizer) -> list[Hypothesis]:
    """The best candidate of each utterance; what follows the first stop token is dropped."""
    best: dict[int, Hypothesis] = {}
    columns = (rows.utterances, rows.tokens, rows.log_probabilities, rows.lengths)
    for utterance, row, log_probabilities, length in zip(*(column.tolist() for column in columns), strict=True):
        row, log_probabilities = row[:length], log_probabilities[:length]
        # A row without a stop token is cut at the bound, where the last one could have been.
        end = row.index(tokenizer.stop) if tokenizer.stop in row else length - 1
        tokens, values = tuple(row[:end]), tuple(log_probabilities[:end])
        # Where <eos> was found and not given, it is one of the answers.
        answers = log_probabilities[: end + 1] if rows.texts is None else log_probabilities[:end]
        score = sum(answers) / max(len(answers), 1)
        reason: FinishReason = "length" if end >= int(bounds[utterance]) else "stop"
        hypothesis = Hypothesis(tokenizer.decode(tokens).strip(), tokens, values, score, reason)
        if utterance not in best or score > best[utterance].score:
            best[utterance] = hypothesis
    return [best[utterance] for utterance in range(len(bounds))]
