"""Marks of a punctuation model reach the text, the segments and the words of a transcript."""

from __future__ import annotations

from pathlib import Path

import asr
from asr.search.hypothesis import Hypothesis
from asr.text.punctuation import punctuated, separate
from asr.transcription.languages import written
from asr.transcription.punctuation import punctuate
from asr.transcription.transcript import Transcript, TranscriptSegment, Word, join


class CommaAfter:
    """Writes a comma behind one character, and a full stop at the end."""

    def __init__(self, character: str) -> None:
        self.character = character
        self.read: list[str] = []

    def write(self, text: str) -> str:
        self.read.append(text)
        characters, _ = separate(text)
        wanted = [1 if character == self.character else 0 for character in characters]
        return punctuated(text, [*wanted[:-1], 3] if wanted else [])


def segment(start: float, end: float, text: str, speaker: str | None = None) -> TranscriptSegment:
    words = tuple(
        Word(character, start + place * 0.1, start + place * 0.1 + 0.1, 0.9)
        for place, character in enumerate(c for c in text if c.isalnum())
    )
    return TranscriptSegment(start, end, Hypothesis(text, (), (), 0.0, "stop"), words, speaker)


def test_segments_that_were_cut_are_read_as_one_text() -> None:
    punctuator = CommaAfter("好")
    said = [segment(0, 2, "天气很好"), segment(2.1, 4, "我们去公园"), segment(4, 5, ""), segment(7, 8, "好吧、")]
    found = punctuate(said, punctuator)  # type: ignore[arg-type]
    assert punctuator.read == ["天气很好我们去公园", "好吧、"]
    assert [each.text for each in found] == ["天气很好，", "我们去公园。", "", "好，吧。"]
    assert [word.text for word in found[0].words or ()] == ["天", "气", "很", "好，"]
    assert [word.text for word in found[3].words or ()] == ["好，", "吧。"]
    assert [(word.start, word.end) for each in found for word in each.words or ()] == [
        (word.start, word.end) for each in said for word in each.words or ()
    ]


def test_speakers_do_not_finish_each_others_sentences() -> None:
    punctuator = CommaAfter("好")
    punctuate([segment(0, 2, "你好", "left"), segment(2, 4, "早", "right")], punctuator)  # type: ignore[arg-type]
    assert punctuator.read == ["你好", "早"]


def test_numbers_are_written_in_punctuated_text() -> None:
    found = punctuate([segment(0, 2, "二零一五年他好我有三十五元")], CommaAfter("好"))  # type: ignore[arg-type]
    transcript = Transcript(Path("a.wav"), join(each.text for each in found), 2.0, tuple(found))
    assert written(transcript, numbers="digits").text == "2015年他好，我有35元。"


def test_english_is_punctuated_by_its_own_decoder(data: Path) -> None:
    assert asr.load("en", punctuation=False).transcribe(data / "welcome.wav").text.startswith("Welcome, ")
