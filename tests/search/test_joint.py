"""Joint search with a decoder of byte pairs and a CTC head of letters, against everything that they could say."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.search.ctc_prefix import CtcPrefixScorer
from asr.search.decoding import decode
from asr.search.options import DecodingOptions
from asr.search.spelling import Spelling
from tests.search import toy

SAMPLES = [16000] * 3
EVERYTHING = 3000  # more than there are texts
SPELLING = Spelling(toy.BYTE_PAIRS, toy.LETTERS)
SPOKEN = tuple(range(len(toy.PIECES)))
CANDIDATES = torch.tensor([[*SPOKEN, toy.BYTE_PAIRS.stop]])


def letters(tokens: tuple[int, ...]) -> tuple[int, ...]:
    """What CTC must have said of a text."""
    return tuple(toy.LETTERS.encode(toy.BYTE_PAIRS.decode(tokens)))


def by_enumeration(log_probabilities: Tensor, prefix: tuple[int, ...], lookahead: bool) -> float:
    """Log-probability that a text begins so; with a look-ahead the most probable path goes on where the prefix is said."""
    texts = toy.alignments(log_probabilities)
    if not lookahead:
        total = sum(math.exp(value) for text, value in texts.items() if text[: len(prefix)] == prefix)
        return math.log(total) if total > 0 else -math.inf
    best = log_probabilities.amax(dim=1).double()
    if not prefix:
        return float(best.sum())
    total = 0.0
    for positions in range(len(log_probabilities)):
        # Said up to here without its last token, and that is said now: after a blank if it is the same again.
        before = toy.alignments(log_probabilities[:positions])
        said = math.exp(before.get(prefix[:-1], -math.inf))
        if prefix[-2:-1] == prefix[-1:]:
            blank = toy.alignments(log_probabilities[: positions - 1]) if positions else {}
            ends = blank.get(prefix[:-1], -math.inf) + float(log_probabilities[positions - 1, toy.LETTERS.blank])
            said = math.exp(ends) if positions else 0.0
        total += said * math.exp(float(log_probabilities[positions, prefix[-1]]) + float(best[positions + 1 :].sum()))
    return math.log(total) if total > 0 else -math.inf


@given(
    st.integers(0, 10**6), st.lists(st.tuples(st.integers(0, 2), st.sampled_from(SPOKEN)), min_size=1, max_size=5), st.booleans()
)
@settings(max_examples=25, deadline=None)
def test_prefixes_are_what_all_alignments_say(seed: int, path: list[tuple[int, int]], lookahead: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probabilities = (3 * torch.randn(2, 4, len(toy.LETTERS), generator=generator)).log_softmax(dim=-1)
    lengths = torch.tensor([4, 3])
    utterances = [log_probabilities[row, : lengths[row]] for row in range(2)]
    texts = [toy.alignments(utterance) for utterance in utterances]
    enumerated = cache(lambda utterance, prefix: by_enumeration(utterances[utterance], prefix, lookahead))
    scorer = CtcPrefixScorer(log_probabilities, lengths, toy.LETTERS.blank, toy.BYTE_PAIRS.stop, SPELLING, lookahead)
    # Rows are selected, repeated and reordered as beams are; some have the same letters.
    rows: list[tuple[int, tuple[int, ...], float]] = [(0, (), 0.0), (1, (), 0.0)]
    for parent, token in path:
        scores = scorer.score(CANDIDATES.repeat(len(rows), 1)).tolist()
        for (utterance, text, total), values in zip(rows, scores, strict=True):
            if total < -1000:
                continue  # an impossible text; what follows it is as impossible
            expected = [enumerated(utterance, letters((*text, each))) for each in SPOKEN]
            expected.append(texts[utterance].get(letters(text), -math.inf))
            for value, wanted in zip(values, expected, strict=True):
                assert total + value == pytest.approx(wanted, abs=1e-5) or (wanted == -math.inf and total + value < -1000)
        chosen = [parent % len(rows), len(rows) - 1, 0]
        tokens = [token, (token + 1) % len(SPOKEN), token]
        rows = [
            (rows[row][0], (*rows[row][1], said), rows[row][2] + scores[row][said])
            for row, said in zip(chosen, tokens, strict=True)
        ]
        scorer.advance(torch.tensor(chosen), torch.tensor(tokens))


@pytest.mark.parametrize("lookahead", [False, True])
def test_long_texts_are_scored_as_torch_scores_them(lookahead: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    log_probabilities = (4 * torch.randn(3, 400, len(toy.LETTERS), generator=generator)).log_softmax(dim=-1)
    lengths = torch.tensor([400, 250, 333])
    texts = torch.randint(0, len(SPOKEN), (3, 90), generator=generator)
    scorer = CtcPrefixScorer(log_probabilities, lengths, toy.LETTERS.blank, toy.BYTE_PAIRS.stop, SPELLING, lookahead)
    total = torch.zeros(3, dtype=torch.float64)
    for place in range(90):
        total += scorer.score(texts[:, place : place + 1])[:, 0]
        scorer.advance(torch.arange(3), texts[:, place])
    total += scorer.score(torch.full((3, 1), toy.BYTE_PAIRS.stop))[:, 0]
    written = [letters(tuple(text)) for text in texts.tolist()]
    expected = torch.nn.functional.ctc_loss(
        log_probabilities.double().transpose(0, 1),
        torch.tensor([token for text in written for token in text]),
        lengths,
        torch.tensor([len(text) for text in written]),
        reduction="none",
    )
    assert total.tolist() == pytest.approx((-expected).tolist(), rel=1e-9)


def total(log_probabilities: Tensor, pieces: list[bytes], lookahead: bool) -> list[float]:
    """Score of the pieces as a prefix and as a text."""
    lengths = torch.tensor([log_probabilities.shape[1]])
    scorer = CtcPrefixScorer(log_probabilities, lengths, toy.LETTERS.blank, toy.BYTE_PAIRS.stop, SPELLING, lookahead)
    prefix = 0.0
    for token in map(toy.PIECES.index, pieces):
        prefix += scorer.score(torch.tensor([[token]])).item()
        scorer.advance(torch.tensor([0]), torch.tensor([token]))
    return [prefix, prefix + scorer.score(torch.tensor([[toy.BYTE_PAIRS.stop]])).item()]


@pytest.mark.parametrize("lookahead", [False, True])
def test_texts_of_the_same_letters_have_the_same_score(lookahead: bool) -> None:
    log_probabilities = torch.randn(1, 6, len(toy.LETTERS), generator=torch.Generator().manual_seed(0)).log_softmax(dim=-1)
    expected = total(log_probabilities, [b"a", b"b"], lookahead)
    for way in ([b".", b" ", b" ab"], [b"a", b"B", b"."]):
        assert total(log_probabilities, way, lookahead) == pytest.approx(expected)


def test_full_stops_do_not_win_over_letters_of_an_unsure_head() -> None:
    probabilities = torch.full((1, 60, len(toy.LETTERS)), 0.01)
    probabilities[..., toy.LETTERS.blank] = 0.93
    probabilities[:, ::2, toy.LETTERS.blank] = 0.4
    probabilities[:, ::2, toy.LETTERS.identifier("a")] = 0.54
    for lookahead in (False, True):
        letters_said, end = total(probabilities.log(), [b"a"] * 20, lookahead)
        stops_said, worse_end = total(probabilities.log(), [b"."] * 20, lookahead)
        assert (letters_said > stops_said) == lookahead
        assert end > worse_end


@pytest.mark.parametrize(("weight", "bonus"), [(0.3, 0.0), (0.6, 0.7), (1.0, -0.4)])
def test_a_wide_beam_finds_the_best_of_all_texts(weight: float, bonus: float) -> None:
    model = toy.byte_pair_recognizer(3, longest=3)
    encoded = toy.encoded()
    options = DecodingOptions("joint", beam_size=EVERYTHING, n_best=5, ctc_weight=weight, length_bonus=bonus, beam_threshold=1e9)
    found = decode(model, toy.BYTE_PAIRS, encoded, SAMPLES, options, toy.LETTERS)
    for row, best in enumerate(found):
        utterance = toy.one(encoded, row)
        by_ctc = toy.alignments(model.ctc_log_probabilities(utterance)[0].detach())
        scores = {
            text: (1 - weight) * toy.decoder_score(model, utterance, text, tokenizer=toy.BYTE_PAIRS)
            + weight * by_ctc.get(letters(text), -1e9)
            + bonus * len(text)
            for text in toy.every_text(2, SPOKEN)
        }
        several = [best, *best.alternatives]
        assert [each.score for each in several] == pytest.approx(sorted(scores.values(), reverse=True)[:5], abs=1e-5)
        # Without the decoder many texts are as good as one another.
        assert [scores[each.tokens] for each in several] == pytest.approx([each.score for each in several], abs=1e-5)
        assert len({each.tokens for each in several}) == 5


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_do_not_matter_and_scores_are_those_from_scratch(seed: int) -> None:
    model = toy.byte_pair_recognizer(seed, longest=6)
    encoded = toy.encoded(positions=6)
    options = DecodingOptions("joint", beam_size=40, n_best=40, ctc_weight=0.2, length_bonus=-2.0)
    ended = 0
    for row, best in enumerate(decode(model, toy.BYTE_PAIRS, encoded, SAMPLES, options, toy.LETTERS)):
        utterance = toy.one(encoded, row)
        (alone,) = decode(model, toy.BYTE_PAIRS, utterance, SAMPLES[:1], options, toy.LETTERS)
        several = (best, *best.alternatives)
        assert [each.tokens for each in (alone, *alone.alternatives)] == [each.tokens for each in several]
        assert alone.score == pytest.approx(best.score, abs=1e-4)
        log_probabilities = model.ctc_log_probabilities(utterance).detach().double().transpose(0, 1)
        for each in several:
            if each.finish_reason != "stop":
                continue
            ended += len(each.tokens) > 1
            text = letters(each.tokens)
            loss = torch.nn.functional.ctc_loss(
                log_probabilities, torch.tensor([text], dtype=torch.int64), [len(log_probabilities)], [len(text)], reduction="sum"
            )
            decoder = toy.decoder_score(model, utterance, each.tokens, tokenizer=toy.BYTE_PAIRS)
            assert each.score == pytest.approx(0.8 * decoder - 0.2 * float(loss) - 2 * len(each.tokens), abs=1e-4)
    assert ended


def test_the_second_pass_has_the_same_scores() -> None:
    model = toy.byte_pair_recognizer(5, longest=3)
    encoded = toy.encoded()
    scores: list[dict[tuple[int, ...], float]] = []
    for decoder in ("joint", "rescoring"):
        options = DecodingOptions(decoder, beam_size=EVERYTHING, n_best=EVERYTHING, ctc_weight=0.4, beam_threshold=1e9)  # type: ignore[arg-type]
        (best, *_) = decode(model, toy.BYTE_PAIRS, encoded, SAMPLES, options, toy.LETTERS)
        several = (best, *best.alternatives)
        scores.append({each.tokens: each.score for each in several if each.finish_reason == "stop"})
    joint, second = scores
    assert len(second) == len(toy.every_text(2, SPOKEN))
    # "ab ab" has more letters than there are positions.
    assert [score < -1000 for text, score in second.items() if text not in joint] == [True]
    assert [second[text] for text in joint] == pytest.approx(list(joint.values()), abs=1e-4)
