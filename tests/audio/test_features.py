from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import whisper
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torchaudio.compliance import kaldi

from asr.audio import files
from asr.audio.features import CHUNK_FRAMES, Filterbank, FilterbankConfiguration, global_statistics
from asr.exceptions import ConfigurationError


def speech_like(samples: int, seed: int = 0) -> np.ndarray:
    """Harmonics that rise and fall over coloured noise, with an offset, float32 ``(samples,)``."""
    generator = np.random.default_rng(seed)
    time = np.arange(samples) / 16000
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time + seed)) / 16000
    voice = sum(np.sin(k * pitch) / k for k in range(1, 30)) * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * time))
    return (0.1 * voice + 0.003 * np.cumsum(generator.standard_normal(samples)) / 10 + 0.01).clip(-1, 1).astype("f4")


def batch(waveforms: list[np.ndarray], extra: int = 0, garbage: float = 0.0) -> tuple[Tensor, Tensor]:
    """Padded waveforms ``(batch, samples)`` and lengths."""
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    padded = torch.full((len(waveforms), int(lengths.max()) + extra), garbage)
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    return padded, lengths


@pytest.fixture(scope="module")
def speech(corpora: Path) -> list[np.ndarray]:
    """Utterances that were never compressed with loss."""
    libri = sorted((corpora / "LibriSpeech-flac-sample").rglob("*.flac"))[::12]
    aishell = sorted((corpora / "data_aishell-wav-sample").rglob("*.wav"))[::5]
    return [files.read(path) for path in libri + aishell]


def published_whisper(samples: np.ndarray, mels: int) -> np.ndarray:
    """Whisper's features ``(frames, mels)`` of 30 s, from its paper's description and with librosa's parts."""
    window = np.zeros(480000, np.float32)
    window[: len(samples)] = samples
    spectrum = librosa.stft(window, n_fft=400, hop_length=160, window="hann", center=True, pad_mode="reflect")
    power = np.abs(spectrum[:, :-1]) ** 2
    energies = np.log10(np.maximum(librosa.filters.mel(sr=16000, n_fft=400, n_mels=mels) @ power, 1e-10))
    return ((np.maximum(energies, energies.max() - 8) + 4) / 4).T


def test_kaldi_on_real_speech(speech: list[np.ndarray]) -> None:
    features, lengths = Filterbank(FilterbankConfiguration())(*batch(speech, extra=777, garbage=float("nan")))
    for waveform, result, length in zip(speech, features, lengths, strict=True):
        expected = kaldi.fbank(torch.from_numpy(waveform)[None], num_mel_bins=80, dither=0.0)
        assert length == len(expected)
        torch.testing.assert_close(result[:length], expected, atol=1e-4, rtol=0)
        assert not result[length:].any()


@pytest.mark.parametrize("mels", [80, 128])
def test_whisper_on_real_speech(speech: list[np.ndarray], mels: int) -> None:
    configuration = FilterbankConfiguration(convention="whisper", mels=mels)
    features, lengths = Filterbank(configuration)(*batch(speech, extra=333, garbage=float("nan")))
    for waveform, result, length in zip(speech, features.numpy(), lengths.tolist(), strict=True):
        assert length == -(-len(waveform) // 160)
        original = whisper.log_mel_spectrogram(whisper.pad_or_trim(waveform), mels).T.numpy()
        np.testing.assert_allclose(result[:length], original[:length], atol=1e-4)
        np.testing.assert_allclose(result[:length], published_whisper(waveform, mels)[:length], atol=1e-4)
        assert not result[length:].any()


@given(
    samples=st.integers(1500, 30000),
    mels=st.integers(4, 120),
    frame_length_ms=st.floats(5, 60),
    frame_shift_ms=st.floats(2, 30),
    low_frequency=st.floats(0, 500),
    high_frequency=st.one_of(st.floats(2000, 8000), st.floats(-2000, 0)),
    preemphasis=st.one_of(st.just(0.0), st.floats(0, 1)),
    window=st.sampled_from(["povey", "hamming", "hanning", "rectangular", "blackman"]),
    blackman_coefficient=st.floats(0.3, 0.5),
    remove_dc=st.booleans(),
    snip_edges=st.booleans(),
    round_to_power_of_two=st.booleans(),
    power=st.booleans(),
    logarithm=st.booleans(),
)
@settings(max_examples=50)
def test_kaldi_on_random_options(samples: int, **options: object) -> None:
    try:
        configuration = FilterbankConfiguration.model_validate(options)
    except ValidationError:
        assume(False)
    waveform = speech_like(samples)
    expected = kaldi.fbank(
        torch.from_numpy(waveform)[None],
        num_mel_bins=configuration.mels,
        frame_length=configuration.frame_length_ms,
        frame_shift=configuration.frame_shift_ms,
        low_freq=configuration.low_frequency,
        high_freq=configuration.high_frequency,
        preemphasis_coefficient=configuration.preemphasis,
        window_type=configuration.window,
        blackman_coeff=configuration.blackman_coefficient,
        remove_dc_offset=configuration.remove_dc,
        snip_edges=configuration.snip_edges,
        round_to_power_of_two=configuration.round_to_power_of_two,
        use_power=configuration.power,
        use_log_fbank=configuration.logarithm,
    )
    # A longer neighbour and wrong samples behind it make no difference.
    features, lengths = Filterbank(configuration)(*batch([waveform, speech_like(31000, 1)], extra=50, garbage=9.0))
    assert lengths[0] == len(expected)
    torch.testing.assert_close(features[0, : len(expected)], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("samples", [1, 2, 7, 79, 80, 119, 160, 399, 401])
def test_mirrored_edges_of_short_utterances_are_kaldis(samples: int) -> None:
    native = pytest.importorskip("kaldi_native_fbank")
    options = native.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    waveform = speech_like(samples, seed=3)
    computer = native.OnlineFbank(options)
    computer.accept_waveform(16000, waveform)
    computer.input_finished()
    expected = [computer.get_frame(frame) for frame in range(computer.num_frames_ready)]
    features, lengths = Filterbank(FilterbankConfiguration(snip_edges=False))(*batch([waveform, speech_like(900)]))
    assert lengths[0] == len(expected)
    for result, frame in zip(features[0], expected, strict=False):
        np.testing.assert_allclose(result.numpy(), frame, atol=2e-2)  # it rounds otherwise


@given(samples=st.integers(201, 6000), loud_end=st.booleans())
@settings(max_examples=30)
def test_whisper_is_the_published_definition_for_any_length(samples: int, loud_end: bool) -> None:
    waveform = speech_like(samples, seed=samples)
    if loud_end:
        # The loudest frame may then be one that begins after the utterance's own frames.
        waveform = np.concatenate([waveform[:-1] * np.float32(1e-3), np.ones(1, np.float32)])
    features, lengths = Filterbank(FilterbankConfiguration(convention="whisper"))(*batch([speech_like(7000), waveform]))
    length = int(lengths[1])
    np.testing.assert_allclose(features[1, :length].numpy(), published_whisper(waveform, 80)[:length], atol=1e-4)
    original = whisper.log_mel_spectrogram(waveform, padding=480000).T.numpy()
    np.testing.assert_allclose(features[1, :length].numpy(), original[:length], atol=1e-4)


CONVENTIONS = [
    FilterbankConfiguration(),
    FilterbankConfiguration(snip_edges=False),
    FilterbankConfiguration(normalization="utterance"),
    FilterbankConfiguration(convention="whisper"),
    FilterbankConfiguration(convention="whisper", mels=128, normalization="utterance"),
]


@pytest.mark.parametrize("configuration", CONVENTIONS)
@given(lengths=st.lists(st.integers(0, 5000), min_size=1, max_size=5), extra=st.integers(0, 1000))
@settings(max_examples=20)
def test_the_same_alone_and_in_any_batch(configuration: FilterbankConfiguration, lengths: list[int], extra: int) -> None:
    filterbank = Filterbank(configuration)
    waveforms = [speech_like(length, seed) for seed, length in enumerate(lengths)]
    together, frames = filterbank(*batch(waveforms, extra, garbage=float("inf")))
    assert together.shape == (len(lengths), max(frames), configuration.mels)
    for waveform, features, count in zip(waveforms, together, frames.tolist(), strict=True):
        alone, (own,) = filterbank(*batch([waveform]))
        assert count == own == filterbank.frames(len(waveform)) == alone.shape[1]
        # Normalisation divides by a deviation that two frames may make as small as rounding.
        close = 1e-3 if configuration.normalization == "utterance" else 1e-5
        torch.testing.assert_close(features[:count], alone[0], atol=close, rtol=close)
        assert not features[count:].any()


def test_long_utterances_cross_many_chunks() -> None:
    waveform = speech_like(160 * CHUNK_FRAMES * 3 + 4321)
    features, _ = Filterbank(FilterbankConfiguration())(*batch([waveform, waveform[:50000]]))
    expected = kaldi.fbank(torch.from_numpy(waveform)[None], num_mel_bins=80)
    torch.testing.assert_close(features[0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(features[1, : len(kaldi.fbank(torch.zeros(1, 50000)))], expected[:311], atol=1e-4, rtol=0)


@pytest.mark.parametrize("mels", [80, 128])
def test_whisper_filters_are_librosas(mels: int) -> None:
    filters = Filterbank(FilterbankConfiguration(convention="whisper", mels=mels)).filters
    np.testing.assert_array_equal(filters.T.numpy(), librosa.filters.mel(sr=16000, n_fft=400, n_mels=mels))


@pytest.mark.parametrize("configuration", CONVENTIONS)
def test_nothing_gives_no_frames(configuration: FilterbankConfiguration) -> None:
    filterbank = Filterbank(configuration)
    for waveforms, lengths in [(torch.zeros(2, 0), [0, 0]), (torch.zeros(0, 100), []), (torch.zeros(1, 500), [0])]:
        features, frames = filterbank(waveforms, torch.tensor(lengths, dtype=torch.int64))
        assert features.shape == (len(lengths), 0, configuration.mels)
        assert frames.tolist() == lengths
    assert Filterbank(FilterbankConfiguration()).frames(torch.tensor([0, 399, 400, 560])).tolist() == [0, 0, 1, 2]


def test_normalization() -> None:
    waveforms, lengths = batch([speech_like(16000), speech_like(9000, 1)])
    plain, frames = Filterbank(FilterbankConfiguration())(waveforms, lengths)
    normal, _ = Filterbank(FilterbankConfiguration(normalization="utterance"))(waveforms, lengths)
    for own, values, count in zip(plain, normal, frames, strict=True):
        expected = (own[:count] - own[:count].mean(0)) / own[:count].std(0, correction=0)
        torch.testing.assert_close(values[:count], expected, atol=1e-4, rtol=1e-4)
    everything = torch.cat([own[:count] for own, count in zip(plain, frames, strict=True)]).double()
    mean, deviation = global_statistics(
        Filterbank(FilterbankConfiguration()), [(waveforms[:1], lengths[:1]), (waveforms[1:], lengths[1:])]
    )
    np.testing.assert_allclose(mean, everything.mean(0), atol=1e-5)
    np.testing.assert_allclose(deviation, everything.std(0, correction=0), atol=1e-5)
    configuration = FilterbankConfiguration(normalization="global", mean=mean, standard_deviation=deviation)
    whitened, _ = Filterbank(configuration)(waveforms, lengths)
    torch.testing.assert_close(whitened[0], (plain[0] - torch.tensor(mean)) / torch.tensor(deviation))
    assert not whitened[1, frames[1] :].any()


def test_constants_follow_the_device_but_not_half_precision() -> None:
    filterbank = Filterbank(FilterbankConfiguration())
    waveforms, lengths = batch([speech_like(16000)])
    expected, _ = filterbank(waveforms, lengths)
    assert not filterbank.state_dict()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(filterbank.half()(waveforms, lengths)[0], expected, atol=0, rtol=0)
    assert filterbank.to("meta").filters.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("configuration", CONVENTIONS)
def test_the_same_on_a_cuda_device(configuration: FilterbankConfiguration) -> None:
    filterbank = Filterbank(configuration)
    waveforms, lengths = batch([speech_like(16000), speech_like(0), speech_like(9000, 1)])
    expected, frames = filterbank(waveforms, lengths)
    features, counts = filterbank.cuda()(waveforms.cuda(), lengths.cuda())
    assert counts.tolist() == frames.tolist()
    torch.testing.assert_close(features[:, : expected.shape[1]].cpu(), expected, atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"convention": "whisper", "mels": 64}, "80 or 128 mels"),
        ({"convention": "whisper", "window": "hamming"}, "window cannot be chosen"),
        ({"high_frequency": 9000.0}, "do not fit"),
        ({"low_frequency": 4000.0, "high_frequency": 3000.0}, "do not fit"),
        ({"normalization": "global", "mean": [0.0] * 80}, "needs mean and standard_deviation, 80 numbers each"),
        ({"normalization": "global", "mean": [0.0] * 80, "standard_deviation": [0.0] * 80}, "must be positive"),
        ({"frame_length_ms": 0.1}, "at least 2 samples"),
        ({"mel": 80}, "Extra inputs"),
    ],
)
def test_settings_that_do_not_fit(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        FilterbankConfiguration.model_validate(options)


def test_statistics_not_measured_yet_normalise_nothing() -> None:
    with pytest.raises(ConfigurationError, match="no mean yet"):
        Filterbank(FilterbankConfiguration(normalization="global"))
