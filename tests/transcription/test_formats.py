"""Every format is read back by a parser that others wrote."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import pysubs2
import pytest
import webvtt
from hypothesis import example, given, settings
from hypothesis import strategies as st
from praatio import textgrid

from asr.exceptions import ConfigurationError
from asr.scoring.timed import read_ctm
from asr.search.hypothesis import Hypothesis
from asr.transcription import formats
from asr.transcription.formats import FORMATS, parse, render
from asr.transcription.subtitles import LINE_LENGTH, LINE_LENGTH_SPACELESS, LINES, LONGEST_SECONDS, subtitles
from asr.transcription.transcript import Transcript, TranscriptSegment, Word, is_spaceless, join

# Any text that a model may write: one line, no control characters.
WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=50)
SENTENCES = st.sampled_from("""Well, I never saw the like of it before; did you? No. "Quite so," he said & left <b>.""".split())  # noqa: SIM905
HAN = st.sampled_from(list("机器学习，我们今天去北京。好吗？"))


@st.composite
def transcripts(draw: st.DrawFn, word: st.SearchStrategy[str]) -> Transcript:
    position = 0.0
    segments = []
    for _ in range(draw(st.integers(0, 3))):
        begin = position
        words = []
        for text in draw(st.lists(word, max_size=30)):
            start = position + draw(st.sampled_from([0.0, 0.0, 0.1, 0.7, 3.0]))
            position = start + draw(st.sampled_from([0.02, 0.2, 0.5, 9.0]))
            words.append(Word(text, start, position, draw(st.floats(0, 1))))
        position += 0.1
        hypothesis = Hypothesis(join(each.text for each in words), (), (), -1.0, "stop")
        segments.append(TranscriptSegment(begin, position, hypothesis, tuple(words)))
    text = join(segment.text for segment in segments)
    return Transcript(Path("a talk.wav"), text, position + 1, tuple(segments), ((position, position + 1),))


ANY = st.one_of(transcripts(SENTENCES), transcripts(HAN), transcripts(WORDS))


def squeezed(text: str) -> str:
    return "".join(text.split())


@settings(max_examples=60)
@given(ANY)
def test_subtitles_keep_the_rules(transcript: Transcript) -> None:
    words = transcript.words
    found = subtitles(words)
    text = "".join(word.text for word in words)
    width = LINE_LENGTH_SPACELESS if text and 2 * sum(map(is_spaceless, text)) >= len(text) else LINE_LENGTH
    assert squeezed("".join(line for each in found for line in each.lines)) == squeezed(text)
    for each in found:
        assert 1 <= len(each.lines) <= LINES
        assert all(0 < len(line) <= width for line in each.lines)
        assert 0 <= each.end - each.start <= LONGEST_SECONDS + 1e-6
    assert all(first.end <= second.start + 1e-9 for first, second in pairwise(found))


def spoken(text: str, start: float = 0.0, each: float = 0.3) -> list[Word]:
    return [Word(word, start + n * each, start + (n + 1) * each, 1.0) for n, word in enumerate(text.split())]


def test_subtitles_end_with_sentences_and_pauses() -> None:
    words = spoken("The train had left long before we came. Nobody knew where the next one would go. It rained, too.")
    assert [each.lines[-1][-1] for each in subtitles(words)] == [".", "."]
    words = spoken("and then he stopped") + spoken("for quite a while before he", start=4.0)
    assert [" ".join(each.lines) for each in subtitles(words)] == ["and then he stopped", "for quite a while before he"]


def test_two_lines_are_even() -> None:
    words = spoken("a single sentence of some length without any comma", each=0.2)
    assert [each.lines for each in subtitles(words)] == [("a single sentence of some", "length without any comma")]


@settings(max_examples=40)
@given(ANY)
@example(Transcript(Path("a.wav"), "", 0.0, ()))
def test_srt_and_vtt_by_their_parsers(transcript: Transcript) -> None:
    expected = subtitles(transcript.words)
    srt = pysubs2.SSAFile.from_string(render(transcript, "srt"), format_="srt", keep_html_tags=True, keep_unknown_html_tags=True)
    assert len(srt) == len(expected)
    for event, each in zip(srt, expected, strict=True):
        assert (event.start, event.end) == (round(each.start * 1000), round(each.end * 1000))
    vtt = webvtt.from_buffer(io.StringIO(render(transcript, "vtt")))
    assert [caption.text for caption in vtt] == [
        "\n".join(line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in each.lines)
        for each in expected
    ]
    assert all(abs(caption.start_in_seconds - each.start) < 1.001 for caption, each in zip(vtt, expected, strict=True))


def test_srt_text_is_what_was_said() -> None:
    words = tuple(spoken('He said: "I know," & went away.'))
    segment = TranscriptSegment(0.0, 3.0, Hypothesis("", (), (), 0.0, "stop"), words)
    read = pysubs2.SSAFile.from_string(render(Transcript(Path("a.wav"), "", 3.0, (segment,)), "srt"), format_="srt")
    assert " ".join(event.plaintext.replace("\n", " ") for event in read) == 'He said: "I know," & went away.'


@settings(max_examples=30)
@given(ANY)
def test_textgrid_by_praatio(tmp_path_factory: pytest.TempPathFactory, transcript: Transcript) -> None:
    path = tmp_path_factory.mktemp("grid") / "a.TextGrid"
    path.write_text(render(transcript, "textgrid"), encoding="utf-8")
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False, duplicateNamesMode="error")
    assert grid.tierNames == ("segments", "words")
    assert grid.maxTimestamp == pytest.approx(transcript.duration, abs=1e-5)
    found = grid.getTier("words").entries
    assert [entry.label for entry in found] == [word.text for word in transcript.words]
    for entry, word in zip(found, transcript.words, strict=True):
        assert (entry.start, entry.end) == (pytest.approx(word.start, abs=1e-5), pytest.approx(word.end, abs=1e-5))


def test_ctm_json_tsv_and_txt() -> None:
    words = tuple(spoken("It rained all day.", start=1.0, each=0.5))
    segment = TranscriptSegment(0.5, 3.5, Hypothesis("It rained all day.", (1, 2), (-0.1, -0.2), -0.3, "stop"), words)
    transcript = Transcript(Path("my talk.wav"), "It rained all day.", 9.0, (segment,), ((0.0, 0.5), (3.5, 9.0)))
    read = read_ctm("a.ctm", list(enumerate(render(transcript, "ctm").splitlines(), start=1)))
    assert [word.text for word in read] == ["It", "rained", "all", "day."]
    content = json.loads(render(transcript, "json"))
    assert content["removed"] == [{"start": 0.0, "end": 0.5}, {"start": 3.5, "end": 9.0}]
    assert content["segments"][0]["words"][1] == {"text": "rained", "start": 1.5, "end": 2.0, "confidence": 1.0}
    assert render(transcript, "tsv") == "start\tend\ttext\n500\t3500\tIt rained all day.\n"
    assert render(transcript, "txt") == "It rained all day.\n"


def test_speakers_are_named_in_every_format_that_can() -> None:
    def part(speaker: str, start: float, text: str) -> TranscriptSegment:
        words = tuple(spoken(text, start))
        return TranscriptSegment(start, start + 2, Hypothesis(text, (), (), 0.0, "stop"), words, speaker)

    transcript = Transcript(Path("a.wav"), "", 9.0, (part("channel 0", 0, "How are you?"), part("channel 1", 3, "Well.")))
    assert webvtt.from_buffer(io.StringIO(render(transcript, "vtt"))).captions[1].voice == "channel 1"
    assert "[channel 1]\nWell." in render(transcript, "srt")
    assert render(transcript, "tsv").splitlines()[2].endswith("Well.\tchannel 1")
    assert json.loads(render(transcript, "json"))["segments"][0]["speaker"] == "channel 0"


def test_formats_are_parsed_and_unknown_ones_named() -> None:
    assert parse("srt, JSON,srt") == ("srt", "json")
    assert set(formats.NEED_WORDS) < set(FORMATS)
    for bad in ("", "srt,doc"):
        with pytest.raises(ConfigurationError, match="give one or several of txt,json"):
            parse(bad)
