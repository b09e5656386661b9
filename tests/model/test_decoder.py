"""The decoder with its cache against a full recomputation, and the encoder against its own unpadded self."""

from __future__ import annotations

import pytest
import torch

from asr.audio.features import FilterbankConfiguration
from asr.model.configuration import DecoderConfiguration, EncoderConfiguration, ModelConfiguration
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
