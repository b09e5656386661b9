"""What can be given to the command and how it behaves: patterns, stdin, channels, folders, interruption, bad files."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import asr
from asr.audio import files
from asr.cli import app
from asr.exceptions import AsrError, AudioError
from asr.transcription import listening, outputs, recordings
from asr.transcription.recordings import Recording
from asr.transcription.transcriber import Transcriber
from asr.transcription.transcript import Failure, Transcript


def run(*arguments: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "asr", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=240, check=False)


def samples(data: Path, name: str = "welcome") -> np.ndarray:
    return files.read(data / f"{name}.wav")


def test_patterns_folders_and_equal_names(tmp_path: Path) -> None:
    for name in ("a/x.wav", "b/x.wav", "b/x.mp3", "b/.hidden.wav", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    found = recordings.find([str(tmp_path / "*" / "x.wav")])
    assert [name for _, name in found] == [Path("a/x.wav"), Path("b/x.wav")]
    assert len(recordings.find([str(tmp_path / "**" / "*.wav")])) == 2
    assert [str(name) for _, name in recordings.find([tmp_path / "b"])] == ["x.mp3", "x.wav"]
    with pytest.raises(AudioError, match="matches no file"):
        recordings.find([str(tmp_path / "*.flac")])


def test_a_file_named_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "take[1].wav").write_bytes(b"1")
    assert recordings.find([tmp_path / "take[1].wav"])[0][0].name == "take[1].wav"


@pytest.mark.parametrize("kind", ["wav", "pcm"])
def test_standard_input(data: Path, kind: str) -> None:
    content = (data / "welcome.wav").read_bytes()
    options: list[str] = []
    if kind == "pcm":
        with wave.open(str(data / "welcome.wav")) as reader:
            content = reader.readframes(reader.getnframes())
            options = ["--pcm-rate", str(reader.getframerate())]
    result = run("transcribe", "-", *options, stdin=content)
    assert result.returncode == 0
    assert b"every word of it" in result.stdout


def test_standard_input_that_is_empty_is_named() -> None:
    result = run("transcribe", "-", stdin=b"")
    assert result.returncode == 1
    assert result.stderr.decode().strip() == "asr: standard input: is empty; pipe a sound file or samples into it."


def test_channels_are_mixed_chosen_or_speakers(english: Transcriber, data: Path, tmp_path: Path) -> None:
    first, second = samples(data), samples(data, "weather")
    stereo = np.zeros((len(first) + len(second), 2), np.float32)
    stereo[: len(first), 0], stereo[len(first) :, 1] = first, second
    path = tmp_path / "call.wav"
    soundfile.write(path, stereo, 16000)
    mixed, left, right = english.transcribe_all([Recording(path), Recording(path, 0), Recording(path, 1)])
    assert all(isinstance(each, Transcript) for each in (mixed, left, right))
    assert "weather" in mixed.text
    assert "Welcome" in mixed.text
    assert "weather" not in left.text
    assert "Welcome" not in right.text
    out = tmp_path / "out"
    arguments = ["transcribe", str(path), "--channel", "each", "--output-dir", str(out), "--format", "json,txt"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    lines = (out / "call.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["channel 0", "channel 1"]
    content = json.loads((out / "call.json").read_text())
    assert [segment["speaker"] for segment in content["segments"]] == ["channel 0", "channel 1"]
    result = CliRunner().invoke(app, ["transcribe", str(path), "--channel", "7"])
    assert result.exit_code == 1
    assert "has no channel 7; choose one from 0 to 1" in result.stderr


def test_the_audio_tracks_of_a_video(english: Transcriber, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        tracks = [container.add_stream("aac", rate=16000, layout="mono") for _ in range(2)]
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            frame.time_base, frame.pts = Fraction(1, 10), number
            container.mux(picture.encode(frame))
        for track, name in zip(tracks, ("welcome", "weather"), strict=True):
            frame = av.AudioFrame.from_ndarray(samples(data, name)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), 0
            container.mux(track.encode(frame) + track.encode())
        container.mux(picture.encode())
    first, second, third = english.transcribe_all([Recording(path), Recording(path, track=1), Recording(path, track=2)])
    assert isinstance(first, Transcript)
    assert isinstance(second, Transcript)
    assert "every word" in first.text
    assert "light wind" in second.text
    assert isinstance(third, Failure)
    assert "has no audio track 2; choose one from 0 to 1" in str(third.error)


def test_what_is_done_is_skipped(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "a.wav").write_bytes((data / "welcome.wav").read_bytes())
    arguments = ["transcribe", str(tmp_path / "a.wav"), "--output-dir", str(out), "--format", "txt", "--language", "en"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (out / "a.txt").write_text("corrected by hand")
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0
    assert "done already" in again.stderr
    assert (out / "a.txt").read_text() == "corrected by hand"
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0
    assert "every word" in (out / "a.txt").read_text()
    os.utime(out / "a.txt", (1, 1))  # older than the recording
    assert "->" in CliRunner().invoke(app, arguments).stderr


def test_bad_files_among_good_ones(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.wav").write_bytes((data / "weather.wav").read_bytes())
    (folder / "3.wav").write_bytes((data / "weather.wav").read_bytes()[:1000])
    (folder / "4.wav").write_bytes(b"RIFF" + b"\0" * 60)
    result = CliRunner().invoke(app, ["transcribe", str(folder), "--output-dir", str(tmp_path / "out"), "--language", "en"])
    assert result.exit_code == 1
    failures = [line for line in result.stderr.splitlines() if "3.wav: " in line or "4.wav: " in line]
    assert len(failures) == 2
    assert "asr: 2 of 6 recordings failed." in result.stderr
    texts = {path.stem: path.read_text() for path in (tmp_path / "out").glob("*.txt")}
    assert sorted(texts) == ["0", "1", "2", "5"]
    assert len(set(texts.values())) == 1
    assert "light wind" in texts["0"]


def header(channels: int, rate: int, content: bytes) -> bytes:
    """A WAV file of 16 bit with any header."""
    form = b"fmt " + (16).to_bytes(4, "little") + (1).to_bytes(2, "little") + channels.to_bytes(2, "little")
    form += rate.to_bytes(4, "little") + (2 * rate * channels).to_bytes(4, "little")
    form += (2 * channels).to_bytes(2, "little") + (16).to_bytes(2, "little")
    body = b"WAVE" + form + b"data" + len(content).to_bytes(4, "little") + content
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def test_no_channels_and_many_channels(tmp_path: Path) -> None:
    (tmp_path / "none.wav").write_bytes(header(0, 16000, b"\0" * 3200))
    with pytest.raises(AudioError) as failure:
        files.read(tmp_path / "none.wav")
    assert str(failure.value).startswith(f"{tmp_path / 'none.wav'}: ")
    sound = np.tile(np.arange(1600, dtype=np.int16)[:, None], (1, 64))
    (tmp_path / "many.wav").write_bytes(header(64, 16000, sound.tobytes()))
    np.testing.assert_allclose(files.read(tmp_path / "many.wav"), np.arange(1600) / 32768, atol=1e-6)


def test_a_wrong_extension_does_not_matter(data: Path, tmp_path: Path) -> None:
    for name in ("a.mp3", "a.txt", "a.flac", "a"):
        (tmp_path / name).write_bytes((data / "welcome.wav").read_bytes())
        np.testing.assert_array_equal(files.read(tmp_path / name), samples(data))


def test_clipping_is_a_warning(english: Transcriber, data: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", np.clip(samples(data) * 40, -1, 1), 16000)
    result = english.transcribe(tmp_path / "loud.wav")
    assert len(result.warnings) == 1
    assert "are clipped" in result.warnings[0]
    assert not english.transcribe(data / "welcome.wav").warnings


def test_places_that_cannot_be_written_to(
    english: Transcriber, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(AsrError, match="is a file; give a folder as --output-dir"):
        outputs.check_folder(tmp_path / "file")
    transcript = english.transcribe(data / "welcome.wav")

    def full(self: Path, *_: object, **__: object) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(AsrError, match="cannot be written \\(No space left on device\\)"):
        outputs.write(transcript, tmp_path / "out" / "a", ("txt",))
    assert list((tmp_path / "out").iterdir()) == []


def test_watching_takes_files_that_no_longer_grow(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"1")
    looks = recordings.watch(tmp_path, sleep=lambda _: None)
    assert next(looks) == []
    assert [path.name for path in next(looks)] == ["a.wav"]
    (tmp_path / "b.wav").write_bytes(b"1")
    assert next(looks) == []
    (tmp_path / "b.wav").write_bytes(b"12")
    assert next(looks) == []
    assert [path.name for path in next(looks)] == ["b.wav"]
    assert next(looks) == []


def wait_for(path: Path, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    for _ in range(int(seconds * 10)):
        if path.exists():
            return
        assert process.poll() is None
        time.sleep(0.1)
    raise AssertionError(f"{path} did not appear")


def test_a_watched_folder_and_ctrl_c(data: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    command = [sys.executable, "-m", "asr", "transcribe", "--watch", tmp_path / "in", "--output-dir", tmp_path / "out"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE)
    (tmp_path / "in" / "new.wav").write_bytes((data / "welcome.wav").read_bytes())
    wait_for(tmp_path / "out" / "new.wav.txt", process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert "every word" in (tmp_path / "out" / "new.wav.txt").read_text()


def test_ctrl_c_leaves_complete_files_only(data: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(200):
        (tmp_path / "in" / f"{number:03}.wav").symlink_to((data / "weather.wav").resolve())
    out = tmp_path / "out"
    arguments = [tmp_path / "in", "--output-dir", out, "--batch-size", 1, "--language", "en"]
    command = [sys.executable, "-m", "asr", "transcribe", *arguments]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE)
    wait_for(out / "000.txt", process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    written = list(out.iterdir())
    assert 0 < len(written) < 200
    assert {path.suffix for path in written} == {".txt"}
    assert all(path.read_text().endswith("afternoon.\n") for path in written)


def test_a_live_source_is_heard_at_its_pace(english: Transcriber, data: Path, tmp_path: Path) -> None:
    silence = np.zeros(16000, np.float32)
    sound = np.concatenate((samples(data), silence, samples(data, "weather"), silence))
    soundfile.write(tmp_path / "a.wav", sound, 16000)
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    blocks: Iterator[np.ndarray] = listening.paced(tmp_path / "a.wav", lambda: now, sleep)
    texts = []
    for segment in listening.listen(english, blocks):
        texts.append(segment.text)
        # It is told within the pause and a few blocks after it was said.
        assert now < segment.end + 1.0
    assert now == pytest.approx(len(sound) / 16000, abs=0.02)
    assert "every word" in texts[0]
    assert "afternoon" in texts[-1]


def test_listening_on_the_command_line(data: Path) -> None:
    began = time.monotonic()
    result = run("listen", "--input", data / "weather.wav", "--times")
    assert result.returncode == 0
    assert b"light wind" in result.stdout
    assert result.stdout.startswith(b"[0.")
    assert time.monotonic() - began > len(samples(data, "weather")) / 16000


@pytest.mark.parametrize(("interruptions", "code", "text"), [(1, 0, "Welcome"), (2, 130, "")])
def test_ctrl_c_ends_listening(
    interruptions: int, code: int, text: str, english: Transcriber, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = samples(data)[:32000]

    def interrupted(path: Path) -> Iterator[np.ndarray]:
        yield from (sound[at : at + 1600] for at in range(0, len(sound), 1600))
        for _ in range(interruptions):
            signal.raise_signal(signal.SIGINT)
        yield sound[:1600]
        raise AssertionError("it went on")

    monkeypatch.setattr(listening, "paced", interrupted)
    monkeypatch.setattr("asr.transcription.transcriber.load", lambda *_, **__: english)
    result = CliRunner().invoke(app, ["listen", "--input", str(data / "welcome.wav")])
    assert result.exit_code == code, result.output
    assert result.stdout.startswith(text)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_was_said_before_a_failure_is_told(english: Transcriber, data: Path) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield samples(data)[:32000]
        raise AudioError("taken away")

    heard = listening.listen(english, failing())
    assert next(heard).text.startswith("Welcome")
    with pytest.raises(AudioError, match="taken away"):
        next(heard)


MUTATE = """
import sys
from pathlib import Path
import numpy as np
from asr.audio import files
from asr.exceptions import AudioError
generator = np.random.default_rng(0)
read = refused = 0
for original in map(Path, sys.argv[2:]):
    content = original.read_bytes()
    for _ in range(60):
        changed = bytearray(content)
        for place in generator.integers(0, min(len(changed), 200), size=generator.integers(1, 6)):
            changed[place] = generator.choice([0, 1, 0x7F, 0x80, 0xFF, generator.integers(256)])
        path = Path(sys.argv[1]) / f"mutated{original.suffix}"
        path.write_bytes(changed)
        try:
            assert all(np.isfinite(block).all() for block in files.stream(path, 1.0))
            read += 1
        except AudioError as error:
            assert str(error).startswith(str(path)) and "\\n" not in str(error), error
            refused += 1
print(read, refused)
"""


def test_mutated_headers_neither_crash_nor_hang(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    originals = [tmp_path / f"a.{suffix}" for suffix in ("wav", "flac", "mp3", "ogg")]
    for path in originals:
        soundfile.write(path, sound, 16000)
    command = [sys.executable, "-c", MUTATE, tmp_path, *originals]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    read, refused = map(int, result.stdout.split())
    assert read + refused == 240
    assert min(read, refused) > 20


def test_progress_adds_up_to_the_recordings(english: Transcriber, data: Path, tmp_path: Path) -> None:
    silence = np.zeros(5 * 16000, np.float32)
    soundfile.write(tmp_path / "a.wav", np.concatenate((silence, samples(data), silence)), 16000)
    told: list[float] = []
    results = list(english.transcribe_all([tmp_path / "a.wav", data / "weather.wav"], told.append))
    assert sum(told) == pytest.approx(sum(result.duration for result in results if isinstance(result, Transcript)), abs=1e-3)
    first = results[0]
    assert isinstance(first, Transcript)
    assert first.removed[0][0] == 0.0
    assert 4.0 < first.removed[0][1] < 5.5
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(first.removed))


def test_without_voice_detection_silence_and_speech_are_covered(data: Path, tmp_path: Path) -> None:
    transcriber = asr.load("en")
    transcriber.voice_detection = False
    quiet = np.random.default_rng(0).normal(0, 0.002, 40 * 16000).astype(np.float32)
    quiet[20 * 16000 : 20 * 16000 + len(samples(data))] += samples(data)
    soundfile.write(tmp_path / "a.wav", quiet, 16000)
    transcript = transcriber.transcribe(tmp_path / "a.wav")
    assert "every word" in transcript.text
    assert transcript.removed == ()
    assert sum(segment.end - segment.start for segment in transcript.segments) == pytest.approx(40.0)
