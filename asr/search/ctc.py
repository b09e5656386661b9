"""Search over the CTC head (Graves et al. 2006)."""

from __future__ import annotations

import torch

from asr.model.recognizer import Encoded, Recognizer
from asr.search.hypothesis import Hypothesis
from asr.text.tokenizer import Tokenizer


@torch.inference_mode()
def ctc_greedy_search(model: Recognizer, tokenizer: Tokenizer, encoded: Encoded) -> list[Hypothesis]:
    """Best path: at each position the most probable token; repetitions are merged, then blanks dropped.

    Args:
        model: recogniser with a CTC head.
        tokenizer: its tokenizer.
        encoded: the encoder's output.

    Returns:
        One hypothesis an utterance, in order; a token's log-probability is that of its first position.
    """
    log_probabilities = model.ctc_log_probabilities(encoded)
    scores, paths = log_probabilities.max(dim=-1)
    hypotheses = []
    for path, score, length in zip(paths.tolist(), scores.tolist(), encoded.lengths.tolist(), strict=True):
        path, score = path[:length], score[:length]
        kept = [n for n, token in enumerate(path) if token != tokenizer.blank and (n == 0 or token != path[n - 1])]
        tokens = tuple(path[n] for n in kept)
        hypotheses.append(Hypothesis(tokenizer.decode(tokens).strip(), tokens, tuple(score[n] for n in kept), sum(score), "stop"))
    return hypotheses
