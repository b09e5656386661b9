from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from asr.audio.augmentation import (
    AugmentationConfiguration,
    SpecAugment,
    SpecAugmentConfiguration,
    WaveformAugmentation,
    add_noise,
    change_speed,
    generate_noise,
    generate_response,
    reverberate,
    telephone,
)
from asr.exceptions import AudioError


def tone(frequency: float, samples: int = 16000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(samples) / 16000)).astype(np.float32)


def peak_frequency(samples: np.ndarray) -> float:
    """Frequency in Hz of the strongest partial."""
    frequency, density = scipy.signal.periodogram(samples, 16000, "hann")
    return float(frequency[density.argmax()])


def band_power(samples: np.ndarray, low: float, high: float) -> float:
    frequency, density = scipy.signal.welch(samples, 16000, nperseg=4096)
    return float(density[(frequency >= low) & (frequency < high)].mean())


EVERYTHING = AugmentationConfiguration.model_validate(
    {
        "speed": {"factors": [0.9, 1.0, 1.1]},
        "volume": {"probability": 0.7},
        "noise": {"probability": 0.7},
        "reverberation": {"probability": 0.7},
        "telephone": {"probability": 0.5},
    }
)


def test_nothing_by_default() -> None:
    samples = tone(300)
    augmented = WaveformAugmentation(AugmentationConfiguration())(samples, np.random.default_rng(0))
    np.testing.assert_array_equal(augmented, samples)
    features = torch.rand(2, 50, 80)
    masked = SpecAugment(SpecAugmentConfiguration())(features, torch.tensor([50, 20]), torch.Generator().manual_seed(0))
    assert torch.equal(masked, features)


@given(samples=st.integers(0, 20000), seed=st.integers(0, 2**31))
@settings(max_examples=40)
def test_the_same_from_the_same_seed(samples: int, seed: int) -> None:
    waveform = np.random.default_rng(1).uniform(-1, 1, samples).astype(np.float32)
    kept = waveform.copy()
    augment = WaveformAugmentation(EVERYTHING)
    first = augment(waveform, np.random.default_rng(seed))
    np.testing.assert_array_equal(augment(waveform, np.random.default_rng(seed)), first)
    np.testing.assert_array_equal(waveform, kept)
    assert first.dtype == np.float32
    assert np.abs(first).max(initial=0) <= 1
    assert any(abs(len(first) - samples / factor) <= 1 for factor in (0.9, 1.0, 1.1))


def test_seeds_differ_and_all_speeds_occur() -> None:
    augment, generator = WaveformAugmentation(EVERYTHING), np.random.default_rng(0)
    results = [augment(tone(300), generator) for _ in range(40)]
    assert {len(result) for result in results} == {17778, 16000, 14545}
    assert len({result.tobytes() for result in results}) > 35


@pytest.mark.parametrize("factor", [0.9, 1.1, 1.5])
def test_speed_changes_length_and_pitch(factor: float) -> None:
    faster = change_speed(tone(1000), factor)
    assert abs(len(faster) - 16000 / factor) <= 1
    assert peak_frequency(faster) == pytest.approx(1000 * factor, abs=2)


@given(ratio=st.floats(-10, 40), kind=st.sampled_from(["white", "pink", "brown", "babble"]))
@settings(max_examples=30)
def test_the_signal_to_noise_ratio_is_reached(ratio: float, kind: str) -> None:
    clean = tone(400)
    noisy = add_noise(clean, generate_noise(kind, len(clean), np.random.default_rng(0)), ratio)
    noise = noisy.astype(np.float64) - clean
    assert 10 * np.log10(np.mean(clean.astype(np.float64) ** 2) / np.mean(noise**2)) == pytest.approx(ratio, abs=0.05)


def test_the_drawn_ratio_lies_in_its_range() -> None:
    configuration = AugmentationConfiguration.model_validate({"noise": {"probability": 1, "lowest": 10, "highest": 20}})
    augment, generator, clean = WaveformAugmentation(configuration), np.random.default_rng(0), tone(400)
    ratios = []
    for _ in range(30):
        noise = augment(clean, generator).astype(np.float64) - clean
        ratios.append(10 * np.log10(np.mean(clean.astype(np.float64) ** 2) / np.mean(noise**2)))
    assert 9.9 < min(ratios) < 13
    assert 17 < max(ratios) < 20.1


@pytest.mark.parametrize(("kind", "slope"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_colours_of_noise(kind: str, slope: float) -> None:
    noise = generate_noise(kind, 160000, np.random.default_rng(0))
    octave = 10 * np.log10(band_power(noise, 3000, 3200) / band_power(noise, 1500, 1600))
    assert octave == pytest.approx(slope, abs=0.7)


def test_babble_rises_and_falls() -> None:
    noise = generate_noise("babble", 160000, np.random.default_rng(0))
    assert band_power(noise, 100, 4000) > 1e4 * band_power(noise, 5000, 8000)
    envelope = np.sqrt(np.mean(noise.reshape(-1, 400) ** 2, axis=1))
    steady = np.sqrt(np.mean(generate_noise("white", 160000, np.random.default_rng(0)).reshape(-1, 400) ** 2, axis=1))
    assert envelope.std() > 3 * steady.std()


@pytest.mark.parametrize("decay", [0.2, 0.6])
def test_generated_rooms_decay_as_asked(decay: float) -> None:
    response = generate_response(decay, np.random.default_rng(0))
    # Schroeder's backward integral: from 5 to 25 dB below the start takes a third of the time to 60 dB.
    energy = np.cumsum(response[1:][::-1].astype(np.float64) ** 2)[::-1]
    level = 10 * np.log10(energy / energy[0])
    fifth, twentyfifth = np.argmax(level < -5), np.argmax(level < -25)
    assert (twentyfifth - fifth) / 16000 * 3 == pytest.approx(decay, rel=0.1)
    assert response[0] == np.abs(response).max()


def test_reverberation_is_a_convolution_in_place() -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 8000).astype(np.float32)
    response = np.zeros(900, np.float32)
    response[[100, 300, 899]] = 1.0, 0.5, -0.25  # the direct sound arrives after 100 samples
    wet = reverberate(samples, response)
    expected = np.convolve(samples, response)[100:8100]
    expected *= np.sqrt(np.mean(samples**2) / np.mean(expected**2))
    np.testing.assert_allclose(wet, expected, atol=1e-5)


def test_telephone_band() -> None:
    noise = generate_noise("white", 80000, np.random.default_rng(0)) * np.float32(0.1)
    narrow = telephone(noise)
    assert len(narrow) == len(noise)
    assert band_power(narrow, 500, 3200) == pytest.approx(band_power(noise, 500, 3200), rel=0.05)
    for low, high in ((0, 220), (3500, 8000)):
        assert band_power(narrow, low, high) < 1e-3 * band_power(noise, low, high)


def test_volume() -> None:
    configuration = AugmentationConfiguration.model_validate(
        {"volume": {"probability": 1, "lowest": -6.0206, "highest": -6.0206}}
    )
    augmented = WaveformAugmentation(configuration)(tone(300), np.random.default_rng(0))
    np.testing.assert_allclose(augmented, tone(300) / 2, atol=1e-6)


def test_folders_of_recordings(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    soundfile.write(tmp_path / "deep" / "hum.wav", tone(2000, 4000), 16000)
    configuration = AugmentationConfiguration.model_validate(
        {"noise": {"probability": 1, "folder": tmp_path, "lowest": 0, "highest": 0}}
    )
    noisy = WaveformAugmentation(configuration)(tone(300), np.random.default_rng(0))
    assert peak_frequency(noisy - tone(300)) == pytest.approx(2000, abs=2)
    configuration = AugmentationConfiguration.model_validate({"reverberation": {"probability": 1, "folder": tmp_path / "deep"}})
    # A tone for an impulse response makes it all that one hears.
    noise = generate_noise("white", 16000, np.random.default_rng(0)) * np.float32(0.1)
    assert peak_frequency(WaveformAugmentation(configuration)(noise, np.random.default_rng(0))) == pytest.approx(2000, abs=10)
    (tmp_path / "none").mkdir()
    with pytest.raises(AudioError, match="holds no audio files"):
        WaveformAugmentation(AugmentationConfiguration.model_validate({"noise": {"folder": tmp_path / "none"}}))


@pytest.mark.parametrize(
    "values",
    [{"noise": {"lowest": 5, "highest": 1}}, {"speed": {"factors": [0.0]}}, {"volume": {"probability": 2}}, {"pitch": 1}],
)
def test_settings_that_do_not_fit(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AugmentationConfiguration.model_validate(values)


@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=6),
    frequency_masks=st.integers(0, 3),
    time_masks=st.integers(0, 4),
    ratio=st.sampled_from([0.0, 0.02, 0.1]),
    width=st.integers(0, 60),
    part=st.floats(0, 0.3),
    fill=st.sampled_from(["zero", "mean"]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=50)
def test_masks_keep_their_bounds(
    lengths: list[int],
    frequency_masks: int,
    time_masks: int,
    ratio: float,
    width: int,
    part: float,
    fill: str,
    seed: int,
) -> None:
    configuration = SpecAugmentConfiguration.model_validate(
        {
            "frequency_masks": frequency_masks,
            "frequency_width": 10,
            "time_masks": time_masks,
            "time_mask_ratio": ratio,
            "time_masks_most": 15,
            "time_width": width,
            "time_part": part,
            "fill": fill,
        }
    )
    augment = SpecAugment(configuration)
    # No feature is zero nor the mean of its utterance, so that whatever is masked shows.
    features = torch.rand(len(lengths), max(lengths) + 3, 40, generator=torch.Generator().manual_seed(seed)) + 1
    kept = features.clone()
    masked = augment(features, torch.tensor(lengths), torch.Generator().manual_seed(seed))
    assert torch.equal(features, kept)
    assert torch.equal(masked, augment(features, torch.tensor(lengths), torch.Generator().manual_seed(seed)))
    for before, after, length in zip(features, masked, lengths, strict=True):
        changed = before != after
        assert not changed[length:].any()
        if length < 2:
            continue
        frames, mels = changed[:length].all(1), changed[:length].all(0)
        # What is masked is whole frames and whole mels, and nothing else.
        assert torch.equal(changed[:length], frames[:, None] | mels)
        most = min(int(ratio * length), 15) if ratio else time_masks
        assert frames.sum() <= most * min(width, int(part * length))
        assert mels.sum() <= frequency_masks * 10 or frames.all()
        filling = before[:length].mean(0).expand(length, 40) if fill == "mean" else torch.zeros(length, 40)
        torch.testing.assert_close(after[:length][changed[:length]], filling[changed[:length]], atol=1e-5, rtol=1e-5)


def test_masks_are_drawn_evenly() -> None:
    configuration = SpecAugmentConfiguration(
        frequency_masks=2, frequency_width=27, time_masks=2, time_width=100, time_part=1.0, fill="zero"
    )
    augment = SpecAugment(configuration)
    lengths = torch.full((500,), 400)
    masked = augment(torch.ones(500, 400, 80), lengths, torch.Generator().manual_seed(0)) == 0
    frames, mels = masked.all(2).float(), masked.all(1).float()
    # Two masks of width 0 to W over a length L: the expected part masked is about 2 (W / 2) / L, less their overlap.
    assert frames.mean() == pytest.approx(2 * 50 / 400 - (50 / 400) ** 2, abs=0.02)
    assert mels.mean() == pytest.approx(2 * 13.5 / 80 - (13.5 / 80) ** 2, abs=0.02)
    assert (frames.mean(0) > 0).all()
    # Longer utterances get wider masks where the bound is a part of them.
    adaptive = SpecAugment(SpecAugmentConfiguration(time_masks=1, time_width=1000, time_part=0.1, fill="zero"))
    lengths = torch.tensor([100, 1000]).repeat(100)
    hidden = adaptive(torch.ones(200, 1000, 8), lengths, torch.Generator().manual_seed(0)) == 0
    widths = hidden.all(2).sum(1)
    assert widths[::2].max() == 10
    assert 90 <= widths[1::2].max() <= 100
