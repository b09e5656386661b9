"""What was said in a recording: segments, their words with times and confidence, and what was left out."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from asr.exceptions import AsrError
from asr.search.hypothesis import Hypothesis


@dataclass(frozen=True)
class Word:
    """A word, or a character of a script without spaces, with the punctuation that is written onto it.

    Attributes:
        text: as in the transcript.
        start: seconds from the recording's start.
        end: the same, after ``start``.
        confidence: probability from 0 to 1 that it is right.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class TranscriptSegment:
    """A stretch of a recording, in seconds, with its hypothesis.

    Attributes:
        words: its words in order, where they were asked for.
        speaker: name of the channel that it was heard on, where channels are speakers.
    """

    start: float
    end: float
    hypothesis: Hypothesis
    words: tuple[Word, ...] | None = None
    speaker: str | None = None

    @property
    def text(self) -> str:
        """What was said."""
        return self.hypothesis.text


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording.

    Attributes:
        path: the file.
        text: all of the text.
        duration: length of the recording in seconds.
        segments: its stretches in order of their start; without text where the model wrote none.
        removed: what was not given to the model, (start, end) in seconds: the voice detector heard no speech there.
        warnings: sentences about what may have harmed the text.
    """

    path: Path
    text: str
    duration: float
    segments: tuple[TranscriptSegment, ...]
    removed: tuple[tuple[float, float], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[Word, ...]:
        """Words of all segments."""
        return tuple(word for segment in self.segments for word in segment.words or ())


@dataclass(frozen=True)
class Failure:
    """A file that could not be transcribed, and why."""

    path: Path
    error: AsrError


def join(texts: Iterable[str]) -> str:
    """Texts one after another: with a space between them, except where a script without spaces goes on."""
    joined = ""
    for text in (text.strip() for text in texts):
        if joined and text and not (is_spaceless(joined[-1]) or is_spaceless(text[0])):
            joined += " "
        joined += text
    return joined


def is_spaceless(character: str) -> bool:
    """Whether it is of a script that writes no spaces between words, or punctuation of full width."""
    if character < "\u1100":
        return False
    name = unicodedata.name(character, "")
    return (
        name.startswith(("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH", "BOPOMOFO"))
        or "\u3000" <= character <= "\u303f"
    )


def merge(transcripts: Iterable[Transcript]) -> Transcript:
    """Transcripts of a file's channels as one, in order of time; the text has a line ``speaker: text`` for each turn."""
    parts = list(transcripts)
    segments = sorted((segment for part in parts for segment in part.segments if segment.text), key=lambda each: each.start)
    turns: list[tuple[str | None, list[str]]] = []
    for segment in segments:
        if not turns or turns[-1][0] != segment.speaker:
            turns.append((segment.speaker, []))
        turns[-1][1].append(segment.text)
    text = "\n".join(f"{speaker}: {join(said)}" for speaker, said in turns)
    warnings = dict.fromkeys(warning for part in parts for warning in part.warnings)
    duration = max(part.duration for part in parts)
    return Transcript(parts[0].path, text, duration, tuple(segments), _common([part.removed for part in parts]), tuple(warnings))


def _common(spans: list[tuple[tuple[float, float], ...]]) -> tuple[tuple[float, float], ...]:
    """What is in a span of every channel: nobody was heard there."""
    common = list(spans[0])
    for others in spans[1:]:
        overlaps = [(max(a, c), min(b, d)) for a, b in common for c, d in others]
        common = [(start, end) for start, end in overlaps if start < end]
    return tuple(sorted(common))
