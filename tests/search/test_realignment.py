"""CTC's text written anew: its rows against their definition, the search against one written plainly."""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.model.recognizer import Encoded, Recognizer
from asr.search import realignment
from asr.search.ctc import Spike, ctc_greedy_search
from asr.search.mask_predict import MaskPredictSteps, mask_predict_search
from asr.search.realignment import alignment_rows, realign_search
from tests.search import parallel
from tests.search.parallel import TOKENIZER, one_of, second

BLANK = TOKENIZER.blank


def recognizer(seed: int = 0, **changes: Any) -> Recognizer:
    """One whose CTC says nothing at about every second position, or hardly a row would be shorter than its bound."""
    model = parallel.recognizer(seed, lengths=("alignment",), **changes)
    assert model.ctc is not None
    with torch.no_grad():
        model.ctc.bias[BLANK] += 3.0
    return model


def random_encoded(rows: int = 5) -> tuple[Encoded, Tensor]:
    return parallel.random_encoded(rows, longest=30, samples=1600)


def heard(places: list[int], positions: int) -> list[tuple[int, set[int]]]:
    """Where each place of a row is, and the positions that it hears, by the definition."""
    edges = [0, *places, positions - 1]
    found: list[tuple[int, set[int]]] = []
    for number, (before, behind) in enumerate(pairwise(edges)):
        if number:
            # The later of two tokens has what is as near to both; of two at one place the first has what is before it.
            own = {
                position
                for position in range(max(0, before - 5), min(positions, before + 6))
                if all(
                    position < before if other == before else abs(position - before) < abs(position - other)
                    for other in places[number:]
                )
                and all(
                    position >= before if other == before else abs(position - before) <= abs(position - other)
                    for other in places[: number - 1]
                )
            }
            found.append((before, own | {before}))
        found.append(((before + behind) // 2, set(range(before, behind + 1))))
    return found


@given(data=st.data(), positions=st.integers(1, 60))
@settings(max_examples=80)
def test_a_row_has_the_tokens_and_a_place_before_between_and_behind_them(data: st.DataObject, positions: int) -> None:
    # Of a later pass several may be at one place.
    places = sorted(data.draw(st.lists(st.integers(0, positions - 1), max_size=40)))
    tokens = [data.draw(st.integers(4, 9)) for _ in places]
    text = [Spike(token, place, -0.5) for token, place in zip(tokens, places, strict=True)]
    # Another, longer text: its padding must not reach this one.
    other = [Spike(5, place, -0.5) for place in range(40)]
    rows = alignment_rows([text, other], [positions, 60], BLANK, 1.0)
    length = int(rows.lengths[0])
    row = rows.tokens[0].tolist()
    assert length == 2 * len(places) + 1
    assert row[1:length:2] == tokens
    assert set(row[0:length:2]) == {BLANK}
    for number, (place, own) in enumerate(heard(places, positions)):
        assert int(rows.places[0, number]) == place
        assert set(range(int(rows.begins[0, number]), int(rows.ends[0, number]))) == own


@given(data=st.data(), threshold=st.sampled_from([0.0, 0.5, 0.9, 1.0]))
@settings(max_examples=60)
def test_between_two_tokens_that_are_sure_there_is_no_place(data: st.DataObject, threshold: float) -> None:
    places = sorted(data.draw(st.sets(st.integers(0, 29))))
    text = [Spike(data.draw(st.integers(4, 6)), place, math.log(data.draw(st.sampled_from([0.3, 0.8, 1.0])))) for place in places]
    rows = alignment_rows([text], [30], BLANK, threshold)
    whole = alignment_rows([text], [30], BLANK, 1.0)
    expected = []
    for number in range(len(text) + 1):
        pair = text[max(number - 1, 0) : number + 1]
        sure = len(pair) == 2 and all(math.exp(each.log_probability) > threshold for each in pair)
        if not sure or pair[0].token == pair[1].token:
            expected.append(2 * number)
        if number < len(text):
            expected.append(2 * number + 1)
    # What is left is as it is in the row with all places, and reads as the text does.
    for left, all_ in zip(vars(rows).values(), vars(whole).values(), strict=True):
        if left.dim() == 2:
            assert torch.equal(left[0], all_[0, expected])
    assert [token for token, _ in groupby(rows.tokens[0].tolist()) if token != BLANK] == [each.token for each in text]


def plain(model: Recognizer, encoded: Encoded, iterations: int, bound: int, threshold: float) -> list[tuple[int, float]]:
    """The search of one utterance, place by place in plain Python."""
    decoder = second(model)
    assert decoder.acoustic is not None
    count = int(encoded.lengths)
    path = model.ctc_log_probabilities(encoded)[0, :count]
    said = [(int(position.argmax()), float(position.max()), place) for place, position in enumerate(path)]
    never = [TOKENIZER.start, TOKENIZER.stop]
    for _ in range(iterations + 1):
        # Of those that say the same in a row the surest, then none of the blanks.
        text = [max(group, key=lambda each: each[1]) for _, group in groupby(said, key=lambda each: each[0])]
        text = [each for each in text if each[0] != BLANK][:bound]
        if _ == iterations:
            break
        at = heard([place for _, _, place in text], count)
        row = [BLANK] * len(at)
        row[1::2] = [token for token, _, _ in text]
        # No place between two different tokens that are sure.
        sure = [math.exp(value) > threshold for _, value, _ in text]
        pairs = {2 * n for n in range(1, len(text)) if sure[n - 1] and sure[n] and text[n - 1][0] != text[n][0]}
        at, row = ([each for n, each in enumerate(column) if n not in pairs] for column in (at, row))
        means = torch.stack([encoded.values[0, sorted(own)].mean(dim=0) for _, own in at])
        logits = decoder(
            torch.tensor([row]), torch.tensor([len(row)]), encoded.values, encoded.lengths, acoustic=decoder.acoustic(means)[None]
        )[0]
        logits[:, never] = float("-inf")
        answers = logits.log_softmax(dim=-1)
        said = [(int(answer.argmax()), float(answer.max()), at[n][0]) for n, answer in enumerate(answers)]
    return [(token, value) for token, value, _ in text]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [1.0, 0.5])
def test_it_is_the_plain_search_in_a_batch_and_alone(seed: int, threshold: float) -> None:
    model = recognizer(seed, tokens_per_second=6)
    encoded, samples = random_encoded(8)
    reasons = set()
    for iterations in (1, 2, 4):
        found = realign_search(model, TOKENIZER, encoded, samples, iterations, threshold)
        for row, hypothesis in enumerate(found):
            bound = second(model).longest_text(int(samples[row]))
            with torch.no_grad():
                expected = plain(model, one_of(encoded, row), iterations, bound, threshold)
            assert list(hypothesis.tokens) == [token for token, _ in expected]
            assert list(hypothesis.log_probabilities) == pytest.approx([value for _, value in expected], abs=1e-4)
            (alone,) = realign_search(model, TOKENIZER, one_of(encoded, row), samples[row : row + 1], iterations, threshold)
            assert alone.tokens == hypothesis.tokens
            assert hypothesis.finish_reason == ("length" if len(hypothesis.tokens) == bound else "stop")
            reasons.add(hypothesis.finish_reason)
    assert reasons == {"length", "stop"}


def test_a_text_gets_longer_and_shorter_than_ctcs_and_passes_change_it() -> None:
    """The test above means something only if what CTC wrote does not stay."""
    longer = shorter = changed = 0
    for seed in range(4):
        model = recognizer(seed)
        encoded, samples = random_encoded()
        by_ctc = ctc_greedy_search(model, TOKENIZER, encoded)
        first, later = (realign_search(model, TOKENIZER, encoded, samples, k) for k in (1, 2))
        for old, new, newer in zip(by_ctc, first, later, strict=True):
            longer += len(new.tokens) > len(old.tokens)
            shorter += len(new.tokens) < len(old.tokens)
            changed += new.tokens != newer.tokens
    assert min(longer, shorter, changed) > 0


def echo(model: Recognizer) -> None:
    """Make the decoder say at each place what it reads there."""
    decoder = second(model)
    with torch.no_grad():
        for name, parameter in decoder.layers.named_parameters():
            if (name.endswith("weight") and parameter.dim() == 2) or name.endswith("bias"):
                parameter.zero_()
        assert decoder.acoustic is not None
        decoder.acoustic.weight.zero_()
        decoder.acoustic.bias.zero_()
        decoder.token_embedding.weight.copy_(torch.eye(len(TOKENIZER), 32) * 200)


def test_a_decoder_that_says_what_it_reads_gives_ctcs_text_and_needs_no_third_pass() -> None:
    model = recognizer(1)
    echo(model)
    encoded, samples = random_encoded()
    steps = MaskPredictSteps()
    found = mask_predict_search(model, TOKENIZER, encoded, samples, 5, "alignment", steps=steps)
    by_ctc = ctc_greedy_search(model, TOKENIZER, encoded)
    for hypothesis, expected in zip(found, by_ctc, strict=True):
        # Of two equal tokens a blank between them still makes two.
        assert hypothesis.tokens == expected.tokens
        assert hypothesis.log_probabilities == pytest.approx([0.0] * len(hypothesis.tokens), abs=1e-3)
    # The first pass is surer than CTC, so that the next row has fewer places; then nothing changes any more.
    assert steps.rows == [list(by_ctc[0].tokens)] * 3


def test_a_text_that_stays_is_read_again_where_the_next_row_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass was surer or less sure of the same text than CTC: the next row has other places."""
    model = recognizer(1)
    encoded, samples = random_encoded(2)
    first = [[Spike(7, 1, -0.001), Spike(8, 4, -0.001)], [Spike(9, 2, -0.001)]]
    # The first text stays, less sure now; then the place between its tokens says something.
    passes = iter([[[Spike(7, 1, -2.0), Spike(8, 4, -2.0)], first[1]], [[Spike(7, 1, -2.0), Spike(9, 2, -2.0)], first[1]]])
    monkeypatch.setattr(realignment, "ctc_texts", lambda *_: first)
    monkeypatch.setattr(realignment, "rewritten", lambda *_: next(passes))
    assert [each.tokens for each in realign_search(model, TOKENIZER, encoded, samples, 2, 0.9)] == [(7, 9), (9,)]


def test_where_ctc_says_nothing_the_one_place_of_the_row_may_say_something() -> None:
    model = recognizer(2)
    assert model.ctc is not None
    with torch.no_grad():
        model.ctc.bias[BLANK] = 1e4
    encoded, samples = random_encoded()
    assert all(len(each.tokens) <= 1 for each in realign_search(model, TOKENIZER, encoded, samples, 1))
    nothing = Encoded(torch.zeros(2, 1, 32), torch.zeros(2, dtype=torch.int64))
    for hypothesis in realign_search(model, TOKENIZER, nothing, [0, 0], 2):
        assert len(hypothesis.tokens) <= 3
    assert realign_search(model, TOKENIZER, Encoded(torch.zeros(0, 4, 32), torch.zeros(0, dtype=torch.int64)), []) == []


def test_start_and_stop_and_what_is_suppressed_are_never_said() -> None:
    for seed in range(3):
        model = recognizer(seed)
        encoded, samples = random_encoded()
        free = {token for each in realign_search(model, TOKENIZER, encoded, samples, 2) for token in each.tokens}
        assert not free & {BLANK, TOKENIZER.start, TOKENIZER.stop}
        often = sorted(free)[0]
        kept = recognizer(seed, suppressed=(often,))
        assert all(often not in each.tokens for each in realign_search(kept, TOKENIZER, encoded, samples, 2))
