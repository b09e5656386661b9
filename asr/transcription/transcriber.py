"""From audio files to text: a model that is loaded once, and batches that are filled across files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asr import pretrained
from asr.exceptions import AsrError, ConfigurationError
from asr.model import checkpoint as model_folder
from asr.model.checkpoint import Checkpoint
from asr.search.decoding import decode
from asr.search.hypothesis import Hypothesis
from asr.search.options import DecodingOptions
from asr.transcription.segments import Segment, is_silent, segments

# Segments of several files that are sorted by length before they are batched.
_BATCHES_AHEAD = 8


@dataclass(frozen=True)
class TranscriptSegment:
    """A stretch of a recording, in seconds, with its hypothesis."""

    start: float
    end: float
    hypothesis: Hypothesis


@dataclass(frozen=True)
class Transcript:
    """What was said in a file.

    Attributes:
        path: the file.
        text: all of the text.
        duration: length of the recording in seconds.
        segments: its stretches in order.
    """

    path: Path
    text: str
    duration: float
    segments: tuple[TranscriptSegment, ...]


@dataclass(frozen=True)
class Failure:
    """A file that could not be transcribed, and why."""

    path: Path
    error: AsrError


class Transcriber:
    """A loaded model.

    Args:
        checkpoint: model and tokenizer.
        options: which part of the model writes the text, and how it is searched; None: what suits the model.
        batch_size: segments decoded together.
    """

    def __init__(self, checkpoint: Checkpoint, options: DecodingOptions | None = None, batch_size: int = 8) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch size {batch_size} is not possible; give 1 or more.")
        self.checkpoint = checkpoint
        self.options = (options or DecodingOptions()).resolved(checkpoint.model, checkpoint.folder)
        self.batch_size = batch_size

    def transcribe(self, path: str | Path) -> Transcript:
        """Transcribe one file.

        Raises:
            AudioError: the file cannot be read.
        """
        result = next(self.transcribe_all([Path(path)]))
        if isinstance(result, Failure):
            raise result.error
        return result

    def transcribe_all(self, paths: Iterable[Path]) -> Iterator[Transcript | Failure]:
        """Transcribe files in order; a file that cannot be read becomes a ``Failure`` and the others go on."""
        pending: list[tuple[Path, list[Segment], AsrError | None]] = []
        waiting = 0
        for path in paths:
            pieces: list[Segment] = []
            error = None
            done: list[TranscriptSegment] = []
            try:
                for segment in segments(path):
                    pieces.append(segment)
                    # A long file is decoded as it is read, so that its samples need not be kept.
                    if len(pieces) >= _BATCHES_AHEAD * self.batch_size:
                        done += self._segments(pieces)
                        pieces = []
            except AsrError as failure:
                error, pieces = failure, []
            if done:
                yield from self._finish(pending)
                pending, waiting = [], 0
                if error is not None:
                    yield Failure(path, error)
                else:
                    yield _transcript(path, done + self._segments(pieces))
                continue
            pending.append((path, pieces, error))
            waiting += len(pieces)
            if waiting >= _BATCHES_AHEAD * self.batch_size:
                yield from self._finish(pending)
                pending, waiting = [], 0
        yield from self._finish(pending)

    def decode(self, samples: list[NDArray[np.float32]]) -> list[Hypothesis]:
        """Decode one batch of waveforms, float32 (samples,) at 16 kHz."""
        model, tokenizer = self.checkpoint.model, self.checkpoint.tokenizer
        device = next(model.parameters()).device
        lengths = torch.tensor([len(each) for each in samples])
        waveforms = torch.zeros(len(samples), max(int(lengths.max()), 1))
        for row, each in enumerate(samples):
            waveforms[row, : len(each)] = torch.from_numpy(each)
        with torch.inference_mode():
            encoded = model.encode(waveforms.to(device), lengths.to(device))
            return decode(model, tokenizer, encoded, lengths, self.options, self.checkpoint.ctc_tokenizer)

    def _finish(self, pending: list[tuple[Path, list[Segment], AsrError | None]]) -> Iterator[Transcript | Failure]:
        results = iter(self._segments([piece for _, pieces, _ in pending for piece in pieces]))
        for path, pieces, error in pending:
            if error is not None:
                yield Failure(path, error)
            else:
                yield _transcript(path, [next(results) for _ in pieces])

    def _segments(self, pieces: list[Segment]) -> list[TranscriptSegment]:
        """Decode segments in batches of similar length; results are in the order given."""
        nothing = Hypothesis("", (), (), 0.0, "stop")
        found = [nothing] * len(pieces)
        audible = [index for index, piece in enumerate(pieces) if not is_silent(piece.samples)]
        audible.sort(key=lambda index: len(pieces[index].samples))
        for first in range(0, len(audible), self.batch_size):
            rows = audible[first : first + self.batch_size]
            for row, hypothesis in zip(rows, self.decode([pieces[row].samples for row in rows]), strict=True):
                found[row] = hypothesis
        return [
            TranscriptSegment(piece.start, piece.start + piece.duration, hypothesis)
            for piece, hypothesis in zip(pieces, found, strict=True)
        ]


def load(
    name: str | Path = "en", device: str = "auto", options: DecodingOptions | None = None, batch_size: int = 8
) -> Transcriber:
    """Load an embedded model by name, or a checkpoint folder.

    Raises:
        CheckpointError: there is no such model.
        ConfigurationError: the device is not there, or the model has not what the options ask for.
    """
    return Transcriber(model_folder.load(pretrained.find(name), choose_device(device)), options, batch_size)


def choose_device(device: str) -> str:
    """``auto`` is the GPU where there is one.

    Raises:
        ConfigurationError: CUDA is asked for and not there, or the name is unknown.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigurationError(f"device '{device}' is unknown; give auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device 'cuda' is not available on this machine; give auto or cpu.")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def _transcript(path: Path, parts: list[TranscriptSegment]) -> Transcript:
    text = " ".join(part.hypothesis.text for part in parts if part.hypothesis.text)
    return Transcript(path, text, parts[-1].end if parts else 0.0, tuple(parts))
