"""Punctuation of a transcript by a model of its own, where the recogniser was taught to write little or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from asr.model.punctuation import Punctuator
from asr.text.punctuation import punctuated
from asr.transcription.transcript import TranscriptSegment, Word, join
from asr.transcription.words import spans

# Segments that follow each other so closely were cut because speech went on for too long: a sentence may go on as well.
_CUT_SECONDS = 0.3


def punctuate(segments: Sequence[TranscriptSegment], punctuator: Punctuator) -> list[TranscriptSegment]:
    """Segments of one recording with the punctuator's marks in place of their own; also on their words.

    Segments without a pause between them are read as one text.
    """
    found: list[TranscriptSegment] = []
    for run in _runs(segments):
        marks = punctuator.marks_of(join(segment.text for segment in run))
        for segment in run:
            if marks is None:
                found.append(segment)
                continue
            spoken = sum(character.isalnum() for character in segment.text)
            found.append(_with_text(segment, punctuated(segment.text, marks[:spoken])))
            marks = marks[spoken:]
    return found


def _runs(segments: Iterable[TranscriptSegment]) -> list[list[TranscriptSegment]]:
    runs: list[list[TranscriptSegment]] = []
    for segment in segments:
        if runs and segment.start - runs[-1][-1].end < _CUT_SECONDS:
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return runs


def _with_text(segment: TranscriptSegment, text: str) -> TranscriptSegment:
    """A segment with another text that says the same; its words are those of the text, at their times."""
    words = segment.words
    if words is not None:
        of_character = [word for word in words for character in word.text if character.isalnum()]
        found, first = [], 0
        for begin, end in spans(text):
            last = first + sum(character.isalnum() for character in text[begin:end])
            said = of_character[first:last]
            if said:
                found.append(Word(text[begin:end], said[0].start, said[-1].end, min(word.confidence for word in said)))
            first = last
        words = tuple(found)
    return replace(segment, hypothesis=replace(segment.hypothesis, text=text), words=words)
