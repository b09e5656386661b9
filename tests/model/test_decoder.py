"""The decoder with its cache against a full recomputation, and the encoder against its own unpadded self."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.features import FilterbankConfiguration
from asr.model.attention import MultiHeadAttention
from asr.model.configuration import DecoderConfiguration, EncoderConfiguration, ModelConfiguration
from asr.model.decoder import DecoderWeights
from asr.model.layers import MaskedBatchNorm
from asr.model.recognizer import Recognizer


def recognizer(norm: str, positions: str = "sinusoidal", block: str = "transformer", stem: str = "conv2d") -> Recognizer:
    torch.manual_seed(0)
    model = Recognizer(
        ModelConfiguration(
            front_end=FilterbankConfiguration(mels=80),
            encoder=EncoderConfiguration(block=block, stem=stem, layers=2, width=32, heads=4, feed_forward=64, norm=norm),
            decoder=DecoderConfiguration(layers=2, heads=4, feed_forward=64, norm=norm, positions=positions),
        ),
        vocabulary=30,
    )
    with torch.no_grad():
        for module in model.modules():
            # Statistics as training leaves them; with the first ones, a norm would pass padding unchanged.
            if isinstance(module, MaskedBatchNorm):
                module.running_mean.normal_()
                module.running_variance.uniform_(0.5, 2)
                module.bias.normal_()
    return model.eval()


@pytest.mark.parametrize("norm", ["before", "after", "batch"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_steps_with_cache_equal_full_recomputation(norm: str, positions: str) -> None:
    model = recognizer(norm, positions)
    assert model.decoder is not None
    encoded, lengths = torch.randn(3, 17, 32), torch.tensor([17, 5, 9])
    tokens = torch.randint(4, 30, (3, 40))
    with torch.no_grad():
        full = model.decoder(tokens, encoded, lengths)
        cache = model.decoder.cache()
        steps = [model.decoder(tokens[:, :4], encoded, lengths, cache)]
        steps += [model.decoder(tokens[:, n : n + 1], encoded, lengths, cache) for n in range(4, 40)]
    assert cache.length == 40
    torch.testing.assert_close(torch.cat(steps, dim=1), full, atol=1e-5, rtol=0)


def test_rows_leave_the_cache() -> None:
    model = recognizer("before")
    assert model.decoder is not None
    encoded, lengths = torch.randn(3, 17, 32), torch.tensor([17, 5, 9])
    tokens, rows = torch.randint(4, 30, (3, 8)), torch.tensor([2, 0])
    with torch.no_grad():
        cache = model.decoder.cache()
        model.decoder(tokens[:, :7], encoded, lengths, cache)
        cache.select(rows)
        last = model.decoder(tokens[rows, 7:], encoded[rows], lengths[rows], cache)
        full = model.decoder(tokens, encoded, lengths)[rows, 7:]
    torch.testing.assert_close(last, full, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["before", "after", "batch"])
@pytest.mark.parametrize("block", ["transformer", "conformer"])
@pytest.mark.parametrize("stem", ["conv2d", "conv1d"])
def test_padding_does_not_change_what_is_encoded(norm: str, block: str, stem: str) -> None:
    model = recognizer(norm, block=block, stem=stem)
    lengths = [16000, 7777, 4001]
    waveforms = torch.zeros(3, 16000)
    for row, length in enumerate(lengths):
        waveforms[row, :length] = torch.randn(length) * 0.1
    with torch.no_grad():
        together = model.encode(waveforms, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            alone = model.encode(waveforms[row : row + 1, :length], torch.tensor([length]))
            assert int(alone.lengths) == int(together.lengths[row])
            valid = int(alone.lengths)
            torch.testing.assert_close(together.values[row, :valid], alone.values[0, :valid], atol=2e-5, rtol=1e-4)
            assert not together.values[row, valid:].any()


@pytest.mark.parametrize("block", ["transformer", "conformer"])
@pytest.mark.parametrize("stem", ["conv2d", "conv1d"])
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4), spare=st.integers(0, 9))
@settings(max_examples=20)
def test_any_lengths_of_frames_are_independent_in_a_batch(block: str, stem: str, lengths: list[int], spare: int) -> None:
    model = recognizer("before", block=block, stem=stem)
    features = torch.zeros(len(lengths), max(lengths) + spare, 80)
    for row, length in enumerate(lengths):
        features[row, :length] = torch.randn(length, 80)
    with torch.no_grad():
        together = model.encode_features(features, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            alone = model.encode_features(features[row : row + 1, :length], torch.tensor([length]))
            valid = int(alone.lengths)
            assert valid == alone.values.shape[1] == int(together.lengths[row])
            torch.testing.assert_close(together.values[row, :valid], alone.values[0], atol=2e-5, rtol=1e-4)
            assert not together.values[row, valid:].any()


@pytest.mark.parametrize("block", ["transformer", "conformer"])
def test_padding_does_not_change_what_batch_norm_learns(block: str) -> None:
    features, lengths = torch.zeros(2, 40, 80), torch.tensor([40, 21])
    for row, length in enumerate(lengths.tolist()):
        features[row, :length] = torch.randn(length, 80)
    states = []
    for spare in (0, 30):
        model = recognizer("batch", block=block).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if isinstance(module, MultiHeadAttention):
                module.dropout = 0.0
        padded = torch.nn.functional.pad(features, (0, 0, 0, spare))
        model.encode_features(padded, lengths).values.square().sum().backward()
        gradients = {name: p.grad for name, p in model.encoder.named_parameters()}
        states.append({**dict(model.encoder.named_buffers()), **gradients})
    assert any("running_mean" in name for name in states[0])
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=1e-3, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def test_an_utterance_without_frames_is_a_number() -> None:
    model = recognizer("before")
    features = torch.zeros(2, 20, 80)
    features[0] = torch.randn(20, 80)
    with torch.no_grad():
        encoded = model.encode_features(features, torch.tensor([20, 0]))
        assert model.decoder is not None
        logits = model.decoder(torch.tensor([[2], [2]]), encoded.values, encoded.lengths)
    assert encoded.lengths.tolist() == [5, 0]
    assert not encoded.values[1].any()
    assert bool(logits.isfinite().all())


def test_weights_of_attention_are_those_of_the_pass() -> None:
    model = recognizer("before")
    assert model.decoder is not None
    encoded, lengths = torch.randn(2, 9, 32), torch.tensor([9, 4])
    tokens = torch.randint(4, 30, (2, 6))
    weights = DecoderWeights()
    with torch.no_grad():
        logits = model.decoder(tokens, encoded, lengths, weights=weights)
        plain = model.decoder(tokens, encoded, lengths)
        last = model.decoder(tokens, encoded, lengths, last_only=True)
    torch.testing.assert_close(logits, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(last, plain[:, -1:], atol=1e-5, rtol=0)
    assert [w.shape for w in weights.self_attention] == [(2, 4, 6, 6)] * 2
    assert [w.shape for w in weights.cross_attention] == [(2, 4, 6, 9)] * 2
    for each in (*weights.self_attention, *weights.cross_attention):
        torch.testing.assert_close(each.sum(dim=-1), torch.ones(each.shape[:-1]), atol=1e-5, rtol=0)
    assert not any(w.triu(1).any() for w in weights.self_attention)
    assert not any(w[1, :, :, 4:].any() for w in weights.cross_attention)
