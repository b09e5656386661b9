"""Scores of the second pass against scores from scratch, for heads with one vocabulary and with two."""

from __future__ import annotations

import pytest
import torch

from asr.search import language_model
from asr.search.ctc import ctc_greedy_search
from asr.search.decoding import decode
from asr.search.hearing import Hearing
from asr.search.hypothesis import Hypothesis
from asr.search.options import DecodingOptions
from asr.search.rescoring import ctc_scores
from asr.text.tokenizer import CharacterTokenizer
from asr.training.ngrams import estimate, vocabulary
from tests.search import toy

SAMPLES = [16000] * 3


def test_scores_of_ctc_are_those_of_all_alignments() -> None:
    generator = torch.Generator().manual_seed(0)
    log_probabilities = (2 * torch.randn(5, 4, generator=generator)).log_softmax(dim=-1)
    every = toy.alignments(log_probabilities)
    texts = [*every, (1, 1, 1, 1), (3, 3, 3, 3)]
    expected = [max(every.get(text, -1e9), -1e4) for text in texts]
    assert ctc_scores(log_probabilities, texts, 0) == pytest.approx(expected, abs=1e-5)
    assert ctc_scores(log_probabilities[:0], [(), (1,)], 0) == [0.0, -1e4]
    assert ctc_scores(log_probabilities, [], 0) == []


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_with_one_vocabulary_scores_are_those_from_scratch(weight: float) -> None:
    model = toy.recognizer(7)
    encoded = toy.encoded()
    grams = language_model.NgramLanguageModel(estimate([[3, 4], [4, 4, 5], [5]] * 3, vocabulary(("<space>", "a", "b")), 2))
    options = DecodingOptions(
        "rescoring",
        beam_size=60,
        n_best=60,
        ctc_weight=weight,
        length_bonus=0.2,
        language_model=grams,
        language_model_weight=0.5,
    )
    for row, best in enumerate(decode(model, toy.TOKENIZER, encoded, SAMPLES, options)):
        utterance = toy.one(encoded, row)
        by_ctc = toy.alignments(model.ctc_log_probabilities(utterance)[0].detach())
        texts = [text for text in toy.every_text() if text in by_ctc]
        languages = language_model.score_texts(grams, toy.TOKENIZER, texts)
        scores = {
            text: (1 - weight) * toy.decoder_score(model, utterance, text)
            + weight * by_ctc[text]
            + 0.2 * len(text)
            + 0.5 * language
            for text, language in zip(texts, languages, strict=True)
        }
        several = [best, *best.alternatives]
        spoken = [each for each in several if each.tokens in scores]
        assert len(spoken) >= 5
        assert [each.score for each in spoken] == pytest.approx([scores[each.tokens] for each in spoken], abs=1e-3)
        assert [each.score for each in several] == sorted((each.score for each in several), reverse=True)


def test_with_two_vocabularies_the_text_is_written_anew() -> None:
    model = toy.recognizer(8)
    letters = CharacterTokenizer.build(["ABC"], toy.TOKENIZER.configuration.model_copy(update={"case": "upper"}))
    model.ctc = torch.nn.Linear(32, len(letters))
    torch.nn.init.normal_(model.ctc.weight, std=0.1)
    encoded = toy.encoded()
    options = DecodingOptions("rescoring", beam_size=6, n_best=6, ctc_weight=0.5)
    found = decode(model, toy.TOKENIZER, encoded, SAMPLES, options, letters)
    for row, best in enumerate(found):
        utterance = toy.one(encoded, row)
        log_probabilities = model.ctc_log_probabilities(utterance)[0].detach()
        for each in (best, *best.alternatives):
            if each.finish_reason != "stop":
                continue
            (by_ctc,) = ctc_scores(log_probabilities, [letters.encode(each.text)], 0)
            decoder = toy.decoder_score(model, utterance, each.tokens)
            assert each.score == pytest.approx(0.5 * decoder + 0.5 * by_ctc, abs=1e-4)
        ended = [each.score for each in (best, *best.alternatives) if each.finish_reason == "stop"]
        assert ended == sorted(ended, reverse=True)


def test_ctc_decides_whether_repetition_is_a_loop() -> None:
    letters = CharacterTokenizer.build(["abno y"])
    tokens = tuple(letters.encode("no no no no no"))
    hearing = Hearing(Hypothesis("no no no no no", tokens, (-0.1,) * len(tokens), -1.0, "stop"), letters, letters)
    assert hearing.repeats(letters.encode("no ")) == 5
    assert hearing.repeats(letters.encode(" no")) == 5
    assert hearing.repeats(letters.encode("nono")) == 2
    assert hearing.repeats(letters.encode("a")) == 0
    assert hearing.has_speech()
    assert not Hearing(Hypothesis("", (), (), 0.0, "stop"), letters, letters).has_speech()
    unsure = Hypothesis("no no", tokens[:5], (-2.0,) * 5, -10.0, "stop")
    assert not Hearing(unsure, letters, letters).has_speech()


def test_nothing_of_the_decoder_is_what_ctc_is_sure_of() -> None:
    model = toy.recognizer(9)
    encoded = toy.encoded(rows=2, positions=20)
    assert model.decoder is not None
    assert model.ctc is not None
    with torch.no_grad():
        model.ctc.weight.zero_()
        model.ctc.weight[toy.SPOKEN[1]] = 1.0
        model.ctc.weight[toy.SPOKEN[2]] = -1.0
        model.ctc.weight *= 4
    best_paths = ctc_greedy_search(model, toy.TOKENIZER, encoded)
    for decoder in ("autoregressive", "joint"):
        options = DecodingOptions(decoder, beam_size=3)  # type: ignore[arg-type]
        # A decoder that only ever stops.
        model.decoder.scores = (
            lambda states: (
                torch.nn.functional.one_hot(  # type: ignore[method-assign]
                    torch.full(states.shape[:-1], toy.TOKENIZER.stop), len(toy.TOKENIZER)
                )
                * 1000.0
            )
        )
        found = decode(model, toy.TOKENIZER, encoded, [32000] * 2, options)
        assert [each.text for each in found] == [each.text for each in best_paths]
        assert all(each.text for each in found)
        # One that says from which probability on nothing was said has been asked.
        settings = model.decoder.configuration
        model.decoder.configuration = settings.model_copy(update={"no_speech_threshold": 0.5})
        assert not any(each.text for each in decode(model, toy.TOKENIZER, encoded, [32000] * 2, options))
        model.decoder.configuration = settings
