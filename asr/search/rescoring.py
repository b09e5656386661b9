"""Second pass over n-best lists: decoder, CTC and language model score whole texts (Zhang et al. 2020, WeNet)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from asr.model.decoder import Decoder
from asr.model.recognizer import Encoded, Recognizer
from asr.search.greedy import forbidden_tokens
from asr.search.hypothesis import Hypothesis
from asr.search.language_model import LanguageModel, score_texts
from asr.search.spelling import Spelling
from asr.text.tokenizer import Tokenizer

# In place of the logarithm of 0: a text that cannot be aligned comes last, but can be ranked.
_NEVER = -1e4


def rescore(
    found: Sequence[Sequence[Hypothesis]],
    log_probabilities: Tensor,
    lengths: Tensor,
    tokenizer: Tokenizer,
    blank: int,
    spelling: Spelling,
    *,
    ctc_weight: float,
    length_bonus: float = 0.0,
    fused: Sequence[tuple[float, LanguageModel]] = (),
) -> list[list[Hypothesis]]:
    """Rank each n-best list by (1 - w) decoder + w CTC + language model + bonus for each token.

    Args:
        found: for each utterance hypotheses whose ``score`` is the decoder's log-probability.
        log_probabilities: (batch, positions, vocabulary) of the CTC head.
        lengths: int64 (batch,), positions.
        tokenizer: of the hypotheses.
        blank: of the CTC head.
        spelling: of the hypotheses' tokens in those of the head.
        ctc_weight: w.
        length_bonus: added for each token.
        fused: weights and language models, of the hypotheses' tokens or words.
    """
    flat = [hypothesis for several in found for hypothesis in several]
    languages = [0.0] * len(flat)
    for weight, model in fused:
        values = score_texts(model, tokenizer, [each.tokens for each in flat])
        languages = [total + weight * value for total, value in zip(languages, values, strict=True)]
    ranked = []
    rest = iter(languages)
    for utterance, several in enumerate(found):
        texts = [spelling.spell(each.tokens) for each in several]
        heard = ctc_scores(log_probabilities[utterance, : lengths[utterance]], texts, blank)
        scored = [
            replace(
                each,
                score=(1 - ctc_weight) * each.score + ctc_weight * by_ctc + length_bonus * len(each.tokens) + language,
            )
            for each, by_ctc, language in zip(several, heard, rest, strict=False)
        ]
        # One that ended by itself comes before one that was cut off.
        ranked.append(sorted(scored, key=lambda each: (each.finish_reason == "stop", each.score), reverse=True))
    return ranked


def ctc_scores(log_probabilities: Tensor, texts: Sequence[Sequence[int]], blank: int) -> list[float]:
    """CTC's log-probability of each text, over all of its alignments: (positions, vocabulary) of one utterance."""
    if not texts:
        return []
    # Only the columns that are needed: a vocabulary may have thousands.
    needed = sorted({token for text in texts for token in text} - {blank})
    numbers = {token: number for number, token in enumerate(needed, start=1)}
    columns = log_probabilities[:, [blank, *needed]].double().cpu()
    if not len(columns):
        return [_NEVER if text else 0.0 for text in texts]
    lengths = torch.tensor([len(text) for text in texts])
    targets = torch.tensor([numbers.get(token, 0) for text in texts for token in text], dtype=torch.int64)
    losses = F.ctc_loss(
        columns[:, None].repeat(1, len(texts), 1),
        targets,
        torch.full_like(lengths, len(columns)),
        lengths,
        reduction="none",
    )
    return [max(-loss, _NEVER) for loss in losses.tolist()]


@torch.inference_mode()
def decoder_scores(
    model: Recognizer, tokenizer: Tokenizer, encoded: Encoded, found: Sequence[Sequence[Hypothesis]], prompt: Sequence[str] | None
) -> list[list[Hypothesis]]:
    """The same hypotheses with the decoder's log-probabilities and their sum, stop token included, as scores.

    All texts are read at once; the encoder's output is kept once for each utterance.
    """
    decoder = cast(Decoder, model.decoder)
    settings = decoder.configuration
    start = [tokenizer.identifier(token) for token in (prompt or settings.prompt)]
    longest_text = settings.maximum_length - len(start)
    # What the decoder cannot read to its end it does not judge.
    found = [[each for each in several if len(each.tokens) <= longest_text] for several in found]
    flat = [hypothesis for several in found for hypothesis in several]
    if not flat:
        return [[] for _ in found]
    device = encoded.values.device
    longest = max(len(each.tokens) for each in flat)
    tokens = torch.full((len(flat), len(start) + longest), tokenizer.stop, device=device)
    for row, each in enumerate(flat):
        tokens[row, : len(start) + len(each.tokens)] = torch.tensor([*start, *each.tokens], device=device)
    cache = decoder.cache()
    owners = torch.tensor([utterance for utterance, several in enumerate(found) for _ in several], device=device)
    cache.share(torch.arange(len(flat), device=device), owners)
    logits = decoder(tokens, encoded.values, encoded.lengths, cache)[:, len(start) - 1 :]
    first, later = forbidden_tokens(decoder, len(tokenizer), device)
    logits += later
    logits[:, 0] += first
    spoken = logits.log_softmax(dim=-1)
    wanted = torch.full((len(flat), longest + 1), tokenizer.stop, device=device)
    wanted[:, :longest] = tokens[:, len(start) :]
    values = spoken.gather(2, wanted[..., None])[..., 0].double().clamp(min=_NEVER)
    rows = iter(values.tolist())
    scored: list[list[Hypothesis]] = []
    for several in found:
        scored.append([])
        for each, row in zip(several, rows, strict=False):
            said = tuple(row[: len(each.tokens)])
            scored[-1].append(replace(each, log_probabilities=said, score=sum(row[: len(each.tokens) + 1])))
    return scored
