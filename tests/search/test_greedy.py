"""Greedy search against a search without cache and batch, its bounds, and loops found where there are some."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.model.configuration import DecoderConfiguration, EncoderConfiguration, ModelConfiguration
from asr.model.recognizer import Encoded, Recognizer
from asr.search.bounds import length_bound, repetition
from asr.search.greedy import greedy_search
from asr.text.tokenizer import CharacterTokenizer

TOKENIZER = CharacterTokenizer.build(["the quick brown fox jumps over the lazy dog"])


def recognizer(seed: int, **settings: object) -> Recognizer:
    """A random model that talks: weights are large, and the stop token is as likely as the others."""
    torch.manual_seed(seed)
    model = Recognizer(
        ModelConfiguration(
            encoder=EncoderConfiguration(layers=1, width=32, feed_forward=64),
            decoder=DecoderConfiguration.model_validate({"layers": 1, "feed_forward": 64, **settings}),
        ),
        len(TOKENIZER),
    )
    assert model.decoder is not None
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.5)
        # The output layer is the embedding: a small one in, so that a token does not make itself the next.
        model.decoder.token_embedding.weight *= 0.1
        model.decoder.token_embedding.weight[TOKENIZER.stop] *= 1.5
    return model.eval()


def random_encoded(rows: int = 5) -> tuple[Encoded, Tensor]:
    lengths = torch.randint(3, 20, (rows,))
    return Encoded(torch.randn(rows, 20, 32), lengths), lengths * 640


def reference(model: Recognizer, encoded: Encoded, bound: int, prompt: list[int]) -> list[int]:
    """The most probable token, each time from the whole text anew, until stop or bound."""
    assert model.decoder is not None
    settings, tokens = model.decoder.configuration, list(prompt)
    while len(tokens) - len(prompt) < bound:
        logits = model.decoder(torch.tensor([tokens]), encoded.values, encoded.lengths)[0, -1]
        never = {*settings.suppressed, *(settings.suppressed_at_start if len(tokens) == len(prompt) else ())}
        best = max((n for n in range(len(TOKENIZER)) if n not in never), key=lambda n: float(logits[n]))
        if best == TOKENIZER.stop:
            break
        tokens.append(best)
        if repetition(tokens[len(prompt) :]):
            return tokens[len(prompt) : len(tokens) - repetition(tokens[len(prompt) :])]
    return tokens[len(prompt) :]


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@pytest.mark.parametrize("seed", range(6))
def test_finds_what_a_plain_search_finds(seed: int, positions: str) -> None:
    model = recognizer(seed, positions=positions, suppressed=(0, 1, 2), suppressed_at_start=(3, 4))
    encoded, samples = random_encoded()
    together = greedy_search(model, TOKENIZER, encoded, samples)
    assert len(together) == 5
    for row, hypothesis in enumerate(together):
        one = Encoded(encoded.values[row : row + 1, : encoded.lengths[row]], encoded.lengths[row : row + 1])
        (alone,) = greedy_search(model, TOKENIZER, one, samples[row : row + 1])
        assert alone.tokens == hypothesis.tokens
        assert alone.text == hypothesis.text == TOKENIZER.decode(hypothesis.tokens)
        assert alone.finish_reason == hypothesis.finish_reason
        assert alone.score == pytest.approx(hypothesis.score, abs=1e-3)
        bound = length_bound(model, int(samples[row]), 1)
        with torch.no_grad():
            assert list(hypothesis.tokens) == reference(model, one, bound, [TOKENIZER.start])
        assert len(hypothesis.tokens) == len(hypothesis.log_probabilities)
        assert (hypothesis.finish_reason == "length") == (len(hypothesis.tokens) == bound)
        assert not {0, 1, 2, 3} & {*hypothesis.tokens}
        assert hypothesis.tokens[:1] != (4,)
        assert all(value <= 0 for value in hypothesis.log_probabilities)


def test_the_models_end_in_every_way() -> None:
    """The test above means something only if its models stop, are cut off and repeat themselves."""
    reasons = set()
    for seed in range(6):
        model = recognizer(seed, suppressed=(0, 1, 2), suppressed_at_start=(3, 4))
        reasons |= {hypothesis.finish_reason for hypothesis in greedy_search(model, TOKENIZER, *random_encoded())}
    assert reasons == {"stop", "length", "repetition"}


def test_a_prompt_is_read_and_not_emitted() -> None:
    model = recognizer(0, suppressed=(0, 1, 2, 3))
    encoded, samples = random_encoded(1)
    prompt = ["<sos>", "t", "h", "e"]
    (found,) = greedy_search(model, TOKENIZER, encoded, samples, prompt=prompt)
    one = Encoded(encoded.values, encoded.lengths)
    with torch.no_grad():
        expected = reference(model, one, length_bound(model, int(samples), 4), [TOKENIZER.identifier(token) for token in prompt])
    assert list(found.tokens) == expected


def test_an_empty_batch_is_an_empty_answer() -> None:
    encoded = Encoded(torch.zeros(0, 4, 32), torch.zeros(0, dtype=torch.int64))
    assert greedy_search(recognizer(0), TOKENIZER, encoded, []) == []


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(2, 60), st.floats(0.5, 50))
@settings(max_examples=40)
def test_the_bound_fits_the_positions(samples: int, prompt: int, maximum: int, rate: float) -> None:
    model = Recognizer(
        ModelConfiguration(
            encoder=EncoderConfiguration(layers=1, width=4, feed_forward=1),
            decoder=DecoderConfiguration(layers=1, feed_forward=1, maximum_length=maximum, tokens_per_second=rate),
        ),
        5,
    )
    bound = length_bound(model, samples, prompt)
    assert bound >= 1
    assert bound <= 8 + rate * samples / 16000
    # The last token is emitted and never read, so prompt and all others have a position.
    assert prompt >= maximum or prompt + bound <= maximum


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.lists(st.integers(0, 5), max_size=10))
def test_a_pattern_said_again_and_again_is_a_loop(pattern: list[int], before: list[int]) -> None:
    tokens = before + pattern * 12
    excess = repetition(tokens)
    assert excess > 0
    assert tokens[: len(tokens) - excess][-1] == tokens[-1]


def by_definition(tokens: list[int]) -> set[int]:
    """Lengths of patterns that the end repeats, found by trying all: at least 4 times and over at least 12 tokens."""
    found = set()
    for length in range(1, 33):
        repeats = next(n for n in range(4, 13) if n * length >= 12)
        if len(tokens) >= length * repeats and tokens[-length * repeats :] == tokens[-length:] * repeats:
            found.add(length * (repeats - 1))
    return found


@given(
    st.lists(st.integers(0, 1), max_size=60)
    | st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=3).map(lambda parts: [*chain(*parts)] * 4)
)
@settings(max_examples=200)
def test_a_loop_is_its_definition(tokens: list[int]) -> None:
    expected = by_definition(tokens)
    excess = repetition(tokens)
    assert excess in (expected or {0})
    # One saying of the pattern stays.
    if excess:
        assert len(tokens) - excess >= 1


@given(st.integers(1, 60))
def test_text_without_repetition_is_no_loop(length: int) -> None:
    assert repetition(list(range(length))) == 0
    assert repetition([*range(length), 7, 7, 7]) == 0
