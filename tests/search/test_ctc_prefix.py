"""The prefix score against the sum over all alignments, and the whole text's against torch's CTC loss."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.search.ctc_prefix import CtcPrefixScorer
from asr.search.spelling import Spelling
from tests.search import toy
from tests.search.toy import alignments

STOP = 3
ITSELF = Spelling(toy.TOKENIZER, toy.TOKENIZER)


def by_enumeration(texts: dict[tuple[int, ...], float], prefix: tuple[int, ...]) -> float:
    total = sum(math.exp(value) for text, value in texts.items() if text[: len(prefix)] == prefix)
    return math.log(total) if total > 0 else -math.inf


@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(0, 1), st.integers(1, 2)), min_size=1, max_size=4))
@settings(max_examples=60)
def test_prefixes_are_what_all_alignments_say(seed: int, path: list[tuple[int, int]]) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probabilities = (3 * torch.randn(2, 5, 4, generator=generator)).log_softmax(dim=-1)
    lengths = torch.tensor([5, 3])
    texts = [alignments(log_probabilities[row, : lengths[row]]) for row in range(2)]
    scorer = CtcPrefixScorer(log_probabilities, lengths, blank=0, stop=STOP, spelling=ITSELF)
    candidates = torch.tensor([[1, 2, STOP]])
    # Rows are selected, repeated and reordered as beams are; each remembers its utterance and text.
    rows: list[tuple[int, tuple[int, ...], float]] = [(0, (), 0.0), (1, (), 0.0)]
    for parent, token in path:
        scores = scorer.score(candidates.repeat(len(rows), 1))
        for (utterance, text, total), values in zip(rows, scores.tolist(), strict=True):
            if total < -1000:
                continue  # an impossible text; what follows it is as impossible
            for candidate, value in zip((1, 2), values, strict=False):
                expected = by_enumeration(texts[utterance], (*text, candidate))
                assert total + value == pytest.approx(expected, abs=1e-5) or (expected == -math.inf and total + value < -1000)
            whole = texts[utterance].get(text, -math.inf)
            assert total + values[2] == pytest.approx(whole, abs=1e-5) or (whole == -math.inf and total + values[2] < -1000)
        chosen = [parent, len(rows) - 1 - parent % len(rows), *range(min(len(rows), 3))]
        tokens = [token, 3 - token, *[1 + number % 2 for number in range(min(len(rows), 3))]]
        rows = [
            (rows[row][0], (*rows[row][1], said), rows[row][2] + float(scores[row, said - 1]))
            for row, said in zip(chosen, tokens, strict=True)
        ]
        scorer.advance(torch.tensor(chosen), torch.tensor(tokens))


def test_a_long_text_is_scored_as_torch_scores_it() -> None:
    generator = torch.Generator().manual_seed(0)
    log_probabilities = (4 * torch.randn(3, 400, 40, generator=generator)).log_softmax(dim=-1)
    lengths = torch.tensor([400, 250, 333])
    texts = torch.randint(1, 39, (3, 60), generator=generator)
    scorer = CtcPrefixScorer(log_probabilities, lengths, blank=0, stop=39, spelling=ITSELF)
    total = torch.zeros(3, dtype=torch.float64)
    for place in range(60):
        total += scorer.score(texts[:, place : place + 1])[:, 0]
        scorer.advance(torch.arange(3), texts[:, place])
    total += scorer.score(torch.full((3, 1), 39))[:, 0]
    expected = torch.nn.functional.ctc_loss(
        log_probabilities.double().transpose(0, 1), texts, lengths, torch.tensor([60] * 3), reduction="none"
    )
    assert total.tolist() == pytest.approx((-expected).tolist(), rel=1e-9)


def test_blank_is_never_a_token() -> None:
    scorer = CtcPrefixScorer(torch.zeros(1, 3, 4).log_softmax(dim=-1), torch.tensor([3]), blank=0, stop=STOP, spelling=ITSELF)
    assert scorer.score(torch.tensor([[0]])).item() == -math.inf
