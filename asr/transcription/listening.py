"""Speech as it is spoken: text of each sentence when it ends; and a file at the pace of a live source."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.audio import files
from asr.audio.files import SAMPLE_RATE
from asr.audio.segmentation import Segment
from asr.exceptions import AudioError
from asr.transcription.languages import Polyglot
from asr.transcription.transcriber import Transcriber
from asr.transcription.transcript import TranscriptSegment

BLOCK_SECONDS = 0.1
# A listener waits for the end of a sentence: it ends sooner, and is cut sooner, than in a file.
PAUSE_SECONDS, LONGEST_SECONDS = 0.6, 15.0


def listen(transcriber: Transcriber | Polyglot, blocks: Iterable[NDArray[np.float32]]) -> Iterator[TranscriptSegment]:
    """What is said, each stretch as soon as a pause of 0.6 s ends it.

    Args:
        transcriber: who writes it; where there are several, each stretch in the language that it begins in.
        blocks: float32 samples at 16 kHz as they come.

    Raises:
        AudioError: the blocks end with it; what was said before is given first.
    """
    segmenter = transcriber.segmenter(LONGEST_SECONDS, PAUSE_SECONDS)
    failure: AudioError | None = None
    try:
        for block in blocks:
            for segment in segmenter.push(block):
                yield from _heard(transcriber, segment)
    except AudioError as error:
        failure = error
    for segment in segmenter.finish():
        yield from _heard(transcriber, segment)
    if failure is not None:
        raise failure


def _heard(transcriber: Transcriber | Polyglot, segment: Segment) -> list[TranscriptSegment]:
    if isinstance(transcriber, Polyglot):
        transcriber = transcriber.of(transcriber.hear(segment.samples))
    return [each for each in transcriber.punctuated(transcriber.decode_segments([segment])) if each.text]


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
