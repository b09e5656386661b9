"""Languages of a multilingual vocabulary, with a small model whose scores are computed beside it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from asr.exceptions import ConfigurationError
from asr.model.checkpoint import Checkpoint
from asr.model.recognizer import Encoded, Recognizer
from asr.search.language import check, detect_languages, languages, options_by_language, prompt
from asr.search.options import DecodingOptions
from tests.search.multilingual import PROMPT, small_multilingual


@pytest.fixture(scope="module")
def multilingual() -> Checkpoint:
    return small_multilingual()


@pytest.fixture(scope="module")
def encoded() -> Encoded:
    generator = torch.Generator().manual_seed(1)
    return Encoded(torch.randn(6, 9, 16, generator=generator) * 9, torch.tensor([9, 9, 5, 9, 7, 9]))


def test_the_language_is_the_most_probable_after_the_start_token(multilingual: Checkpoint, encoded: Encoded) -> None:
    known = languages(multilingual)
    assert len(known) == 99
    decoder, tokenizer = multilingual.model.decoder, multilingual.tokenizer
    assert decoder is not None
    for row, heard in enumerate(detect_languages(multilingual, encoded)):
        start = torch.tensor([[tokenizer.identifier("<|startoftranscript|>")]])
        with torch.inference_mode():
            logits = decoder(start, encoded.values[row : row + 1], encoded.lengths[row : row + 1])[0, 0].tolist()
        assert heard.code == max(known, key=lambda code: logits[known[code]])
        scores = torch.tensor([logits[number] for number in known.values()])
        assert heard.probability == pytest.approx(float(scores.softmax(0).max()), rel=1e-4)


def test_a_handicap_takes_from_the_models_own_language(multilingual: Checkpoint, encoded: Encoded) -> None:
    settings = multilingual.model.configuration
    multilingual.model.configuration = settings.model_copy(update={"language": "zh"})
    try:
        two = detect_languages(multilingual, encoded, ["en", "zh"])
        odds = [math.log(each.probability / (1 - each.probability)) * (1 if each.code == "en" else -1) for each in two]
        for shift in (-3.0, 0.5, 4.0):
            again = detect_languages(multilingual, encoded, ["en", "zh"], shift)
            assert [each.code for each in again] == ["en" if each + shift > 0 else "zh" for each in odds]
            expected = [1 / (1 + math.exp(-abs(each + shift))) for each in odds]
            assert [each.probability for each in again] == pytest.approx(expected, rel=1e-4)
    finally:
        multilingual.model.configuration = settings


def test_rows_are_searched_language_by_language(multilingual: Checkpoint, encoded: Encoded) -> None:
    options = DecodingOptions(beam_size=3)
    [(rows, chinese)] = options_by_language(multilingual, encoded, options, "zh")
    assert rows == list(range(6))
    assert chinese == DecodingOptions(beam_size=3, prompt=(PROMPT[0], "<|zh|>", *PROMPT[2:]))
    groups = options_by_language(multilingual, encoded, options, "auto")
    heard = detect_languages(multilingual, encoded)
    assert sorted(row for rows, _ in groups for row in rows) == list(range(6))
    for rows, found in groups:
        assert found.prompt is not None
        assert {f"<|{heard[row].code}|>" for row in rows} == {found.prompt[1]}
    assert options_by_language(multilingual, encoded, options, None) == [(list(range(6)), options)]


def test_a_model_made_for_one_language_can_be_asked_for_another(multilingual: Checkpoint) -> None:
    model = multilingual.model
    only = replace(multilingual, model=Recognizer(model.configuration.model_copy(update={"language": "zh"}), model.vocabulary))
    assert not languages(only)
    assert prompt(only, "de") == (PROMPT[0], "<|de|>", *PROMPT[2:])
    with pytest.raises(ConfigurationError, match=r"'xx': the model has no token for it; it has en, zh"):
        prompt(only, "xx")


def test_a_language_that_is_not_there(multilingual: Checkpoint) -> None:
    check(multilingual, "de")
    with pytest.raises(ConfigurationError, match=r"'xx'.*auto or one of en, zh"):
        check(multilingual, "xx")
