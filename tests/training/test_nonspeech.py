from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from asr.corpora.batches import Batch
from asr.training.nonspeech import KINDS, add_nonspeech, nonspeech


def batch(count: int, samples: int = 4000) -> Batch:
    return Batch(
        ids=tuple(f"u{n}" for n in range(count)),
        waveforms=torch.ones(count, samples),
        lengths=torch.full((count,), samples),
        texts=("text",) * count,
        speakers=("s",) * count,
    )


def test_the_same_seed_makes_the_same_sounds_and_another_does_not() -> None:
    first, again, other = (add_nonspeech(batch(6), 0.5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.waveforms, again.waveforms)
    assert torch.equal(first.lengths, again.lengths)
    assert not torch.equal(first.waveforms, other.waveforms)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_share_is_right_on_average(share: float) -> None:
    random = np.random.default_rng(0)
    sizes = [len(add_nonspeech(batch(5, 40), share, random).ids) for _ in range(2000)]
    assert 1 - 5 * len(sizes) / sum(sizes) == pytest.approx(share, abs=0.01)


def test_speech_is_left_as_it_was_and_what_is_added_lies_within_the_batch() -> None:
    before = batch(8)
    after = add_nonspeech(before, 0.5, np.random.default_rng(3))
    added = len(after.ids) - 8
    assert added == 8
    assert after.ids[:8] == before.ids
    assert after.texts == (*before.texts, *("",) * added)
    assert torch.equal(after.waveforms[:8], before.waveforms)
    assert after.waveforms.shape == (16, 4000)
    assert len(set(after.ids)) == 16
    for waveform, length in zip(after.waveforms[8:], after.lengths[8:], strict=True):
        assert 0 < length <= 4000
        assert not waveform[int(length) :].any()


def test_a_teacher_hears_what_was_added_too() -> None:
    before = replace(batch(8), undisturbed=torch.zeros(8, 4000), languages=("zh",) * 8)
    after = add_nonspeech(before, 0.5, np.random.default_rng(3))
    assert after.undisturbed is not None
    assert torch.equal(after.undisturbed[8:], after.waveforms[8:])
    assert not after.undisturbed[:8].any()
    assert after.languages == before.languages


def test_no_share_changes_nothing() -> None:
    before = batch(3)
    assert add_nonspeech(before, 0.0, np.random.default_rng(0)) is before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [1, 2, 399, 16_000, 50_001])
def test_every_kind_has_the_asked_length_and_a_level_below_full_scale(kind: str, samples: int) -> None:
    sound = nonspeech(kind, samples, np.random.default_rng(samples))
    assert sound.shape == (samples,)
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() <= 1
    assert (np.abs(sound).max() == 0) == (kind == "zeros") or samples == 1


@pytest.mark.parametrize(("kind", "decibels"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_noise_falls_by_its_decibels_an_octave(kind: str, decibels: float) -> None:
    sound = nonspeech(kind, 160_000, np.random.default_rng(0)).astype(np.float64)
    power = np.abs(np.fft.rfft(sound)) ** 2
    # Bins are 0.1 Hz apart; the octaves above 500 and 1000 Hz.
    low, high = power[5_000:10_000].mean(), power[10_000:20_000].mean()
    assert 10 * np.log10(high / low) == pytest.approx(decibels, abs=0.4)
