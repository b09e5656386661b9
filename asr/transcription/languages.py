"""One transcriber for recordings in several languages: each goes to the embedded model of the language it begins in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from asr import pretrained
from asr.audio import files
from asr.exceptions import AsrError, ConfigurationError
from asr.model import language
from asr.model.language import LanguageClassifier, from_first_sound
from asr.search.hypothesis import Hypothesis
from asr.text.mandarin_writing import Numbers, Script, write_numbers, write_script
from asr.transcription.recordings import Recording
from asr.transcription.transcriber import Transcriber
from asr.transcription.transcript import Failure, Transcript, TranscriptSegment, join

AUTO = "auto"
_LEADING_SECONDS = 30.0  # how far the first sound is looked for


class Polyglot:
    """Transcribers of several languages behind one entrance.

    Args:
        load: gives the transcriber of a language; each is loaded when it is first needed, and once.
        languages: those to choose among.
        classifier: hears which language it is; without one, each language's model writes what it hears, and the one that
            is surest of its text is right.
    """

    def __init__(
        self, load: Callable[[str], Transcriber], languages: Iterable[str], classifier: LanguageClassifier | None = None
    ) -> None:
        self._load = load
        self.languages = tuple(languages)
        self.classifier = classifier
        unknown = [code for code in self.languages if classifier is not None and code not in classifier.languages]
        if unknown:
            raise ConfigurationError(f"language '{unknown[0]}' cannot be told from others; name it with --language.")
        self._loaded: dict[str, Transcriber] = {}

    def identify(self, recording: Recording) -> str:
        """The language that a recording begins in.

        Raises:
            AudioError: it cannot be read.
        """
        block = next(files.stream(recording.path, _LEADING_SECONDS, recording.channel, recording.track), None)
        if block is None:
            return self.languages[0]
        if self.classifier is None:
            beginning = from_first_sound(block)
            if not len(beginning):
                return self.languages[0]
            return max(self.languages, key=lambda code: _certainty(self.of(code).decode([beginning])[0]))
        heard: Mapping[str, float] = self.classifier.identify(block)
        return max(self.languages, key=lambda code: heard[code])

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
        """Transcribe recordings in order; those of one language that follow each other are decoded together."""
        identified = (self._identified(each if isinstance(each, Recording) else Recording(each)) for each in recordings)
        for code, run in groupby(identified, key=lambda pair: pair[0]):
            if isinstance(code, str):
                yield from self.of(code).transcribe_all((recording for _, recording in run), on_progress)
            else:
                yield from (Failure(recording.path, code) for _, recording in run)

    def of(self, code: str) -> Transcriber:
        """The transcriber of a language."""
        if code not in self._loaded:
            self._loaded[code] = self._load(code)
        return self._loaded[code]

    def _identified(self, recording: Recording) -> tuple[str | AsrError, Recording]:
        try:
            return self.identify(recording), recording
        except AsrError as error:
            return error, recording


def _certainty(hypothesis: Hypothesis) -> float:
    """Mean log-probability of a token; a model that hears another language is unsure of all it writes."""
    values = hypothesis.log_probabilities
    return sum(values) / len(values) if values and hypothesis.finish_reason == "stop" else -math.inf


def load(load_model: Callable[[str], Transcriber], code: str = AUTO) -> Transcriber | Polyglot:
    """The transcriber of a language, or of whichever embedded language is spoken.

    Args:
        load_model: loads an embedded model by its name.
        code: ``auto``, or the language of an embedded model.

    Raises:
        ConfigurationError: no embedded model is of that language.
    """
    models = pretrained.languages()
    if code != AUTO:
        if code not in models:
            raise ConfigurationError(f"language '{code}' has no embedded model; give auto, {', '.join(models)}, or --model.")
        return load_model(models[code])
    if len(models) == 1:
        return load_model(next(iter(models.values())))
    folder = pretrained.FOLDER / "language"
    classifier = language.load(folder) if (folder / language.WEIGHTS).is_file() else None
    return Polyglot(lambda each: load_model(models[each]), models, classifier)


def written(transcript: Transcript, numbers: Numbers | None = None, script: Script | None = None) -> Transcript:
    """A Mandarin transcript with numbers and characters as they are wanted; times of words stay where they are.

    Words keep numbers as they were said: digits of a number would not be words of their own.
    """
    if numbers is None and script is None:
        return transcript
    segments = tuple(_segment(segment, numbers, script) for segment in transcript.segments)
    by_channel = any(segment.speaker is not None for segment in transcript.segments)
    text = _write(transcript.text, numbers, script) if by_channel else join(segment.text for segment in segments)
    return replace(transcript, text=text, segments=segments)


def _segment(segment: TranscriptSegment, numbers: Numbers | None, script: Script | None) -> TranscriptSegment:
    hypothesis = replace(segment.hypothesis, text=_write(segment.text, numbers, script))
    words = segment.words
    if words is not None and script is not None:
        # By the whole text, since a character may depend on its neighbours; tables change none into two.
        whole = write_script("".join(word.text for word in words), script)
        if len(whole) == sum(len(word.text) for word in words):
            ends = [0]
            for word in words:
                ends.append(ends[-1] + len(word.text))
            words = tuple(
                replace(word, text=whole[start:end]) for word, start, end in zip(words, ends[:-1], ends[1:], strict=True)
            )
    return replace(segment, hypothesis=hypothesis, words=words)


def _write(text: str, numbers: Numbers | None, script: Script | None) -> str:
    if numbers is not None:
        text = write_numbers(text, numbers)
    return text if script is None else write_script(text, script)
