"""CTC beam search against the sum over all alignments, and as wide as can be against every text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.search import language_model
from asr.search.ctc_beam import ctc_beam_search
from asr.text.tokenizer import CharacterTokenizer
from asr.training.ngram_text import train
from tests.search.toy import alignments

TOKENIZER = CharacterTokenizer.build(["ab"])


EVERYTHING = 100  # more than there are texts of at most five of two tokens


def random_scores(seed: int, rows: int = 3, positions: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, positions, 3, generator=generator)
    lengths = torch.randint(1, positions + 1, (rows,), generator=generator)
    return logits.log_softmax(dim=-1), lengths


@given(st.integers(0, 10**6))
@settings(max_examples=15)
def test_a_beam_of_everything_is_enumeration(seed: int) -> None:
    log_probabilities, lengths = random_scores(seed)
    found = ctc_beam_search(log_probabilities, lengths, TOKENIZER, size=EVERYTHING, n_best=8)
    for row, several in enumerate(found):
        texts = alignments(log_probabilities[row, : lengths[row]])
        ranking = sorted(texts.values(), reverse=True)[:8]
        assert [each.score for each in several] == pytest.approx(ranking, abs=1e-5)
        assert [texts[each.tokens] for each in several] == pytest.approx(ranking, abs=1e-5)
        assert len({each.tokens for each in several}) == len(several)


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(max_examples=25)
def test_a_narrow_beam_never_says_more_than_all_alignments(seed: int, size: int) -> None:
    log_probabilities, lengths = random_scores(seed)
    for row, several in enumerate(ctc_beam_search(log_probabilities, lengths, TOKENIZER, size, n_best=size)):
        texts = alignments(log_probabilities[row, : lengths[row]])
        # Texts are found once: what belongs to one is not divided among two.
        assert len({each.tokens for each in several}) == len(several)
        for each in several:
            assert each.score <= texts[each.tokens] + 1e-6
        scores = [each.score for each in several]
        assert scores == sorted(scores, reverse=True)


def test_neighbours_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(2)
    log_probabilities = (3 * torch.randn(4, 40, len(TOKENIZER), generator=generator)).log_softmax(dim=-1)
    lengths = torch.tensor([40, 7, 25, 1])
    together = ctc_beam_search(log_probabilities, lengths, TOKENIZER, size=5, n_best=3)
    for row, length in enumerate(lengths.tolist()):
        (alone,) = ctc_beam_search(log_probabilities[row : row + 1, :length], lengths[row : row + 1], TOKENIZER, 5, 3)
        assert [each.tokens for each in alone] == [each.tokens for each in together[row]]
        assert [each.score for each in alone] == pytest.approx([each.score for each in together[row]])
        assert all(len(each.log_probabilities) == len(each.tokens) for each in alone)


def test_with_a_language_model_the_best_of_all_texts_is_found(tmp_path: Path) -> None:
    source = tmp_path / "text.txt"
    source.write_text("ab\nabab\nba b\nb\n" * 3)
    model = language_model.load(train([source], tmp_path / "letters.safetensors", order=3, tokenizer=TOKENIZER).path)
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(3, 4, len(TOKENIZER), generator=generator)
    logits[..., 1:4] = -100  # special tokens are no text
    log_probabilities, lengths = logits.log_softmax(dim=-1), torch.tensor([4, 2, 3])
    scorer = model.scorer(TOKENIZER, 3)
    found = ctc_beam_search(log_probabilities, lengths, TOKENIZER, size=200, n_best=5, scorers=[(0.8, scorer)], length_bonus=0.3)
    for row, several in enumerate(found):
        every = alignments(log_probabilities[row, : lengths[row]])
        texts = {text: value for text, value in every.items() if not {1, 2, 3} & {*text}}
        languages = language_model.score_texts(model, TOKENIZER, list(texts))
        scores = {
            text: value + 0.8 * language + 0.3 * len(text)
            for (text, value), language in zip(texts.items(), languages, strict=True)
        }
        ranking = sorted(scores.values(), reverse=True)[:5]
        assert [each.score for each in several] == pytest.approx(ranking, abs=2e-3)
        assert [scores[each.tokens] for each in several] == pytest.approx(ranking, abs=2e-3)


def test_nothing_in_is_nothing_out() -> None:
    assert ctc_beam_search(torch.zeros(0, 3, 7), torch.zeros(0, dtype=torch.int64), TOKENIZER, 4) == []
    (several,) = ctc_beam_search(torch.zeros(1, 0, 7), torch.tensor([0]), TOKENIZER, 4)
    assert several[0].text == ""
    assert several[0].score == 0
