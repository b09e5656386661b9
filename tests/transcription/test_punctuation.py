"""Marks of a punctuation model reach the text, the segments and the words of a transcript."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import asr
from asr.search.hypothesis import Hypothesis
from asr.text.punctuation import separate
from asr.transcription.languages import written
from asr.transcription.punctuation import punctuate
from asr.transcription.transcriber import load
from asr.transcription.transcript import Transcript, TranscriptSegment, Word, join
from asr.transcription.words import spans


class CommaAfter:
    """A comma behind one character, and a full stop at the end."""

    def __init__(self, character: str) -> None:
        self.character = character
        self.read: list[str] = []

    def marks_of(self, text: str) -> list[int] | None:
        self.read.append(text)
        marks = [1 if character == self.character else 0 for character in separate(text)[0]]
        return [*marks[:-1], 3] if marks else None


def segment(start: float, end: float, text: str) -> TranscriptSegment:
    words = tuple(
        Word(text[begin:stop], start + place * 0.1, start + place * 0.1 + 0.1, 0.9)
        for place, (begin, stop) in enumerate(spans(text))
    )
    return TranscriptSegment(start, end, Hypothesis(text, (), (), 0.0, "stop"), words)


def test_segments_that_were_cut_are_read_as_one_text() -> None:
    punctuator = CommaAfter("好")
    said = [segment(0, 2, "天气很好"), segment(2.1, 4, "我们去公园"), segment(4, 5, ""), segment(7, 8, "好吧、")]
    found = punctuate(said, punctuator)  # type: ignore[arg-type]
    assert punctuator.read == ["天气很好我们去公园", "好吧、"]
    assert [each.text for each in found] == ["天气很好，", "我们去公园。", "", "好，吧。"]
    assert [word.text for word in found[0].words or ()] == ["天", "气", "很", "好，"]
    assert [word.text for word in found[3].words or ()] == ["好，", "吧。"]
    assert found[2].words == ()
    assert [(word.start, word.end) for each in found for word in each.words or ()] == [
        (word.start, word.end) for each in said for word in each.words or ()
    ]


def test_signs_stay_in_their_segment() -> None:
    said = [segment(0, 2, "他大声地说"), segment(2, 4, "“我们好”，他走了"), segment(4, 6, "《书》$100好"), segment(9, 10, "……")]
    found = punctuate(said, CommaAfter("好"))  # type: ignore[arg-type]
    assert [each.text for each in found] == ["他大声地说", "“我们好”，他走了", "《书》$100好。", "……"]


PIECES = st.text(st.sampled_from("今天好，、。！,. “”（）…—$-%a1b"), max_size=12)


@given(st.lists(PIECES, min_size=1, max_size=4))
@hypothesis_settings(max_examples=300)
def test_words_are_those_of_the_text(pieces: list[str]) -> None:
    said = [segment(2 * place, 2 * place + 2, piece.strip()) for place, piece in enumerate(pieces)]
    for each in punctuate(said, CommaAfter("好")):  # type: ignore[arg-type]
        words = [each.text[start:end] for start, end in spans(each.text)]
        if any(character.isalnum() for character in each.text):
            assert [word.text for word in each.words or ()] == words
    assert "".join(separate(each.text)[0] for each in said) == "".join(
        separate(each.text)[0]
        for each in punctuate(said, CommaAfter("好"))  # type: ignore[arg-type]
    )


def test_numbers_are_written_in_punctuated_text() -> None:
    found = punctuate([segment(0, 2, "二零一五年他好我有三十五元")], CommaAfter("好"))  # type: ignore[arg-type]
    transcript = Transcript(Path("a.wav"), join(each.text for each in found), 2.0, tuple(found))
    assert written(transcript, numbers="digits").text == "2015年他好，我有35元。"


def test_mandarin_transcripts_have_marks_unless_they_are_not_wanted(data: Path) -> None:
    recording = data / "天气.wav"
    assert asr.load("zh").transcribe(recording).text == "今天天气很好，我们去公园吧。"
    assert asr.load("zh", punctuation=False).transcribe(recording).text == "今天天气很好我们去公园吧"
    # Each character has its time, and the mark is written onto it.
    words = load("zh", timestamps=True).transcribe(recording).words
    assert [word.text for word in words] == [*"今天天气很", "好，", *"我们去公园", "吧。"]
    # A word is no sentence.
    assert asr.load("zh").transcribe(data / "机器学习.wav").text == "机器学习"
