"""Beam search against enumeration of everything that a small model could say, and against greedy search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from asr.exceptions import ConfigurationError
from asr.model.configuration import DecodingConfiguration
from asr.model.recognizer import Encoded
from asr.search.beam import BeamOptions, beam_search
from asr.search.decoding import decode
from asr.search.greedy import greedy_search
from asr.search.hypothesis import Hypothesis
from asr.search.options import DecoderName, DecodingOptions
from tests.search import test_greedy, toy

SAMPLES = [16000] * 3
EVERYTHING = 200  # more than there are texts


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("bonus", [0.0, 0.7, -0.4])
def test_a_wide_beam_finds_the_best_of_all_texts(weight: float, bonus: float) -> None:
    model = toy.recognizer(3)
    encoded = toy.encoded()
    options = DecodingOptions("joint", beam_size=EVERYTHING, n_best=5, ctc_weight=weight, length_bonus=bonus, beam_threshold=1e9)
    found = decode(model, toy.TOKENIZER, encoded, SAMPLES, options)
    for row, best in enumerate(found):
        utterance = toy.one(encoded, row)
        by_ctc = toy.alignments(model.ctc_log_probabilities(utterance)[0].detach())
        scores = {
            text: (1 - weight) * toy.decoder_score(model, utterance, text) + weight * by_ctc.get(text, -1e9) + bonus * len(text)
            for text in toy.every_text()
        }
        ranking = sorted(scores, key=lambda text: -scores[text])[:5]
        several = [best, *best.alternatives]
        assert [hypothesis.tokens for hypothesis in several] == ranking
        assert [hypothesis.score for hypothesis in several] == pytest.approx([scores[text] for text in ranking], abs=1e-5)
        assert all(hypothesis.finish_reason == "stop" for hypothesis in several)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_normalised_by_length_the_best_is_still_found(exponent: float) -> None:
    model = toy.recognizer(4)
    encoded = toy.encoded()
    options = DecodingOptions("autoregressive", beam_size=EVERYTHING, length_normalization=exponent, beam_threshold=1e9)
    for row, best in enumerate(decode(model, toy.TOKENIZER, encoded, SAMPLES, options)):
        utterance = toy.one(encoded, row)
        scores = {text: toy.decoder_score(model, utterance, text) / (len(text) + 1) ** exponent for text in toy.every_text()}
        assert best.tokens == max(scores, key=lambda text: scores[text])
        assert best.score == pytest.approx(max(scores.values()), abs=1e-5)


@pytest.mark.parametrize("threshold", [0.7, 1.4])
def test_a_text_ends_only_where_the_decoder_would_end_it(threshold: float) -> None:
    model = toy.recognizer(3)
    encoded = toy.encoded()
    options = DecodingOptions("joint", beam_size=EVERYTHING, ctc_weight=0.5, stop_threshold=threshold, beam_threshold=1e9)
    some_may_not = 0
    for row, best in enumerate(decode(model, toy.TOKENIZER, encoded, SAMPLES, options)):
        utterance = toy.one(encoded, row)
        by_ctc = toy.alignments(model.ctc_log_probabilities(utterance)[0].detach())

        @cache
        def decoded(text: tuple[int, ...], stop: bool = False, utterance: Encoded = utterance) -> float:
            return toy.decoder_score(model, utterance, text, stop)

        may_end = [
            text
            for text in toy.every_text()
            if decoded(text, stop=True) - decoded(text)
            >= threshold * max(decoded((*text, token)) - decoded(text) for token in toy.SPOKEN)
        ]
        scores = {text: 0.5 * decoded(text, stop=True) + 0.5 * by_ctc.get(text, -1e9) for text in may_end}
        assert best.tokens == max(scores, key=lambda text: scores[text])
        some_may_not += len(may_end) < len(toy.every_text())
    assert some_may_not


@pytest.mark.parametrize("size", [1, EVERYTHING])
@pytest.mark.parametrize("share", [0.999, 1.001])
def test_a_text_is_empty_from_the_threshold_on_and_only_then(share: float, size: int) -> None:
    model = toy.recognizer(3)
    encoded = toy.encoded()
    assert model.decoder is not None
    empty = [math.exp(toy.decoder_score(model, toy.one(encoded, row), ())) for row in range(3)]
    settings = model.decoder.configuration
    model.decoder.configuration = settings.model_copy(update={"no_speech_threshold": share * sorted(empty)[1]})
    options = DecodingOptions("autoregressive", beam_size=size, beam_threshold=1e9)
    for row, best in enumerate(decode(model, toy.TOKENIZER, encoded, SAMPLES, options)):
        assert (best.tokens == ()) == (empty[row] >= share * sorted(empty)[1])
        assert best.finish_reason == "stop" or size == 1
        scores = {text: toy.decoder_score(model, toy.one(encoded, row), text) for text in toy.every_text() if text}
        if best.tokens and size > 1:
            assert best.tokens == max(scores, key=lambda text: scores[text])
        # What is forbidden at the start takes no probability from the others.
        assert best.score == pytest.approx(math.log(empty[row]) if not best.tokens else scores.get(best.tokens, best.score))


def test_the_shortest_text_goes_before_the_threshold() -> None:
    model = toy.recognizer(3)
    assert model.decoder is not None
    model.decoder.configuration = model.decoder.configuration.model_copy(update={"no_speech_threshold": 1e-9})
    for size in (1, 4):
        assert not any(
            each.tokens for each in decode(model, toy.TOKENIZER, toy.encoded(), SAMPLES, DecodingOptions(beam_size=size))
        )
        options = DecodingOptions(beam_size=size, minimum_length=0.5)
        assert all(each.tokens for each in decode(model, toy.TOKENIZER, toy.encoded(), SAMPLES, options))


class SmoothedSpeller:
    """Writes a text and then stops; at every step the others, and most of them the stop token, have a little."""

    gain = 0.0

    def __init__(self, text: Sequence[int], rows: int) -> None:
        self.text, self.said = text, [0] * rows

    def score(self, candidates: Tensor) -> Tensor:
        wanted = torch.tensor([[*self.text, toy.TOKENIZER.stop][min(said, len(self.text))] for said in self.said])
        little = torch.full(candidates.shape, math.log(0.01), dtype=torch.float64)
        little = little.masked_fill(candidates == toy.TOKENIZER.stop, math.log(0.05))
        return little.masked_fill(candidates == wanted[:, None], math.log(0.9))

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        self.said = [self.said[row] + 1 for row in rows.tolist()]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_texts_that_stop_at_once_do_not_end_the_search(size: int) -> None:
    model, samples = toy.recognizer(0, longest=20), [160_000] * 2
    encoded = Encoded(torch.randn(2, 40, 32), torch.tensor([40, 40]))
    text = (5, 6) * 4
    options = BeamOptions(size, length_normalization=1.0, decoder_weight=0.0)
    scorers = [(1.0, SmoothedSpeller(text, 2))]
    for (best,) in beam_search(model, toy.TOKENIZER, encoded, samples, options, scorers=scorers):
        assert (best.tokens, best.finish_reason) == (text, "stop")
        assert best.score == pytest.approx(math.log(0.9))


@pytest.mark.parametrize("decoder", ["joint", "rescoring"])
def test_a_model_says_what_its_ctc_head_is_worth_to_whoever_asks_it(decoder: DecoderName) -> None:
    model = toy.recognizer(0)
    assert DecodingOptions(decoder).resolved(model).ctc_weight == 0.3
    own = DecodingConfiguration(decoder="autoregressive", beam_size=5, ctc_weight=0.05)
    model.configuration = model.configuration.model_copy(update={"decoding": own})
    options = DecodingOptions(decoder).resolved(model)
    assert (options.ctc_weight, options.beam_size) == (0.05, 10)
    assert DecodingOptions(decoder, ctc_weight=0.5).resolved(model).ctc_weight == 0.5


def test_a_model_may_choose_to_normalise_by_length() -> None:
    model = toy.recognizer(0)
    assert DecodingOptions("autoregressive").resolved(model).length_normalization == 0
    model.configuration = model.configuration.model_copy(update={"decoding": DecodingConfiguration(length_normalization=1.0)})
    assert DecodingOptions().resolved(model).length_normalization == 1
    assert DecodingOptions(length_normalization=0.5).resolved(model).length_normalization == 0.5


@pytest.mark.parametrize("seed", range(6))
def test_beam_1_is_greedy_search(seed: int) -> None:
    model = test_greedy.recognizer(seed, suppressed=(0, 1, 2), suppressed_at_start=(3, 4))
    encoded, samples = test_greedy.random_encoded()
    greedy = greedy_search(model, test_greedy.TOKENIZER, encoded, samples)
    beam = beam_search(model, test_greedy.TOKENIZER, encoded, samples, BeamOptions(size=1))
    for one, (other,) in zip(greedy, beam, strict=True):
        assert one.tokens == other.tokens
        assert one.finish_reason == other.finish_reason
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)


@pytest.mark.parametrize("decoder", ["autoregressive", "joint"])
@pytest.mark.parametrize("seed", range(3))
def test_neighbours_do_not_matter_and_scores_are_the_texts(seed: int, decoder: str) -> None:
    model = test_greedy.recognizer(seed, suppressed=(0, 1, 2), suppressed_at_start=(3, 4))
    encoded, samples = test_greedy.random_encoded()
    options = DecodingOptions(decoder, beam_size=5, n_best=3)  # type: ignore[arg-type]
    together = decode(model, test_greedy.TOKENIZER, encoded, samples, options)
    for row, hypothesis in enumerate(together):
        (alone,) = decode(model, test_greedy.TOKENIZER, toy.one(encoded, row), samples[row : row + 1], options)
        assert [each.tokens for each in (alone, *alone.alternatives)] == [
            each.tokens for each in (hypothesis, *hypothesis.alternatives)
        ]
        assert alone.score == pytest.approx(hypothesis.score, abs=1e-4)
        assert len(hypothesis.log_probabilities) == len(hypothesis.tokens)
        scores = [each.score for each in (hypothesis, *hypothesis.alternatives) if each.finish_reason == "stop"]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("decoder", ["autoregressive", "joint"])
def test_no_narrow_beam_beats_the_widest(decoder: str) -> None:
    model = toy.recognizer(5)
    encoded = toy.encoded(rows=3)

    def search(size: int) -> list[Hypothesis]:
        options = DecodingOptions(decoder, beam_size=size, beam_threshold=1e9)  # type: ignore[arg-type]
        return decode(model, toy.TOKENIZER, encoded, SAMPLES, options)

    widest = search(EVERYTHING)
    for size in (1, 2, 4):
        for narrow, wide in zip(search(size), widest, strict=True):
            # One that was cut off lacks the stop token's score.
            assert narrow.score <= wide.score + 1e-6 or narrow.finish_reason != "stop"


def test_every_beam_is_bounded() -> None:
    for seed in range(4):
        model = test_greedy.recognizer(seed)
        encoded, samples = test_greedy.random_encoded(3)
        for hypothesis in decode(model, test_greedy.TOKENIZER, encoded, samples, DecodingOptions("joint", beam_size=3, n_best=3)):
            for each in (hypothesis, *hypothesis.alternatives):
                assert len(each.tokens) <= 8 + 30 * int(max(samples)) / 16000


def test_an_empty_batch_is_an_empty_answer() -> None:
    encoded = Encoded(torch.zeros(0, 4, 32), torch.zeros(0, dtype=torch.int64))
    assert decode(toy.recognizer(0), toy.TOKENIZER, encoded, [], DecodingOptions("autoregressive", beam_size=4)) == []


@pytest.mark.parametrize("seed", range(3))
def test_no_text_is_shorter_than_the_shortest_and_scores_stay(seed: int) -> None:
    model = toy.recognizer(seed)
    encoded = toy.encoded()
    for size in (1, EVERYTHING):
        options = DecodingOptions("autoregressive", beam_size=size, beam_threshold=1e9, minimum_length=0.51)
        for row, best in enumerate(decode(model, toy.TOKENIZER, encoded, SAMPLES, options)):
            shortest = int(0.51 * int(encoded.lengths[row]))
            assert len(best.tokens) >= shortest >= 1
            utterance = toy.one(encoded, row)
            scores = {text: toy.decoder_score(model, utterance, text) for text in toy.every_text() if len(text) >= shortest}
            if best.finish_reason == "stop":
                assert best.score == pytest.approx(scores[best.tokens], abs=1e-5)
            if size == EVERYTHING:
                assert best.tokens == max(scores, key=lambda text: scores[text])


def test_the_shortest_text_is_never_longer_than_the_longest() -> None:
    model = toy.recognizer(1)
    options = DecodingOptions("autoregressive", beam_size=3, minimum_length=100.0)
    for best in decode(model, toy.TOKENIZER, toy.encoded(), SAMPLES, options):
        assert len(best.tokens) == toy.LONGEST
        assert best.finish_reason == "length"
    with pytest.raises(ConfigurationError, match="minimum length -1"):
        replace(options, minimum_length=-1).resolved(model)


def test_impossible_values_are_refused() -> None:
    model = toy.recognizer(0)
    for wrong in (
        replace(DecodingOptions("joint"), beam_size=-1),
        replace(DecodingOptions("joint"), ctc_weight=1.5),
        DecodingOptions("joint", length_normalization=-1.0),
        DecodingOptions("joint", stop_threshold=-1.0),
        DecodingOptions("joint", latin_floor=0.5),
    ):
        with pytest.raises(ConfigurationError):
            wrong.resolved(model)
