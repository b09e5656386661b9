"""Mask-predict against a search written plainly, its schedule, its lengths and its bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.exceptions import ConfigurationError
from asr.model.checkpoint import Checkpoint
from asr.model.nonautoregressive import integrate_and_fire, rates_around
from asr.model.recognizer import Encoded, Recognizer
from asr.search.decoding import decode
from asr.search.hypothesis import Hypothesis
from asr.search.mask_predict import (
    MaskPredictSteps,
    ctc_rows,
    hidden_rows,
    likely_lengths,
    mask_predict_search,
    refine,
)
from asr.search.options import DecodingOptions
from asr.transcription.transcriber import Transcriber
from tests.search.parallel import TOKENIZER, WAYS, one_of, random_encoded, recognizer, second

NEVER = {TOKENIZER.blank, TOKENIZER.start, TOKENIZER.stop}


def plain(
    model: Recognizer, encoded: Encoded, known: list[int | None], iterations: int, rates: Tensor | None = None
) -> list[tuple[int, float]]:
    """Mask-predict of one text of known length, token by token in plain Python; ``known`` is what stays.

    ``rates`` are what each position holds of a token, those of the length predictor unless given.
    """
    decoder = second(model)
    asked = [place for place, token in enumerate(known) if token is None]
    tokens = [TOKENIZER.start if token is None else token for token in known]
    probabilities = [0.0] * len(tokens)
    embedding = None
    if decoder.length_predictor is not None:
        if rates is None:
            rates = decoder.length_predictor.rates(encoded.values, encoded.lengths)
        embedding = decoder.acoustic_embedding(encoded.values, rates, len(tokens) + 1, torch.tensor([len(tokens)]))
    for iteration in range(iterations):
        count = math.floor(len(asked) * (iterations - iteration) / iterations)
        chosen = sorted(asked, key=lambda place: (probabilities[place], place))[:count]
        row = [TOKENIZER.start if place in chosen else token for place, token in enumerate(tokens)] + [TOKENIZER.stop]
        logits = decoder(torch.tensor([row]), torch.tensor([len(row)]), encoded.values, encoded.lengths, acoustic=embedding)[0]
        for place in chosen:
            allowed = [token for token in range(len(TOKENIZER)) if token not in NEVER]
            shares = torch.softmax(torch.tensor([float(logits[place, token]) for token in allowed]), dim=0).tolist()
            probabilities[place] = max(shares)
            tokens[place] = allowed[shares.index(max(shares))]
    return list(zip(tokens, probabilities, strict=True))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("passes", ["one", "three", "length"])
def test_with_the_true_length_it_is_the_plain_search(seed: int, passes: str) -> None:
    model = recognizer(seed)
    encoded, _ = random_encoded()
    lengths = [7, 1, 12, 0, 4]
    for row, length in enumerate(lengths):
        iterations = {"one": 1, "three": 3, "length": max(length, 1)}[passes]
        bounds = torch.tensor(lengths)
        rows = hidden_rows(bounds, bounds[:, None], TOKENIZER.stop)
        rates = second(model).length_predictor.rates(encoded.values, encoded.lengths)  # type: ignore[union-attr]
        found = refine(second(model), encoded, rates, rows, iterations, TOKENIZER.start, NEVER)
        with torch.no_grad():
            expected = plain(model, one_of(encoded, row), [None] * length, iterations)
        assert found.tokens[row, :length].tolist() == [token for token, _ in expected]
        probabilities = [probability for _, probability in expected]
        assert found.log_probabilities[row, :length].exp().tolist() == pytest.approx(probabilities, abs=1e-4)
        # The given stop token, and nothing after it.
        assert set(found.tokens[row, length:].tolist()) == {TOKENIZER.stop}


def test_more_passes_change_the_answer() -> None:
    """The test above means something only if asking again gives other answers."""
    changed = 0
    for seed in range(3):
        model = recognizer(seed)
        encoded, samples = random_encoded()
        first, last = (mask_predict_search(model, TOKENIZER, encoded, samples, iterations=k) for k in (1, 5))
        changed += sum(a.tokens != b.tokens for a, b in zip(first, last, strict=True))
    assert changed >= 5


@given(length=st.integers(0, 30), iterations=st.integers(1, 12))
@settings(max_examples=30)
def test_what_is_hidden_follows_the_schedule(length: int, iterations: int) -> None:
    model = recognizer()
    encoded = Encoded(torch.randn(1, 9, 32), torch.tensor([9]))
    rows = hidden_rows(torch.tensor([length]), torch.tensor([[length]]), TOKENIZER.stop)
    steps = MaskPredictSteps()
    rates = second(model).length_predictor.rates(encoded.values, encoded.lengths)  # type: ignore[union-attr]
    with torch.no_grad():
        refine(second(model), encoded, rates, rows, iterations, TOKENIZER.start, NEVER, steps)
    assert len(steps.rows) == iterations + 1
    hidden = [sum(token is None for token in row) for row in steps.rows]
    assert hidden == [length * (iterations - n) // iterations for n in range(iterations)] + [0]
    assert hidden[0] == length
    assert hidden == sorted(hidden, reverse=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("iterations", [1, 4])
def test_an_utterance_is_the_same_alone_and_in_a_batch(way: Any, iterations: int) -> None:
    for seed in range(3):
        model = recognizer(seed)
        encoded, samples = random_encoded()
        candidates = 3 if way == "predictor" else 1
        together = mask_predict_search(model, TOKENIZER, encoded, samples, iterations, way, candidates)
        for row, hypothesis in enumerate(together):
            one = one_of(encoded, row)
            (alone,) = mask_predict_search(model, TOKENIZER, one, samples[row : row + 1], iterations, way, candidates)
            assert alone.tokens == hypothesis.tokens
            assert alone.text == hypothesis.text
            assert alone.finish_reason == hypothesis.finish_reason
            assert alone.score == pytest.approx(hypothesis.score, abs=1e-4)
            check(hypothesis, second(model).longest_text(int(samples[row])))


def check(hypothesis: Hypothesis, bound: int) -> None:
    assert len(hypothesis.tokens) == len(hypothesis.log_probabilities) <= bound
    assert not {TOKENIZER.blank, TOKENIZER.start, TOKENIZER.stop} & {*hypothesis.tokens}
    assert all(value <= 0 for value in hypothesis.log_probabilities)
    assert hypothesis.finish_reason == ("length" if len(hypothesis.tokens) == bound else "stop")
    assert hypothesis.text == TOKENIZER.decode(hypothesis.tokens).strip()


def test_what_follows_the_first_stop_token_never_reaches_the_text() -> None:
    endings = set()
    for seed in range(8):
        model = recognizer(seed)
        encoded, samples = random_encoded()
        bounds = torch.tensor([second(model).longest_text(int(count)) for count in samples])
        steps = MaskPredictSteps()
        found = mask_predict_search(model, TOKENIZER, encoded, samples, 2, "row", steps=steps)
        row = steps.rows[-1]
        assert len(row) == int(bounds[0]) + 1
        end = row.index(TOKENIZER.stop) if TOKENIZER.stop in row else len(row)
        endings.add((end < len(row), any(token != TOKENIZER.stop for token in row[end:])))
        assert list(found[0].tokens) == row[: min(end, len(row) - 1)]
    # Some stop early with other tokens after it.
    assert (True, True) in endings


def test_a_row_of_stop_tokens_is_no_text_and_a_row_without_is_cut_at_the_bound() -> None:
    model = recognizer()
    encoded, samples = random_encoded()
    embedding = second(model).token_embedding.weight
    norm = second(model).norm
    assert isinstance(norm, torch.nn.LayerNorm)
    with torch.no_grad():
        norm.weight.zero_()
        # The answer is the token whose embedding is most like the norm's bias.
        norm.bias.copy_(embedding[TOKENIZER.stop] * 100)
    for hypothesis in mask_predict_search(model, TOKENIZER, encoded, samples, 3, "row"):
        assert hypothesis == Hypothesis("", (), (), hypothesis.score, "stop")
    with torch.no_grad():
        norm.bias.copy_(embedding[9] * 100 - embedding[TOKENIZER.stop] * 100)
    for hypothesis, count in zip(mask_predict_search(model, TOKENIZER, encoded, samples, 3, "row"), samples, strict=True):
        bound = second(model).longest_text(int(count))
        assert hypothesis.tokens == (9,) * bound
        assert hypothesis.finish_reason == "length"


def test_predicted_lengths_of_nothing_and_of_the_most_there_is() -> None:
    model = recognizer(maximum_length=12)
    encoded, samples = random_encoded()
    predictor = second(model).length_predictor
    assert predictor is not None
    with torch.no_grad():
        predictor.rate.weight.zero_()
        predictor.rate.bias.fill_(-30.0)
    for candidates in (1, 4):
        for hypothesis in mask_predict_search(model, TOKENIZER, encoded, samples, 2, "predictor", candidates):
            assert hypothesis == Hypothesis("", (), (), 0.0, "stop")
    with torch.no_grad():
        predictor.rate.bias.fill_(30.0)
    for hypothesis, count in zip(mask_predict_search(model, TOKENIZER, encoded, samples), samples, strict=True):
        assert len(hypothesis.tokens) == second(model).longest_text(int(count)) <= 11
        assert hypothesis.finish_reason == "length"


def test_the_best_of_several_lengths_is_the_best_of_each() -> None:
    model = recognizer(1)
    encoded, samples = random_encoded()
    predictor = second(model).length_predictor
    assert predictor is not None
    rates = predictor.rates(encoded.values, encoded.lengths)
    bounds = torch.tensor([second(model).longest_text(int(count)) for count in samples])
    found = mask_predict_search(model, TOKENIZER, encoded, samples, 3, "predictor", 3)
    several = likely_lengths(predictor(rates), bounds, 3)
    lengths = set()
    for row, best in enumerate(found):
        scores = {}
        for size in several[row].tolist():
            with torch.no_grad():
                expected = plain(model, one_of(encoded, row), [None] * size, 3)
            scores[size] = sum(math.log(probability) for _, probability in expected) / max(size, 1)
        assert best.score == pytest.approx(max(scores.values()), abs=1e-3)
        assert len(best.tokens) == max(scores, key=lambda size: scores[size])
        lengths.add(several[row].tolist().index(len(best.tokens)))
    assert lengths != {0}  # not always the most probable


@given(centre=st.floats(0, 30), bound=st.integers(0, 20), candidates=st.integers(1, 30), spread=st.floats(0.3, 5))
@settings(max_examples=60)
def test_likely_lengths_are_the_most_probable_ones_within_the_bound(
    centre: float, bound: int, candidates: int, spread: float
) -> None:
    values = (-0.5 * ((torch.arange(25) - centre) / spread).square()).log_softmax(0)
    (found,) = likely_lengths(values[None], torch.tensor([bound]), candidates).tolist()
    best = min(int(values.argmax()), bound)
    assert found[0] == best
    assert all(0 <= size <= bound for size in found)
    if best > 0:
        assert 0 not in found
        others = sorted({*range(1, bound + 1)} - {best}, key=lambda size: -float(values[size]))
        expected = {best, *others[: candidates - 1]}
        assert {float(values[size]) for size in found} == {float(values[size]) for size in expected}


def nearest(places: list[int], positions: int) -> list[int | None]:
    """The token whose place is nearest to each position, the later of two; None beyond five positions."""
    found: list[int | None] = []
    for position in range(positions):
        distances = {token: abs(place - position) for token, place in enumerate(places)}
        token = min(distances, key=lambda each: (distances[each], -each), default=None)
        found.append(token if token is not None and distances[token] <= 5 else None)
    return found


@given(data=st.data(), positions=st.integers(1, 60))
def test_positions_hold_equal_parts_of_the_token_that_is_nearest(data: st.DataObject, positions: int) -> None:
    places = sorted(data.draw(st.sets(st.integers(0, positions - 1))))
    near = nearest(places, positions)
    expected = [1 / near.count(token) if token is not None else 0.0 for token in near]
    rates = rates_around(places, positions)
    assert rates.tolist() == pytest.approx(expected)
    values = torch.randn(1, positions, 4)
    fired = integrate_and_fire(values, rates[None], len(places))[0]
    for token in range(len(places)):
        own = [position for position in range(positions) if near[position] == token]
        torch.testing.assert_close(fired[token], values[0, own].mean(dim=0), atol=1e-4, rtol=1e-4)


def test_tokens_that_ctc_is_sure_of_stay() -> None:
    model = recognizer(2)
    encoded, samples = random_encoded()
    assert model.ctc is not None
    bounds = torch.tensor([second(model).longest_text(int(count)) for count in samples])
    rows, rates = ctc_rows(model, TOKENIZER, encoded, bounds, threshold=0.4)
    kept = hidden = 0
    for row, (path, length) in enumerate(
        zip(model.ctc_log_probabilities(encoded).detach(), encoded.lengths.tolist(), strict=True)
    ):
        text: list[list[float]] = []
        before = None
        places: list[int] = []
        for place, position in enumerate(path[:length]):
            probability, token = position.exp().max(dim=-1)
            if token != before and token != TOKENIZER.blank:
                text.append([int(token), float(probability)])
                places.append(place)
            elif token == before and token != TOKENIZER.blank and float(probability) > text[-1][1]:
                text[-1][1], places[-1] = float(probability), place
            before = token
        size = int(rows.texts[row]) if rows.texts is not None else -1
        assert size == len(text) <= int(bounds[row])
        known = [int(token) if probability >= 0.4 else None for token, probability in text]
        seen = [None if unknown else token for token, unknown in zip(rows.tokens[row].tolist(), rows.hidden[row], strict=True)]
        assert seen[:size] == known
        kept, hidden = kept + sum(token is not None for token in known), hidden + known.count(None)
        near = nearest(places, length)
        parts = torch.tensor([[1 / near.count(token) if token is not None else 0.0 for token in near]])
        torch.testing.assert_close(rates[row, :length], parts[0])
        assert not rates[row, length:].any()
        for iterations in (1, 3):
            (found,) = mask_predict_search(
                model, TOKENIZER, one_of(encoded, row), samples[row : row + 1], iterations, "ctc", ctc_threshold=0.4
            )
            with torch.no_grad():
                expected = plain(model, one_of(encoded, row), known, iterations, parts)
            assert list(found.tokens) == [token for token, _ in expected]
    assert kept > 3
    assert hidden > 3


def test_a_text_that_ctc_is_sure_of_needs_no_pass() -> None:
    model = recognizer(2)
    encoded, samples = random_encoded()
    found = mask_predict_search(model, TOKENIZER, encoded, samples, 4, "ctc", ctc_threshold=0.0)
    by_ctc = decode(model, TOKENIZER, encoded, samples, DecodingOptions("ctc"))
    assert [each.tokens for each in found] == [each.tokens for each in by_ctc]


@pytest.mark.parametrize("way", WAYS)
def test_silence_noise_and_almost_nothing_have_a_bounded_answer(way: Any) -> None:
    model = recognizer(3)
    transcriber = Transcriber(Checkpoint(model, TOKENIZER), DecodingOptions("nonautoregressive", length_by=way))
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    sounds = [np.zeros(16_000, np.float32), noise, np.zeros(1, np.float32), noise[:0]]
    found = transcriber.decode(sounds)
    assert len(found) == len(sounds)
    for sound, hypothesis in zip(sounds, found, strict=True):
        check(hypothesis, second(model).longest_text(len(sound)))


def test_an_empty_batch_is_an_empty_answer() -> None:
    encoded = Encoded(torch.zeros(0, 4, 32), torch.zeros(0, dtype=torch.int64))
    assert mask_predict_search(recognizer(), TOKENIZER, encoded, []) == []


def test_suppressed_tokens_are_not_emitted() -> None:
    encoded, samples = random_encoded()
    free = mask_predict_search(recognizer(), TOKENIZER, encoded, samples)
    often = max({token for each in free for token in each.tokens}, key=lambda t: sum(each.tokens.count(t) for each in free))
    for hypothesis in mask_predict_search(recognizer(suppressed=(often,)), TOKENIZER, encoded, samples):
        assert often not in hypothesis.tokens


def test_options_reach_the_search_and_what_is_not_there_is_refused() -> None:
    model = recognizer(1)
    encoded, samples = random_encoded()
    options = DecodingOptions("nonautoregressive", iterations=2, length_by="predictor", length_candidates=3)
    expected = mask_predict_search(model, TOKENIZER, encoded, samples, 2, "predictor", 3)
    assert decode(model, TOKENIZER, encoded, samples, options) == expected
    # What a model has besides CTC writes without being asked to.
    assert decode(model, TOKENIZER, encoded, samples, DecodingOptions()) == mask_predict_search(
        model, TOKENIZER, encoded, samples
    )
    assert options.resolved(model).describe() == "nonautoregressive, length by predictor, best of 3 lengths, 2 iterations"
    with pytest.raises(ConfigurationError, match=r"not trained to find its length by ctc; use --length-by row\."):
        DecodingOptions("nonautoregressive", length_by="ctc").resolved(recognizer(lengths=("row",)))
    with pytest.raises(ConfigurationError, match="0 iterations"):
        DecodingOptions("nonautoregressive", iterations=0).resolved(model)
    model.nonautoregressive = None
    with pytest.raises(ConfigurationError, match=r"no non-autoregressive decoder; use --decoder ctc\."):
        DecodingOptions("nonautoregressive").resolved(model)
