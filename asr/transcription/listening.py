"""Speech as it is spoken: from a microphone, or from a file at the pace of a live source."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.audio import files
from asr.audio.files import SAMPLE_RATE
from asr.exceptions import AudioError
from asr.transcription.transcriber import Transcriber
from asr.transcription.transcript import TranscriptSegment

BLOCK_SECONDS = 0.1
# A listener waits for the end of a sentence: it ends sooner, and is cut sooner, than in a file.
PAUSE_SECONDS, LONGEST_SECONDS = 0.6, 15.0


def listen(transcriber: Transcriber, blocks: Iterable[NDArray[np.float32]]) -> Iterator[TranscriptSegment]:
    """What is said, each stretch as soon as a pause of 0.6 s ends it.

    Args:
        blocks: float32 samples at 16 kHz as they come.
    """
    segmenter = transcriber.segmenter(LONGEST_SECONDS, PAUSE_SECONDS)
    for block in blocks:
        for segment in segmenter.push(block):
            yield from (each for each in transcriber.decode_segments([segment]) if each.text)
    for segment in segmenter.finish():
        yield from (each for each in transcriber.decode_segments([segment]) if each.text)


def paced(
    path: Path, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> Iterator[NDArray[np.float32]]:
    """A file in blocks of 0.1 s, each when a microphone would have given it.

    Raises:
        AudioError: the file cannot be read.
    """
    began = clock()
    heard = 0
    for block in files.stream(path, BLOCK_SECONDS):
        heard += len(block)
        wait = began + heard / SAMPLE_RATE - clock()
        if wait > 0:
            sleep(wait)
        yield block


def microphone(device: str | None = None) -> Iterator[NDArray[np.float32]]:
    """What the microphone hears, in blocks of 0.1 s, without end.

    Args:
        device: number or part of the name of a device; None: the system's choice.

    Raises:
        AudioError: sounddevice or PortAudio is not installed, or there is no such device.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise AudioError(
            f"the microphone cannot be heard ({error}); install asr[microphone] and the system's PortAudio, or give --input."
        ) from error
    heard: queue.Queue[NDArray[np.float32]] = queue.Queue()

    def keep(samples: NDArray[np.float32], *_: Any) -> None:
        heard.put(samples[:, 0].copy())

    chosen: int | str | None = int(device) if device is not None and device.isdecimal() else device
    size = round(BLOCK_SECONDS * SAMPLE_RATE)
    try:
        with sounddevice.InputStream(SAMPLE_RATE, size, chosen, 1, "float32", callback=keep):
            while True:
                yield heard.get()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(f"microphone '{device or 'default'}': cannot be opened ({error}); name another device.") from error
