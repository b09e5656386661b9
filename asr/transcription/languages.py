"""One transcriber for recordings in several languages: each goes to the embedded model of the language it begins in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr import pretrained
from asr.audio import files
from asr.audio.files import SAMPLE_RATE
from asr.audio.segmentation import Segmenter
from asr.exceptions import AsrError, ConfigurationError
from asr.model.checkpoint import describe
from asr.search.language import heard_languages
from asr.text.mandarin_writing import Numbers, Script, write_numbers, write_script
from asr.transcription.recordings import Recording
from asr.transcription.transcriber import Transcriber
from asr.transcription.transcript import Failure, Transcript, TranscriptSegment, join

AUTO = "auto"
_LISTENED_SECONDS = 8.0
# The listener hears its own language in others with its accent; in a single word it is less sure of anything. Chosen on 100
# clips each of AISHELL's S0252, hsk-words and Mandarin speakers' English (speechocean762, a fifth of it lost without).
_HANDICAP_A_SECOND, _HANDICAP = 0.6, 2.0
_LEADING_SECONDS = 30.0  # how far the first sound is looked for


class Polyglot:
    """Transcribers of several languages behind one entrance.

    Args:
        load: gives the transcriber of a language; each is loaded when it is first needed, and once.
        languages: those to choose among.
        listener: the language whose model tells them apart.
        listen: gives that language's transcriber where ``load`` refuses, since its model has not what the search asks for.
    """

    def __init__(
        self,
        load: Callable[[str], Transcriber],
        languages: Iterable[str],
        listener: str,
        listen: Callable[[], Transcriber] | None = None,
    ) -> None:
        self._load = load
        self.languages = tuple(languages)
        self.listener = listener
        self._listen = listen
        self._loaded: dict[str, Transcriber | ConfigurationError] = {}  # or why it cannot be
        self._listening: Transcriber | None = None

    def identify(self, recording: Recording) -> str:
        """The language that a recording begins in.

        Raises:
            AudioError: it cannot be read.
        """
        block = next(files.stream(recording.path, _LEADING_SECONDS, recording.channel, recording.track), None)
        return self.languages[0] if block is None else self.hear(block)

    def hear(self, samples: NDArray[np.float32]) -> str:
        """The language of the first sounds of samples at 16 kHz."""
        beginning = from_first_sound(samples)
        if not len(beginning):
            return self.languages[0]
        handicap = min(_HANDICAP_A_SECOND * len(beginning) / SAMPLE_RATE, _HANDICAP)
        return self._ear().detect_language(beginning, self.languages, handicap).code

    def segmenter(self, longest: float | None = None, pause: float = 1.0) -> Segmenter:
        """What cuts one recording."""
        return self._ear().segmenter(longest, pause)

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
        """The transcriber of a language.

        Raises:
            ConfigurationError: its model has not what the search asks for.
        """
        if code not in self._loaded:
            try:
                self._loaded[code] = self._load(code)
            except ConfigurationError as error:
                self._loaded[code] = ConfigurationError(f"language {code}: {error}")
        found = self._loaded[code]
        if isinstance(found, ConfigurationError):
            raise found
        return found

    def _ear(self) -> Transcriber:
        """Who tells the languages apart, whether or not it can also write as it is asked to."""
        if self._listening is None:
            try:
                self._listening = self.of(self.listener)
            except ConfigurationError:
                if self._listen is None or not any(self._writes(code) for code in self.languages):
                    raise
                self._listening = self._listen()
        return self._listening

    def _writes(self, code: str) -> bool:
        try:
            self.of(code)
        except ConfigurationError:
            return False
        return True

    def _identified(self, recording: Recording) -> tuple[str | AsrError, Recording]:
        try:
            code = self.identify(recording)
            self.of(code)
        except ConfigurationError as error:
            return ConfigurationError(f"{recording.path}: {error}"), recording
        except AsrError as error:
            return error, recording
        return code, recording


def from_first_sound(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The 8 seconds that are listened to: from the first sample above -60 dBFS; nothing where there is none."""
    audible = np.flatnonzero(np.abs(samples) > 1e-3)
    if not len(audible):
        return samples[:0]
    first = int(audible[0])
    return samples[first : first + int(_LISTENED_SECONDS * SAMPLE_RATE)]


def load(
    load_model: Callable[[str], Transcriber], code: str = AUTO, load_listener: Callable[[str], Transcriber] | None = None
) -> Transcriber | Polyglot:
    """The transcriber of a language, or of whichever embedded language is spoken.

    Args:
        load_model: loads an embedded model by its name.
        code: ``auto``, or the language of an embedded model.
        load_listener: loads one to tell languages apart where ``load_model`` refuses it.

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
    listener = next((each for each, name in models.items() if _tells_apart(name, models)), None)
    if listener is None:
        raise ConfigurationError(f"no embedded model tells {', '.join(models)} apart; name the language with --language.")
    listen = None if load_listener is None else partial(load_listener, models[listener])
    return Polyglot(lambda each: load_model(models[each]), models, listener, listen)


def _tells_apart(name: str, codes: Iterable[str]) -> bool:
    """Whether an embedded model, which is not loaded, hears all these languages."""
    return set(codes) <= heard_languages(*describe(pretrained.find(name))).keys()


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
