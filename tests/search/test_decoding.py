"""One entrance: each decoder's name reaches its search, and what a model has not is said in one sentence."""

from __future__ import annotations

import pytest

from asr.cli.decoding import DecoderChoice
from asr.exceptions import ConfigurationError
from asr.search.ctc import ctc_greedy_search
from asr.search.decoding import decode
from asr.search.greedy import greedy_search
from asr.search.options import DECODERS, DecodingOptions
from tests.search.test_greedy import TOKENIZER, random_encoded, recognizer


def test_names_reach_their_search() -> None:
    model = recognizer(1)
    encoded, samples = random_encoded()
    assert decode(model, TOKENIZER, encoded, samples, DecodingOptions("ctc")) == ctc_greedy_search(model, TOKENIZER, encoded)
    model.ctc = None  # which would otherwise have a say in what is a loop
    autoregressive = greedy_search(model, TOKENIZER, encoded, samples)
    assert decode(model, TOKENIZER, encoded, samples, DecodingOptions("autoregressive")) == autoregressive
    assert decode(model, TOKENIZER, encoded, samples, DecodingOptions()) == autoregressive


def test_the_command_line_knows_the_same_names() -> None:
    assert tuple(choice.value for choice in DecoderChoice) == DECODERS


def test_what_the_model_has_not_is_refused() -> None:
    model = recognizer(1)
    model.ctc = None
    with pytest.raises(ConfigurationError, match=r"no CTC head, which ctc needs; use --decoder autoregressive\."):
        DecodingOptions("ctc").resolved(model)
    model.decoder = None
    with pytest.raises(ConfigurationError, match=r"no autoregressive decoder, which autoregressive needs; use --decoder ctc\."):
        DecodingOptions("autoregressive").resolved(model)
    with pytest.raises(ConfigurationError, match="'greedy' is unknown"):
        DecodingOptions("greedy").resolved(recognizer(1))  # type: ignore[arg-type]
