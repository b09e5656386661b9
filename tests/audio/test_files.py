from __future__ import annotations

import csv
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import files
from asr.exceptions import AudioError

PLAIN = [("wav", None), ("flac", None), ("aiff", None), ("au", None), ("ogg", "VORBIS"), ("mp3", None)]


def sound(rate: int, seconds: float = 2.0, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Tones and a little noise, another tone on each channel, float32 (samples, channels)."""
    time = np.arange(round(rate * seconds)) / rate
    noise = np.random.default_rng(seed).standard_normal((len(time), channels))
    tones = [0.3 * np.sin(2 * np.pi * (300 + 200 * channel) * time) for channel in range(channels)]
    return (np.stack(tones, 1) + 0.01 * noise).astype(np.float32)


def encode(path: Path, codec: str, samples: np.ndarray, rate: int, video: bool = False, faststart: bool = False) -> Path:
    """Write a container that libsndfile cannot, with PyAV."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        if video:
            picture = container.add_stream("mpeg4", rate=10)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
        if len(samples):
            track = container.add_stream(codec, rate=rate, layout="stereo" if samples.shape[1] == 2 else "mono")
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=track.layout.name)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
            container.mux(track.encode(frame) + track.encode())
        if video:
            for number in range(20):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                frame.time_base, frame.pts = Fraction(1, 10), number
                container.mux(picture.encode(frame))
            container.mux(picture.encode())
    return path


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
@pytest.mark.parametrize(("suffix", "subtype"), PLAIN)
def test_libsndfile_formats(tmp_path: Path, suffix: str, subtype: str | None, rate: int, channels: int) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, sound(rate, channels=channels), rate, subtype=subtype)
    decoded, _ = soundfile.read(path, dtype="float32", always_2d=True)
    expected = librosa.resample(decoded.mean(1), orig_sr=rate, target_sr=16000, res_type="soxr_hq")
    samples = files.read(path)
    assert samples.dtype == np.float32
    assert samples.shape == (32000,)
    np.testing.assert_allclose(samples, expected, atol=1e-5)
    information = files.inspect(path)
    assert (information.sample_rate, information.channels) == (rate, channels)
    assert information.duration == pytest.approx(2.0, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "video", "tolerance"),
    [
        ("a.m4a", "aac", 44100, False, 0.1),
        ("a.mp4", "aac", 48000, True, 0.1),
        ("a.webm", "libopus", 48000, False, 0.1),
        ("a.mkv", "pcm_s16le", 22050, True, 1e-3),
        ("a.mka", "flac", 16000, False, 1e-3),
    ],
)
def test_ffmpeg_formats(tmp_path: Path, name: str, codec: str, rate: int, video: bool, tolerance: float) -> None:
    source = sound(rate, channels=2)
    path = encode(tmp_path / name, codec, source, rate, video=video)
    expected = librosa.resample(source.mean(1), orig_sr=rate, target_sr=16000, res_type="soxr_hq")
    samples = files.read(path)
    # Codecs work in whole blocks: some fill the last one up.
    assert 32000 <= len(samples) <= 32000 + 1024
    # The middle, where neither the start of the codec nor its end matters, is the same sound at the same time.
    np.testing.assert_allclose(samples[2000:30000], expected[2000:30000], atol=tolerance)
    assert files.inspect(path).duration == pytest.approx(len(samples) / 16000, abs=1e-3)
    np.testing.assert_array_equal(np.concatenate(list(files.stream(path, 0.7))), samples)
    np.testing.assert_allclose(files.read(path, 1.25, 0.5), samples[20000:28000], atol=0.2 if "webm" in name else 0.1)


@given(
    rate=st.sampled_from([8000, 11025, 16000, 22050, 44100, 44101, 96000]),
    start=st.floats(0, 2.9),
    duration=st.floats(0.001, 4),
    block=st.floats(0.05, 4),
)
@settings(max_examples=40)
def test_parts_are_parts_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, rate: int, start: float, duration: float, block: float
) -> None:
    path = tmp_path_factory.getbasetemp() / f"parts-{rate}.wav"
    if not path.exists():
        soundfile.write(path, sound(rate, 3.0), rate, subtype="FLOAT")
    whole = files.read(path)
    first = round(start * 16000)
    part = files.read(path, start, duration)
    np.testing.assert_allclose(part, whole[first : first + max(round(duration * 16000), 1)], atol=1e-6)
    blocks = list(files.stream(path, block))
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    assert all(len(piece) == round(block * 16000) for piece in blocks[:-1])


@pytest.mark.parametrize("suffix", ["ogg", "mp3", "flac", "opus"])
def test_parts_of_compressed_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    options = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    soundfile.write(path, sound(16000, 6.0), 16000, **options)
    whole = files.read(path)
    assert len(whole) == 96000
    for start in (0.5, 2.0001, 4.7):
        first = round(start * 16000)
        # An Opus decoder that begins in mid-file takes seconds to forget the difference.
        tolerance = 3e-3 if suffix == "opus" else 1e-5
        np.testing.assert_allclose(files.read(path, start, 1.0), whole[first : first + 16000], atol=tolerance)


def test_channel(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    source = sound(16000, channels=2)
    soundfile.write(path, source, 16000, subtype="FLOAT")
    np.testing.assert_array_equal(files.read(path, channel=1), source[:, 1])
    np.testing.assert_array_equal(np.concatenate(list(files.stream(path, 0.3, channel=0))), source[:, 0])
    with pytest.raises(AudioError, match="has no channel 2; choose one from 0 to 1"):
        files.read(path, channel=2)


def test_real_durations(corpora: Path) -> None:
    with (corpora / "manifest.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in [row for row in rows if "hsk" not in row["path"]][::400]:
        # The manifest gives milliseconds.
        assert len(files.read(corpora / row["path"])) / 16000 == pytest.approx(float(row["duration_s"]), abs=6e-4)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 44100, 2) as file:
        for _ in range(60):
            file.write(sound(44100, 5.0, 2))
    tracemalloc.start()
    try:
        count = sum(len(block) for block in files.stream(path, 10.0))
        streamed = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        part = files.read(path, 200.0, 10.0)
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 300 * 16000
    assert len(part) == 160000
    # The whole file is 106 MB as float32 before resampling and 19 MB after.
    assert streamed < 8e6
    assert read < 8e6


def test_silence_is_not_an_error_and_clipping_is_not_an_overflow(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000, np.float32), 8000)
    assert files.read(tmp_path / "silence.wav").tolist() == [0.0] * 16000
    soundfile.write(tmp_path / "loud.wav", sound(44100) * 6, 44100, subtype="FLOAT")
    assert np.abs(files.read(tmp_path / "loud.wav")).max() == 1.0


def test_a_header_without_a_length_is_no_truncation(tmp_path: Path) -> None:
    path = tmp_path / "piped.wav"
    soundfile.write(path, sound(16000), 16000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(files.read(path)) == 32000


def _broken(folder: Path, name: str) -> Path:
    """Make the named bad file."""
    path = folder / name
    source = sound(16000)
    kind, rest = path.stem.partition("-")[0], name.partition("-")[2]
    if kind == "truncated":
        whole = folder / f"whole-{rest}"
        if path.suffix in (".webm", ".mp4"):
            encode(whole, "libopus" if path.suffix == ".webm" else "aac", sound(48000, 8), 48000, faststart="mp4" in rest)
        else:
            soundfile.write(whole, sound(16000, 8), 16000)
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    elif kind == "rate":
        soundfile.write(path, source, int(path.stem.removeprefix("rate-")))
    elif kind in ("nan", "infinite", "integers"):
        value = {"nan": np.nan, "infinite": np.inf, "integers": 20000.0}[kind]
        source[7000] = value
        soundfile.write(path, source, 16000, subtype="FLOAT")
    elif kind == "nothing":
        soundfile.write(path, source[:0], 16000)
    elif kind == "mute":
        encode(path, "aac", source[:0], 16000, video=True)
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "random":
        path.write_bytes(np.random.default_rng(0).bytes(20000))
    elif kind == "text":
        path.write_text("This is not a recording.\n" * 100)
    elif kind == "playlist":
        path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n")
    return path


BAD = {
    "missing.wav": "does not exist",
    "folder.wav": "is a folder",
    "empty.wav": "is empty",
    "empty.mp3": "is empty",
    "nothing.wav": "holds no samples",
    "truncated-a.wav": "is truncated",
    "truncated-a.flac": "is truncated",
    "truncated-a.aiff": "is truncated",
    "truncated-a.au": "is truncated",
    "truncated-a.mp3": "is truncated",
    "truncated-a.webm": "is truncated",
    "truncated-a.mp4": "damaged",
    "nan.wav": "not finite",
    "infinite.wav": "not finite",
    "integers.wav": "up to 20000 where full scale is 1",
    "rate-1.wav": "has a sample rate of 1 Hz",
    "rate-999.wav": "has a sample rate of 999 Hz",
    "rate-800000.wav": "has a sample rate of 800000 Hz",
    "mute.mp4": "holds no audio track",
    "random.wav": "is not audio",
    "random.mp3": "is not audio",
    "text.wav": "is not audio",
    "text.txt": "is not audio",
    "playlist.m3u8": "is not audio",
}


@pytest.mark.parametrize(("name", "reason"), BAD.items())
def test_a_bad_file_is_named_in_one_sentence(tmp_path: Path, name: str, reason: str) -> None:
    path = _broken(tmp_path, name)
    for use in (files.read, lambda path: list(files.stream(path))):
        with pytest.raises(AudioError) as failure:
            use(path)
        message = str(failure.value)
        assert message.startswith(f"{path}: ")
        assert reason in message
        assert message.endswith(".")
        assert "\n" not in message


@pytest.mark.parametrize("name", ["missing.wav", "empty.wav", "truncated-a.wav", "nothing.wav", "rate-1.wav", "text.wav"])
def test_inspect_names_what_the_header_shows(tmp_path: Path, name: str) -> None:
    with pytest.raises(AudioError, match=BAD[name]):
        files.inspect(_broken(tmp_path, name))


def test_extreme_rates_that_are_read(tmp_path: Path) -> None:
    for rate in (1000, 768000):
        soundfile.write(tmp_path / "a.wav", sound(rate, 0.5), rate)
        assert len(files.read(tmp_path / "a.wav")) == 8000


def test_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", sound(16000), 16000)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")  # as for anyone but root

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AudioError, match="may not be read"):
        files.read(tmp_path / "a.wav")


def test_start_beyond_the_end(tmp_path: Path) -> None:
    for rate in (16000, 44100):
        soundfile.write(tmp_path / "a.wav", sound(rate), rate)
        with pytest.raises(AudioError, match="ends before 2 s"):
            files.read(tmp_path / "a.wav", start=2.0)
        assert len(files.read(tmp_path / "a.wav", start=1.5, duration=9)) == 8000
    with pytest.raises(AudioError, match="start >= 0"):
        files.read(tmp_path / "a.wav", start=-1.0)
