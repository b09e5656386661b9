"""Sound in as it is spoken: a microphone, through PortAudio (the package sounddevice), at its own rate, resampled by soxr.

At its own rate, because not every system resamples, or does it well: ALSA's own converter, asked for 16 kHz of a device of
48 kHz, lets a tone of 10 kHz through as one of 6 kHz, as loud as it was.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import soxr

from asr.audio.files import SAMPLE_RATE
from asr.audio.sources import Samples
from asr.exceptions import AudioError

BLOCK_SECONDS = 0.1
# What a listener who does not keep up may fall behind, before sound is dropped: memory must not grow with the hours.
LONGEST_BACKLOG_SECONDS = 300.0
# A device gives sound, be it silence, in every moment; one that gives none for so long has been taken away.
PATIENCE_SECONDS = 5.0
_LOOK_SECONDS = 0.2


class Microphone:
    """A device that can be heard; nothing is recorded before ``blocks``.

    Args:
        device: its number or a part of its name; None: the system's choice.

    Attributes:
        name: the device's.
        rate: samples a second of the device.
        losses: how many times sound was lost, because this process did not take it in time.

    Raises:
        AudioError: sounddevice or PortAudio is not installed, there is no such device, or it cannot be opened.
    """

    def __init__(self, device: str | None = None) -> None:
        self.losses = 0
        self._library = library = _portaudio()
        inputs = [(number, each["name"]) for number, each in enumerate(library.query_devices()) if each["max_input_channels"]]
        if not inputs:
            raise AudioError("no microphone was found; connect one, or give a recording with --input.")
        chosen: int | str | None = int(device) if device is not None and device.isdecimal() else device
        try:
            description = library.query_devices(chosen, "input")
        except (library.PortAudioError, ValueError) as error:
            there = ", ".join(f"{number} '{name}'" for number, name in inputs)
            if device is None:
                raise AudioError(f"microphone: the system has no default one; give --microphone one of {there}.") from error
            raise AudioError(f"microphone '{device}': is not exactly one of {there}; give a number or a whole name.") from error
        self._number: int = description["index"]
        self.name: str = description["name"]
        self.rate = round(description["default_samplerate"])
        try:
            library.check_input_settings(self._number, 1, "float32", samplerate=self.rate)
        except library.PortAudioError as error:
            raise self._unopened(error) from error

    def blocks(self, stop: threading.Event) -> Iterator[Samples]:
        """What is heard, float32 at 16 kHz in blocks of about 0.1 s, until ``stop`` is set and all before it is given.

        Raises:
            AudioError: the device cannot be opened, or gives no more sound.
        """
        resampler = None if self.rate == SAMPLE_RATE else soxr.ResampleStream(self.rate, SAMPLE_RATE, 1, dtype="float32")
        for block in self._captured(stop):
            yield block if resampler is None else resampler.resample_chunk(block)
        if resampler is not None:
            yield resampler.resample_chunk(np.empty(0, np.float32), last=True)

    def _captured(self, stop: threading.Event) -> Iterator[Samples]:
        """Blocks at the device's rate."""
        heard: queue.Queue[Samples] = queue.Queue(round(LONGEST_BACKLOG_SECONDS / BLOCK_SECONDS))

        def keep(samples: Samples, count: int, times: Any, status: Any) -> None:
            """Called in a thread of PortAudio's, which must not wait."""
            try:
                heard.put_nowait(samples[:, 0].copy())
                self.losses += bool(status.input_overflow)
            except queue.Full:
                self.losses += 1

        size = round(BLOCK_SECONDS * self.rate)
        try:
            with self._library.InputStream(self.rate, size, self._number, 1, "float32", callback=keep) as stream:
                last = time.monotonic()
                while not stop.is_set():
                    try:
                        # Not for longer, since Windows delivers no Ctrl-C while a thread waits.
                        block = heard.get(timeout=_LOOK_SECONDS)
                    except queue.Empty:
                        if not stream.active or time.monotonic() - last > PATIENCE_SECONDS:
                            raise AudioError(f"microphone '{self.name}': gives no more sound; connect it again.") from None
                        continue
                    yield block
                    last = time.monotonic()
        except self._library.PortAudioError as error:
            raise self._unopened(error) from error
        while not heard.empty():
            yield heard.get()

    def _unopened(self, error: Exception) -> AudioError:
        reason = " ".join(str(error).split()).rstrip(".")
        return AudioError(f"microphone '{self.name}': cannot be opened ({reason}); end what else uses it, or name another.")


def _portaudio() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise AudioError(
            "the microphone needs the package sounddevice; install it (pip install sounddevice), or give --input."
        ) from error
    except OSError as error:  # sounddevice looks for PortAudio when it is imported
        raise AudioError(
            f"the microphone needs PortAudio ({error}); install it (on Debian and Ubuntu libportaudio2), or give --input."
        ) from error
    return sounddevice
