"""The microphone: through PortAudio and ALSA where they are, with a device that gives what is fed to it, and a stand-in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soxr

from asr.audio import files, microphone
from asr.audio.microphone import Microphone
from asr.exceptions import AudioError


class Device:
    """An ALSA device of one rate that gives what is fed, then silence.

    A ``null`` device gives a moment as fast as it is asked for, and ``file`` over it reads samples from a file instead.
    Here that is a pipe, which makes the reader wait: the next 0.1 s is written at its time, and only when the last is
    read. The very first read is of more, and what the pipe has not got by then stays silent.
    """

    SECONDS = 0.1  # as the microphone's blocks
    SYSTEM = Path("/usr/share/alsa/alsa.conf")
    CONFIGURATION = f"""
        <{SYSTEM}>
        pcm.fed {{ type plug
                   slave {{ pcm {{ type file slave.pcm "null" file "/dev/null" infile "%s" format "raw" }}
                            format S16_LE channels 1 rate %d }} }}
    """

    def __init__(self, folder: Path, rate: int, sound: np.ndarray, slow_after: float = float("inf")) -> None:
        self.rate = rate
        self.sound = sound.astype("<i2").tobytes()
        self.slow_after = slow_after  # in seconds; then it takes ten times as long
        self.heard = 0.0  # seconds
        os.mkfifo(folder / "pipe")
        configuration = folder / "asound.conf"
        configuration.write_text(self.CONFIGURATION % (folder / "pipe", rate))
        self.environment = {**os.environ, "ALSA_CONFIG_PATH": str(configuration)}
        # Open for reading too, so that the pipe outlives those who open it only to see what kind of device it is.
        self.pipe = os.open(folder / "pipe", os.O_RDWR)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.feed, daemon=True)
        self.thread.start()

    def feed(self) -> None:
        import fcntl  # here, since Windows has neither
        import termios

        size = 2 * round(self.SECONDS * self.rate)
        for at in count(0, size):
            os.write(self.pipe, self.sound[at : at + size].ljust(size, b"\0"))
            waiting = array("i", [1])
            while waiting[0]:
                if self.ended.wait(0.001):
                    return
                fcntl.ioctl(self.pipe, termios.FIONREAD, waiting)
            self.heard += self.SECONDS
            self.ended.wait(self.SECONDS * (1 if self.heard < self.slow_after else 10))

    def close(self) -> None:
        self.ended.set()
        self.thread.join()
        os.close(self.pipe)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Callable[..., Device]]:
    look = "import sounddevice; print(*(each['name'] for each in sounddevice.query_hostapis()))"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=False)
    if found.returncode:
        pytest.skip(f"needs sounddevice and PortAudio (libportaudio2): {found.stderr.strip().rpartition(chr(10))[2]}")
    if "ALSA" not in found.stdout.split() or not Device.SYSTEM.is_file():
        pytest.skip(f"needs ALSA: a PortAudio that speaks to it, and {Device.SYSTEM}")
    made: list[Device] = []

    def make(*arguments: Any) -> Device:
        made.append(Device(tmp_path, *arguments))
        return made[0]

    yield make
    for each in made:
        each.close()


CAPTURE = """
import sys, threading
import numpy as np
from asr.audio.microphone import Microphone
microphone = Microphone("fed")
stop, blocks = threading.Event(), []
for block in microphone.blocks(stop):
    blocks.append(block)
    if sum(map(len, blocks)) >= 32000:
        stop.set()
print(microphone.rate, microphone.losses)
np.save(sys.argv[1], np.concatenate(blocks))
"""


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_a_device_of_any_rate_is_heard_whole(rate: int, device: Callable[..., Device], tmp_path: Path) -> None:
    sound = (np.random.default_rng(0).normal(0, 3000, 5 * rate)).astype(np.int16)
    fed = device(rate, sound)
    command = [sys.executable, "-c", CAPTURE, tmp_path / "heard.npy"]
    result = subprocess.run(
        list(map(str, command)), env=fed.environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.stdout.split() == [str(rate), "0"], result.stderr
    heard = np.load(tmp_path / "heard.npy")
    expected = soxr.resample(sound / np.float32(32768), rate, 16000)
    # From where the device has begun on, all of it; the resampler does not know what would have come after the end.
    heard = heard[4800:-200]
    first = int(np.correlate(expected, heard, "valid").argmax())
    assert first <= 4800
    np.testing.assert_allclose(heard, expected[first : first + len(heard)], rtol=0, atol=0 if rate == 16000 else 1e-4)


def test_what_was_said_until_ctrl_c_is_written(device: Callable[..., Device], data: Path) -> None:
    welcome, weather = (files.read(data / f"{name}.wav") for name in ("welcome", "weather"))
    sound = np.concatenate((welcome, np.zeros(16000, np.float32), weather))
    until = (len(welcome) + 16000) / 16000 + 3.0
    # What follows is the middle of a sentence for long enough that Ctrl-C comes into it on a busy machine, too.
    fed = device(48000, np.rint(32767 * soxr.resample(sound, 16000, 48000)).astype(np.int16), until)
    process = subprocess.Popen(
        [sys.executable, "-m", "asr", "listen", "--microphone", "fed", "--device", "cpu"],
        env=fed.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while fed.heard < until and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert "listening to 'fed'" in errors
    assert "lost" not in errors
    first, second = output.splitlines()
    assert "every word" in first
    assert second.startswith("The weather will be fine")


class Stub:
    """As much of sounddevice as is used, with one microphone of 48 kHz."""

    class PortAudioError(Exception):
        pass

    def __init__(self, *calls: tuple[int, bool], devices: int = 1, refuses: bool = False, active: bool = True) -> None:
        self.calls = calls  # what the stream calls back with: samples and whether there was an overflow
        self.devices = [
            {"name": f"Mic {n}", "index": n, "max_input_channels": 1, "default_samplerate": 48000.0} for n in range(devices)
        ]
        self.refuses = refuses
        self.active = active

    def query_devices(self, device: int | str | None = None, kind: str | None = None) -> Any:
        if kind is None:
            return self.devices
        if device is None or isinstance(device, str) or device >= len(self.devices):
            raise ValueError("Multiple input devices found for 'Mic':\n[0] Mic 0\n[1] Mic 1")
        return self.devices[device]

    def check_input_settings(self, *_: Any, **__: Any) -> None:
        if self.refuses:
            raise self.PortAudioError("Error opening InputStream: Device unavailable [PaErrorCode -9985]")

    def InputStream(self, rate: int, size: int, device: int, channels: int, dtype: str, callback: Any) -> Stub:
        for number, overflow in self.calls:
            callback(np.ones((number, 1), np.float32), number, None, SimpleNamespace(input_overflow=overflow))
        return self

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def install(monkeypatch: pytest.MonkeyPatch, stub: Stub | None) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", stub)


def test_failures_are_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    for stub, name, message in [
        (None, None, "needs the package sounddevice; install it"),
        (Stub(devices=0), None, "no microphone was found; connect one"),
        (Stub(devices=2), None, "no default one; give --microphone one of 0 'Mic 0', 1 'Mic 1'.$"),
        (Stub(devices=2), "Mic", "^microphone 'Mic': is not exactly one of 0 'Mic 0', 1 'Mic 1';"),
        (Stub(devices=2), "7", "^microphone '7': is not exactly one of 0 'Mic 0', 1 'Mic 1';"),
        (Stub(refuses=True), "0", r"^microphone 'Mic 0': cannot be opened \(Error opening .*-9985\]\); end what else uses it"),
    ]:
        install(monkeypatch, stub)
        with pytest.raises(AudioError, match=message):
            Microphone(name)


def test_without_portaudio_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AudioError, match=r"needs PortAudio \(PortAudio library not found\); install it .*libportaudio2"):
        Microphone()


def test_a_device_that_is_taken_away_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # PortAudio says so, or the device is just silent for too long.
    for stub, patience in ((Stub((4800, False), active=False), 1000.0), (Stub((4800, False)), 0.1)):
        install(monkeypatch, stub)
        monkeypatch.setattr(microphone, "PATIENCE_SECONDS", patience)
        blocks = Microphone("0").blocks(threading.Event())
        assert len(next(blocks)) <= 1600
        with pytest.raises(AudioError, match=r"^microphone 'Mic 0': gives no more sound; connect it again\.$"):
            next(blocks)


def test_lost_sound_is_counted_and_a_backlog_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Stub(*[(4800, n == 2) for n in range(50)]))
    monkeypatch.setattr(microphone, "LONGEST_BACKLOG_SECONDS", 3.0)
    heard = Microphone("0")
    stop = threading.Event()
    stop.set()
    # All that waits is still given when it is stopped, with what the resampler has held back.
    assert sum(map(len, heard.blocks(stop))) == 30 * 1600
    assert heard.losses == 1 + 20
