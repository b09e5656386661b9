"""What is hidden of a text, and the loss of it from its definition."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.model.configuration import NonautoregressiveConfiguration
from asr.model.nonautoregressive import NonautoregressiveDecoder, rates_around
from asr.model.recognizer import Encoded
from asr.training.masking import IGNORED, mask_rows, masked_loss, spoken_rates, without_sound

MASK, STOP = 2, 3


def configuration(**changes: Any) -> NonautoregressiveConfiguration:
    return NonautoregressiveConfiguration.model_validate({"layers": 1, "feed_forward": 32, "dropout": 0.0, **changes})


@given(
    texts=st.lists(st.lists(st.integers(4, 9), max_size=12), min_size=1, max_size=5),
    spare=st.integers(0, 5),
    lengths=st.sampled_from([("predictor",), ("row",), ("predictor", "row"), ("row", "ctc")]),
    seed=st.none() | st.integers(0, 99),
)
@settings(max_examples=100)
def test_a_row_and_what_is_asked_of_it_make_the_text(
    texts: list[list[int]], spare: int, lengths: tuple[str, ...], seed: int | None
) -> None:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    longest = [len(text) + spare for text in texts]
    rows = mask_rows(texts, longest, configuration(lengths=lengths), MASK, STOP, generator)
    assert rows.texts.tolist() == [len(text) for text in texts]
    for row, (text, bound) in enumerate(zip(texts, longest, strict=True)):
        known = bool(rows.known[row])
        assert known in {way != "row" for way in lengths}
        length = int(rows.lengths[row])
        assert length == (len(text) + 1 if known else bound + 1)
        inputs, outputs = rows.inputs[row, :length].tolist(), rows.outputs[row, :length].tolist()
        hidden = [token != IGNORED for token in outputs]
        # Hidden tokens are asked for, the others are shown, and together they are the text and stop tokens.
        assert all((token == MASK) == asked for token, asked in zip(inputs, hidden, strict=True))
        whole = [output if asked else token for token, output, asked in zip(inputs, outputs, hidden, strict=True)]
        assert whole == text + [STOP] * (length - len(text))
        can_be_asked = len(text) if known else length
        assert not hidden[-1] or not known
        assert sum(hidden) >= min(1, can_be_asked)
        if seed is None:
            assert sum(hidden) == can_be_asked
            assert known == (lengths[0] != "row")
        assert set(rows.outputs[row, length:].tolist()) <= {IGNORED}


def test_every_number_of_tokens_is_hidden_equally_often_and_so_is_every_place() -> None:
    rows = mask_rows([[4, 5, 6, 7]] * 4000, [4] * 4000, configuration(), MASK, STOP, torch.Generator().manual_seed(0))
    hidden = rows.outputs != IGNORED
    counts = Counter(hidden.sum(dim=1).tolist())
    assert set(counts) == {1, 2, 3, 4}
    assert all(abs(count - 1000) < 150 for count in counts.values())
    # Of each number n, every place is hidden in n quarters: 2.5 in 4 on average.
    assert all(abs(float(share) - 0.625) < 0.04 for share in hidden[:, :4].float().mean(dim=0))


def test_the_sound_of_so_many_tokens_is_taken_away_in_runs() -> None:
    texts = [list(range(4, 9)) * 8] * 500
    rows = mask_rows(texts, [50] * 500, configuration(), MASK, STOP, torch.Generator().manual_seed(0), unheard=0.2)
    assert not rows.unheard[:, 40:].any()
    # 1 - (1 - 0.05)^4 of what has four tokens before it.
    assert float(rows.unheard[:, 4:40].float().mean()) == pytest.approx(0.185, abs=0.02)
    for row in rows.unheard[:, :40].tolist():
        for silent, run in groupby(row[:36]):
            assert not silent or len(list(run)) >= 4 or row[35]
    for unheard, generator in ((0.0, torch.Generator()), (0.9, None)):
        assert not mask_rows(texts[:2], [50] * 2, configuration(), MASK, STOP, generator, unheard).unheard.any()


def test_what_is_unheard_is_its_tokens_positions_and_no_others() -> None:
    places = [[1, 3, 9, 11], [0, 20]]
    spoken = torch.stack([rates_around(each, 24) for each in places])
    unheard = torch.tensor([[False, True, False, True], [True, False, False, False]])
    found = without_sound(torch.ones(2, 24, 3), spoken, unheard)
    wanted = torch.ones(2, 24, 3)
    # Half-way to the neighbours, and five positions into a pause.
    wanted[0, 2:6] = wanted[0, 10:17] = wanted[1, 0:6] = 0
    assert torch.equal(found, wanted)
    assert torch.equal(without_sound(torch.ones(2, 24, 3), torch.zeros(2, 24), unheard), torch.ones(2, 24, 3))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("lengths", [("predictor",), ("row",)])
def test_the_loss_is_that_of_the_definition(lengths: tuple[str, ...], smoothing: float) -> None:
    torch.manual_seed(0)
    decoder = NonautoregressiveDecoder(configuration(lengths=lengths), 32, 10)
    encoded = Encoded(torch.randn(3, 9, 32), torch.tensor([9, 4, 7]))
    texts = [[4, 5, 6], [7], []]
    rows = mask_rows(texts, [5, 2, 1], decoder.configuration, MASK, STOP, torch.Generator().manual_seed(1))
    crosses, sizes = [], []
    for row, text in enumerate(texts):
        length, positions = int(rows.lengths[row]), int(encoded.lengths[row])
        values = encoded.values[row : row + 1, :positions]
        logits = decoder(rows.inputs[row : row + 1, :length], torch.tensor([length]), values, torch.tensor([positions]))[0]
        for scores, token in zip(logits.log_softmax(-1), rows.outputs[row].tolist(), strict=False):
            if token != IGNORED:
                wanted = torch.full((10,), smoothing / 10)
                wanted[token] += 1 - smoothing
                crosses.append(-(wanted * scores).sum())
        if decoder.length_predictor is not None:
            rates = decoder.length_predictor.rates(values, torch.tensor([positions]))
            sizes.append(-decoder.length_predictor(rates)[0, len(text)])
    expected = torch.stack(crosses).mean()
    if sizes:
        expected = expected + 0.1 * torch.stack(sizes).mean()
    loss = masked_loss(decoder, encoded, rows, smoothing, 0.1)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


@pytest.mark.parametrize("acoustic", [False, True])
def test_texts_of_nothing_have_a_finite_loss_and_gradient(acoustic: bool) -> None:
    decoder = NonautoregressiveDecoder(configuration(lengths=("predictor", "row"), acoustic_embedding=acoustic), 32, 10)
    encoded = Encoded(torch.randn(2, 9, 32), torch.tensor([9, 0]))
    for seed in range(4):
        rows = mask_rows([[], []], [3, 0], decoder.configuration, MASK, STOP, torch.Generator().manual_seed(seed))
        loss = masked_loss(decoder, encoded, rows, 0.1, 0.1)
        decoder.zero_grad()
        loss.backward()
        assert bool(loss.isfinite())
        assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)


def test_it_learns_rows_by_heart() -> None:
    torch.manual_seed(0)
    decoder = NonautoregressiveDecoder(configuration(lengths=("predictor", "row"), acoustic_embedding=True), 32, 10)
    encoded = Encoded(torch.randn(2, 9, 32), torch.tensor([9, 6]))
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(decoder.parameters(), 3e-3)
    losses = []
    for _ in range(150):
        rows = mask_rows([[4, 5, 4, 6], [7, 8]], [6, 4], decoder.configuration, MASK, STOP, generator)
        loss = masked_loss(decoder, encoded, rows, 0.0, 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) / 10 < 0.15 * sum(losses[:10]) / 10


def test_ctc_says_where_the_tokens_are() -> None:
    """Of spikes that leave no doubt, and with a text that is not the most probable."""
    scores = torch.full((2, 12, 4), -20.0)
    scores[..., 0] = 0.0
    for place, token in ((2, 1), (3, 1), (7, 2), (10, 3)):
        scores[0, place, token] = 5.0 + place
    scores[1, 4, 2] = 5.0
    log_probabilities = scores.log_softmax(dim=-1).requires_grad_()
    lengths, labels = torch.tensor([12, 6]), torch.tensor([1, 2, 3, 3])
    rates = spoken_rates(log_probabilities, lengths, labels, torch.tensor([3, 1]), blank=0)
    assert not rates.requires_grad
    assert rates.sum(dim=1).tolist() == pytest.approx([3, 1])
    # The first is at 3, the better of its two; the next begin half-way.
    assert rates[0].tolist() == pytest.approx([1 / 5] * 5 + [1 / 4] * 4 + [1 / 3] * 3)
    assert not rates[1, 6:].any()
    assert not spoken_rates(log_probabilities, lengths, labels[:0], torch.tensor([0, 0]), blank=0).any()


def test_what_ctc_says_is_read_and_learned() -> None:
    torch.manual_seed(0)
    decoder = NonautoregressiveDecoder(configuration(lengths=("predictor",), acoustic_embedding=True), 32, 10)
    assert decoder.length_predictor is not None
    encoded = Encoded(torch.randn(1, 9, 32), torch.tensor([9]))
    rows = mask_rows([[4, 5]], [4], decoder.configuration, MASK, STOP, None)
    spoken = rates_around([1, 6], 9)[None]
    plain, told, elsewhere = (
        masked_loss(decoder, encoded, rows, 0.0, 0.1, rates) for rates in (None, spoken, rates_around([1, 2], 9)[None])
    )
    assert len({float(each.detach()) for each in (plain, told, elsewhere)}) == 3
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        masked_loss(decoder, encoded, rows, 0.0, 1.0, spoken).backward()
        optimizer.step()
    rates = decoder.length_predictor.rates(encoded.values, encoded.lengths).detach()
    torch.testing.assert_close(rates, spoken, atol=0.05, rtol=0)
