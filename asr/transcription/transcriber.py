"""From recordings to text: a model that is loaded once, and batches that are filled across recordings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asr import pretrained
from asr.audio import files
from asr.audio.files import SAMPLE_RATE
from asr.audio.segmentation import LONGEST_SECONDS, EnergySegmenter, Segment, Segmenter, SpeechSegmenter
from asr.audio.voice_activity import VoiceDetector
from asr.exceptions import AsrError, ConfigurationError
from asr.model import checkpoint as model_folder
from asr.model.checkpoint import Checkpoint
from asr.model.device import choose_device
from asr.model.precision import choose as choose_precision
from asr.model.punctuation import Punctuator
from asr.model.punctuation import load as load_punctuation
from asr.model.recognizer import Encoded
from asr.search.decoding import decode
from asr.search.hypothesis import Hypothesis
from asr.search.language import HeardLanguage, detect_languages, options_by_language
from asr.search.language import check as check_language
from asr.search.options import DecodingOptions
from asr.transcription.punctuation import punctuate
from asr.transcription.recordings import Recording
from asr.transcription.timestamps import align
from asr.transcription.transcript import Failure, Transcript, TranscriptSegment, Word, join

# Segments of several recordings that are sorted by length before they are batched.
_BATCHES_AHEAD = 8
_BLOCK_SECONDS = 10.0
# A converter that is overdriven gives its largest value again and again; more than this share harms the text.
_FULL_SCALE, _CLIPPED_SHARE = 0.999, 0.01


@dataclass
class _Job:
    """A recording on its way: what has been read and decoded of it."""

    recording: Recording
    results: list[TranscriptSegment | None] = field(default_factory=list)
    waiting: int = 0
    read: bool = False
    samples: int = 0
    clipped: int = 0
    removed: tuple[tuple[float, float], ...] = ()
    error: AsrError | None = None


class Transcriber:
    """A loaded model.

    Args:
        checkpoint: model and tokenizer.
        options: which part of the model writes the text, and how it is searched; None: what suits the model.
        batch_size: segments decoded together.
        voice_detection: leave out what is not speech; otherwise recordings are cut where they are quietest.
        timestamps: also find out when each word was said.
        longest: seconds of a segment.
        language: of a multilingual model, a code or ``auto``; None: what the model is set to.
        punctuation: transcripts get the marks of the model's own punctuation model, if it has one.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: DecodingOptions | None = None,
        batch_size: int = 8,
        voice_detection: bool = True,
        timestamps: bool = False,
        longest: float = LONGEST_SECONDS,
        language: str | None = None,
        punctuation: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch size {batch_size} is not possible; give 1 or more.")
        self.checkpoint = checkpoint
        self.options = (options or DecodingOptions()).resolved(checkpoint.model, checkpoint.folder)
        self.batch_size = batch_size
        self.voice_detection = voice_detection
        self.timestamps = timestamps
        self.longest = longest
        check_language(checkpoint, language)
        self.language = language
        self._detector: VoiceDetector | None = None
        self.punctuation = punctuation
        self._punctuator: Punctuator | None = None

    def transcribe(self, path: str | Path) -> Transcript:
        """Transcribe one file.

        Raises:
            AudioError: the file cannot be read.
        """
        result = next(self.transcribe_all([Path(path)]))
        if isinstance(result, Failure):
            raise result.error
        return result

    def transcribe_all(
        self, recordings: Iterable[Recording | Path], on_progress: Callable[[float], None] | None = None
    ) -> Iterator[Transcript | Failure]:
        """Transcribe recordings; results come in their order.

        Segments of all of them are pooled, sorted by length and decoded in full batches. What is held are the segments
        of 8 batches, however long or many the recordings are. One that cannot be read becomes a ``Failure`` and the
        others go on.

        Args:
            on_progress: told seconds of audio as they are done.
        """
        jobs: deque[_Job] = deque()
        pool: list[tuple[_Job, int, Segment]] = []
        report = on_progress or (lambda _: None)
        for recording in recordings:
            job = _Job(recording if isinstance(recording, Recording) else Recording(recording))
            jobs.append(job)
            try:
                for segment in self._read(job, report):
                    pool.append((job, len(job.results), segment))
                    job.results.append(None)
                    job.waiting += 1
                    if len(pool) >= _BATCHES_AHEAD * self.batch_size:
                        self._decode_pool(pool, report)
            except AsrError as failure:
                job.error = failure
                pool = [each for each in pool if each[0] is not job]
                job.waiting = 0
            job.read = True
            while jobs and jobs[0].read and not jobs[0].waiting:
                yield self._result(jobs.popleft())
        self._decode_pool(pool, report)
        for job in jobs:
            yield self._result(job)

    def decode(self, samples: list[NDArray[np.float32]]) -> list[Hypothesis]:
        """Decode one batch of waveforms, float32 (samples,) at 16 kHz."""
        encoded, lengths = self._encode(samples)
        return self._search(encoded, lengths)

    def detect_language(self, samples: NDArray[np.float32], among: Collection[str] = (), handicap: float = 0.0) -> HeardLanguage:
        """The language of a waveform, float32 (samples,) at 16 kHz: see ``detect_languages``."""
        encoded, _ = self._encode([samples])
        return detect_languages(self.checkpoint, encoded, among, handicap)[0]

    def decode_segments(self, segments: list[Segment]) -> list[TranscriptSegment]:
        """Decode one batch of segments, with the times of their words if the transcriber gives times."""
        encoded, lengths = self._encode([segment.samples for segment in segments])
        words: list[tuple[Word, ...] | None] = [None] * len(segments)
        hypotheses = self._search(encoded, lengths, segments if self.timestamps else None, words)
        return [
            TranscriptSegment(segment.start, segment.end, hypothesis, found)
            for segment, hypothesis, found in zip(segments, hypotheses, words, strict=True)
        ]

    def punctuated(self, segments: Sequence[TranscriptSegment]) -> list[TranscriptSegment]:
        """Segments of one recording with the marks of the model's punctuation model, or as they are without one.

        Raises:
            CheckpointError: the punctuation model cannot be read.
        """
        folder, name = self.checkpoint.folder, self.checkpoint.model.configuration.punctuation
        if not self.punctuation or name is None or folder is None:
            return list(segments)
        self._punctuator = self._punctuator or load_punctuation(folder / name)
        return punctuate(segments, self._punctuator)

    def segmenter(self, longest: float | None = None, pause: float = 1.0) -> Segmenter:
        """What cuts one recording."""
        longest = longest or self.longest
        if not self.voice_detection:
            return EnergySegmenter(longest)
        self._detector = self._detector or VoiceDetector()
        return SpeechSegmenter(self._detector, longest, pause)

    @torch.inference_mode()
    def _encode(self, samples: list[NDArray[np.float32]]) -> tuple[Encoded, torch.Tensor]:
        model = self.checkpoint.model
        device = next(model.parameters()).device
        lengths = torch.tensor([len(each) for each in samples])
        waveforms = torch.zeros(len(samples), max(int(lengths.max()), 1))
        for row, each in enumerate(samples):
            waveforms[row, : len(each)] = torch.from_numpy(each)
        return model.encode(waveforms.to(device), lengths.to(device)), lengths

    @torch.inference_mode()
    def _search(
        self,
        encoded: Encoded,
        lengths: torch.Tensor,
        segments: list[Segment] | None = None,
        words: list[tuple[Word, ...] | None] | None = None,
    ) -> list[Hypothesis]:
        """Search a batch, language by language; with ``segments``, ``words`` gets the times of their words."""
        checkpoint = self.checkpoint
        found: dict[int, Hypothesis] = {}
        for rows, options in options_by_language(checkpoint, encoded, self.options, self.language):
            part = Encoded(encoded.values[rows], encoded.lengths[rows])
            texts = decode(checkpoint.model, checkpoint.tokenizer, part, lengths[rows], options, checkpoint.ctc_tokenizer)
            found.update(zip(rows, texts, strict=True))
            if segments is not None and words is not None:
                times = align(checkpoint, part, texts, [segments[row] for row in rows], options)
                for row, each in zip(rows, times, strict=True):
                    words[row] = each
        return [found[row] for row in range(len(lengths))]

    def _read(self, job: _Job, report: Callable[[float], None]) -> Iterator[Segment]:
        """Segments of a recording as it is read; what is left out is done with."""
        recording = job.recording
        segmenter = self.segmenter()
        counted = 0
        blocks = files.stream(recording.path, _BLOCK_SECONDS, recording.channel, recording.track)
        for block in blocks:
            job.samples += len(block)
            job.clipped += int((np.abs(block) >= _FULL_SCALE).sum())
            yield from segmenter.push(block)
            for start, end in segmenter.removed[counted:]:
                report(end - start)
            counted = len(segmenter.removed)
        yield from segmenter.finish()
        for start, end in segmenter.removed[counted:]:
            report(end - start)
        job.removed = tuple(segmenter.removed)

    def _decode_pool(self, pool: list[tuple[_Job, int, Segment]], report: Callable[[float], None]) -> None:
        """Decode all segments of the pool in batches of similar length, and empty it."""
        pool.sort(key=lambda each: len(each[2].samples))
        for first in range(0, len(pool), self.batch_size):
            rows = pool[first : first + self.batch_size]
            for (job, index, segment), result in zip(rows, self.decode_segments([row[2] for row in rows]), strict=True):
                job.results[index] = result
                job.waiting -= 1
                report(segment.duration)
        pool.clear()

    def _result(self, job: _Job) -> Transcript | Failure:
        path = job.recording.path
        if job.error is not None:
            return Failure(path, job.error)
        segments = self.punctuated([result for result in job.results if result is not None])
        if job.recording.speaker is not None:
            segments = [replace(segment, speaker=job.recording.speaker) for segment in segments]
        warnings = []
        if job.clipped > _CLIPPED_SHARE * job.samples:
            share = 100 * job.clipped / job.samples
            warnings.append(f"{path}: {share:.0f} % of the samples are clipped, which harms the text; record at a lower level.")
        text = join(segment.text for segment in segments)
        return Transcript(path, text, job.samples / SAMPLE_RATE, tuple(segments), job.removed, tuple(warnings))


def load(
    name: str | Path = "en",
    device: str = "auto",
    options: DecodingOptions | None = None,
    batch_size: int = 8,
    voice_detection: bool = True,
    timestamps: bool = False,
    precision: str = "auto",
    language: str | None = None,
    punctuation: bool = True,
) -> Transcriber:
    """Load an embedded model by name, or a checkpoint folder; for the rest see ``Transcriber``.

    ``precision`` is float32, bfloat16, int8 (linear layers in eight bits), or auto: see ``asr.model.precision.choose``.

    Raises:
        CheckpointError: there is no such model.
        ConfigurationError: the device is not there or cannot compute so, or the model has not what the options ask for.
    """
    device = choose_device(device)
    checkpoint = model_folder.load(pretrained.find(name), device, choose_precision(precision, device))
    return Transcriber(checkpoint, options, batch_size, voice_detection, timestamps, language=language, punctuation=punctuation)
