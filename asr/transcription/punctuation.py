"""Punctuation of a transcript by a model of its own, where the recogniser was taught to write little or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from asr.model.punctuation import Punctuator
from asr.transcription.transcript import TranscriptSegment, join
from asr.transcription.words import spans

# Segments that follow each other so closely were cut because speech went on for too long: a sentence may go on as well.
_CUT_SECONDS = 0.3


def punctuate(segments: Sequence[TranscriptSegment], punctuator: Punctuator) -> list[TranscriptSegment]:
    """Segments of one recording with the punctuator's marks in place of their own; also on their words.

    Segments without a pause between them are read as one text.
    """
    found: list[TranscriptSegment] = []
    for run in _runs(segments):
        whole = punctuator.write(join(segment.text for segment in run))
        found += _shared(run, whole)
    return found


def _runs(segments: Iterable[TranscriptSegment]) -> list[list[TranscriptSegment]]:
    runs: list[list[TranscriptSegment]] = []
    for segment in segments:
        goes_on = runs and segment.start - runs[-1][-1].end < _CUT_SECONDS and segment.speaker == runs[-1][-1].speaker
        if goes_on:
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return runs


def _shared(run: Sequence[TranscriptSegment], whole: str) -> list[TranscriptSegment]:
    """Give each segment its part of the text: as many characters that are spoken as it had, and the marks behind them."""
    found: list[TranscriptSegment] = []
    begin = 0
    for place, segment in enumerate(run):
        left = sum(character.isalnum() for character in segment.text)
        end = begin
        while end < len(whole) and (left > 0 or place == len(run) - 1 or not whole[end].isalnum()):
            left -= whole[end].isalnum()
            end += 1
        text = whole[begin:end].strip()
        found.append(_with_text(segment, text))
        begin = end
    return found


def _with_text(segment: TranscriptSegment, text: str) -> TranscriptSegment:
    words = segment.words
    if words is not None:
        places = spans(text)
        if len(places) == len(words):
            words = tuple(replace(word, text=text[start:end]) for word, (start, end) in zip(words, places, strict=True))
    return replace(segment, hypothesis=replace(segment.hypothesis, text=text), words=words)
