"""Rows against their unpadded selves, integrate-and-fire against a walk along the positions, lengths against their sum."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from asr.model.configuration import EncoderConfiguration, ModelConfiguration, NonautoregressiveConfiguration
from asr.model.decoder import DecoderWeights
from asr.model.nonautoregressive import LengthPredictor, NonautoregressiveDecoder, integrate_and_fire
from asr.model.recognizer import Recognizer


def decoder(norm: str = "before", acoustic: bool = True) -> NonautoregressiveDecoder:
    torch.manual_seed(0)
    settings = NonautoregressiveConfiguration(layers=2, heads=4, feed_forward=64, norm=norm, acoustic_embedding=acoustic)
    return NonautoregressiveDecoder(settings, 32, 30).eval()


@pytest.mark.parametrize("norm", ["before", "after", "batch"])
@pytest.mark.parametrize("acoustic", [False, True])
def test_padding_does_not_change_what_a_row_says(norm: str, acoustic: bool) -> None:
    model = decoder(norm, acoustic)
    encoded, encoded_lengths = torch.randn(3, 17, 32), torch.tensor([17, 5, 9])
    tokens, lengths = torch.randint(0, 30, (3, 12)), torch.tensor([12, 1, 7])

    def run(rows: slice, size: int, positions: int) -> torch.Tensor:
        values, seen = encoded[rows, :positions], encoded_lengths[rows]
        embedding = None
        if model.length_predictor is not None:
            rates = model.length_predictor.rates(values, seen)
            embedding = model.acoustic_embedding(values, rates, size, lengths[rows] - 1)
        return model(tokens[rows, :size], lengths[rows], values, seen, acoustic=embedding)

    with torch.no_grad():
        together = run(slice(0, 3), 12, 17)
        for row in range(3):
            size, positions = int(lengths[row]), int(encoded_lengths[row])
            alone = run(slice(row, row + 1), size, positions)
            torch.testing.assert_close(together[row, :size], alone[0], atol=1e-5, rtol=0)


def test_every_position_sees_all_others_and_the_memory_is_that_of_the_first_pass() -> None:
    model = decoder()
    encoded, encoded_lengths = torch.randn(2, 9, 32), torch.tensor([9, 4])
    tokens, lengths = torch.randint(0, 30, (2, 6)), torch.tensor([6, 3])
    weights, memory = DecoderWeights(), model.memory()
    with torch.no_grad():
        plain = model(tokens, lengths, encoded, encoded_lengths)
        seen = model(tokens, lengths, encoded, encoded_lengths, memory, weights=weights)
        again = model(tokens, lengths, encoded, encoded_lengths, memory)
        # What the memory holds is read, not what is given.
        other = model(tokens, lengths, torch.zeros_like(encoded), encoded_lengths, memory)
    torch.testing.assert_close(seen, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(again, plain, atol=1e-5, rtol=0)
    assert torch.equal(other, again)
    assert memory.length == 0
    for each in weights.self_attention:
        assert bool((each[0] > 0).all())
        assert not bool(each[1, :, :, 3:].any())
    assert not any(each[1, :, :, 4:].any() for each in weights.cross_attention)


def walked(encoded: torch.Tensor, rates: list[float], size: int) -> torch.Tensor:
    """Integrate-and-fire as the paper tells it: position by position, a token is fired when the sum reaches 1."""
    fired, state, held = [], torch.zeros(encoded.shape[-1]), 0.0
    for vector, rate in zip(encoded, rates, strict=True):
        left = rate
        while held + left >= 1:
            part = 1 - held
            fired.append(state + part * vector)
            left -= part
            state, held = torch.zeros_like(state), 0.0
        state, held = state + left * vector, held + left
    fired.append(state)
    fired += [torch.zeros_like(state)] * size
    return torch.stack(fired[:size])


@given(rates=st.lists(st.integers(0, 40), min_size=1, max_size=12), size=st.integers(1, 9))
@settings(max_examples=60)
def test_all_tokens_at_once_are_those_of_a_walk(rates: list[int], size: int) -> None:
    # Sixteenths, so that sums are exact and a token ends where both say.
    values = torch.tensor([[rate / 16 for rate in rates]])
    encoded = torch.randn(1, len(rates), 8)
    found = integrate_and_fire(encoded, values, size)
    torch.testing.assert_close(found[0], walked(encoded[0], values[0].tolist(), size), atol=1e-5, rtol=1e-5)


def test_rates_are_scaled_to_the_length() -> None:
    encoded, rates = torch.randn(2, 6, 4), torch.rand(2, 6)
    found = integrate_and_fire(encoded, rates, 3, torch.tensor([3, 1]))
    for row, length in enumerate((3, 1)):
        scaled = (rates[row] * length / rates[row].sum()).tolist()
        torch.testing.assert_close(found[row, :length].sum(0), (torch.tensor(scaled)[:, None] * encoded[row]).sum(0))
    assert not found[1, 1:].abs().gt(1e-6).any()
    assert not integrate_and_fire(encoded, torch.zeros(2, 6), 3, torch.tensor([3, 1])).isnan().any()


def test_lengths_have_a_probability_and_the_likeliest_is_near_the_sum_of_the_rates() -> None:
    predictor = LengthPredictor(8, 50)
    rates = torch.rand(4, 30)
    log_probabilities = predictor(rates)
    torch.testing.assert_close(log_probabilities.exp().sum(dim=1), torch.ones(4))
    assert log_probabilities.argmax(dim=1).tolist() == rates.sum(dim=1).round().int().tolist()
    assert predictor(torch.full((1, 30), 9.0)).argmax(dim=1).tolist() == [50]
    assert predictor(torch.zeros(1, 30)).argmax(dim=1).tolist() == [0]
    rates = predictor.rates(torch.randn(2, 5, 8), torch.tensor([5, 2]))
    assert bool((rates[:, :2] > 0).all())
    assert not rates[1, 2:].any()


def test_the_three_heads_stand_on_one_encoder() -> None:
    settings = ModelConfiguration(
        encoder=EncoderConfiguration(layers=1, width=32, feed_forward=64), nonautoregressive=NonautoregressiveConfiguration()
    )
    counts = Recognizer(settings, 9).parameter_counts()
    assert set(counts) == {"encoder", "decoder", "nonautoregressive", "ctc"}
    assert sum(counts.values()) == sum(parameter.numel() for parameter in Recognizer(settings, 9).parameters())


def test_a_length_by_ctc_needs_its_head() -> None:
    for way in ("ctc", "alignment"):
        second = NonautoregressiveConfiguration(lengths=("row", way))  # type: ignore[arg-type]
        with pytest.raises(ValidationError, match=f"has {way}, but the model has no CTC head"):
            ModelConfiguration(ctc=False, nonautoregressive=second)
        with pytest.raises(ValidationError, match=f"has {way}, but the CTC head writes other tokens"):
            ModelConfiguration(ctc_characters="abc", nonautoregressive=second)
    with pytest.raises(ValidationError, match="width 256 cannot be divided among 3"):
        ModelConfiguration(nonautoregressive=NonautoregressiveConfiguration(heads=3))
    assert ModelConfiguration(decoder=None, ctc=False, nonautoregressive=NonautoregressiveConfiguration(lengths=("row",)))
