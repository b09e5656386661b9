"""A transcript as text, JSON, subtitles (SRT, WebVTT), table (TSV), NIST's CTM or Praat's TextGrid."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from asr.exceptions import ConfigurationError
from asr.transcription.subtitles import Subtitle, subtitles
from asr.transcription.transcript import Transcript, TranscriptSegment, Word

# Their content needs the times of words.
NEED_WORDS = frozenset({"srt", "vtt", "ctm", "textgrid"})


def txt(transcript: Transcript) -> str:
    """The text alone."""
    return transcript.text + "\n"


def json_text(transcript: Transcript) -> str:
    """Everything: segments, words where their times are known, and what was removed; seconds from the start."""
    content: dict[str, Any] = {
        "path": str(transcript.path),
        "text": transcript.text,
        "duration": round(transcript.duration, 3),
        "segments": [_segment(segment) for segment in transcript.segments],
        "removed": [{"start": round(start, 3), "end": round(end, 3)} for start, end in transcript.removed],
        "warnings": list(transcript.warnings),
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _segment(segment: TranscriptSegment) -> dict[str, Any]:
    content: dict[str, Any] = {
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "finish_reason": segment.hypothesis.finish_reason,
        "score": round(segment.hypothesis.score, 4),
    }
    if segment.speaker is not None:
        content["speaker"] = segment.speaker
    if segment.words is not None:
        content["words"] = [
            {"text": word.text, "start": round(word.start, 3), "end": round(word.end, 3), "confidence": round(word.confidence, 3)}
            for word in segment.words
        ]
    return content


def srt(transcript: Transcript) -> str:
    """SubRip subtitles."""
    blocks = []
    for number, (subtitle, speaker) in enumerate(_subtitles(transcript), start=1):
        times = f"{_clock(subtitle.start, ',')} --> {_clock(subtitle.end, ',')}"
        blocks.append(f"{number}\n{times}\n{_spoken(subtitle.lines, speaker)}\n")
    return "\n".join(blocks)


def vtt(transcript: Transcript) -> str:
    """WebVTT subtitles (W3C); speakers are voice tags."""
    blocks = ["WEBVTT\n"]
    for subtitle, speaker in _subtitles(transcript):
        times = f"{_clock(subtitle.start, '.')} --> {_clock(subtitle.end, '.')}"
        lines = "\n".join(line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in subtitle.lines)
        blocks.append(f"{times}\n{f'<v {speaker}>' if speaker else ''}{lines}\n")
    return "\n".join(blocks)


def tsv(transcript: Transcript) -> str:
    """A line for each segment: start and end in milliseconds, text; and the speaker, where channels are speakers."""
    speakers = any(segment.speaker for segment in transcript.segments)
    rows = ["start\tend\ttext" + "\tspeaker" * speakers]
    for segment in transcript.segments:
        if segment.text:
            text = " ".join(segment.text.split())
            row = f"{round(segment.start * 1000)}\t{round(segment.end * 1000)}\t{text}"
            rows.append(row + f"\t{segment.speaker or ''}" * speakers)
    return "\n".join(rows) + "\n"


def ctm(transcript: Transcript) -> str:
    """NIST's time-marked words: recording, channel, start, duration, word, confidence."""
    recording = "_".join(transcript.path.stem.split()) or "recording"
    rows = []
    for segment in transcript.segments:
        channel = "".join(c for c in segment.speaker or "1" if c.isalnum())
        for word in segment.words or ():
            # The second is rounded after the first, so that no word overlaps the next.
            start = round(word.start, 2)
            duration = max(round(word.end, 2) - start, 0.0)
            text = "_".join(word.text.split())
            rows.append((start, f"{recording} {channel} {start:.2f} {duration:.2f} {text} {word.confidence:.3f}\n"))
    return "".join(row for _, row in sorted(rows, key=lambda each: each[0]))


def textgrid(transcript: Transcript) -> str:
    """Praat's TextGrid in its long form, with tiers of segments and of words; a pair for each speaker."""
    speakers = list(dict.fromkeys(segment.speaker for segment in transcript.segments)) or [None]
    tiers: list[tuple[str, list[tuple[float, float, str]]]] = []
    for speaker in speakers:
        own = [segment for segment in transcript.segments if segment.speaker == speaker]
        prefix = f"{speaker} " if speaker else ""
        tiers.append((f"{prefix}segments", [(each.start, each.end, each.text) for each in own]))
        tiers.append((f"{prefix}words", [(w.start, w.end, w.text) for each in own for w in each.words or ()]))
    end = max(transcript.duration, 0.001)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end:.6f}", "tiers? <exists>"]
    lines += [f"size = {len(tiers)}", "item []:"]
    for number, (name, spans) in enumerate(tiers, start=1):
        intervals = _filled(spans, end)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{_quoted(name)}"']
        lines += ["        xmin = 0", f"        xmax = {end:.6f}", f"        intervals: size = {len(intervals)}"]
        for index, (start, stop, text) in enumerate(intervals, start=1):
            lines += [f"        intervals [{index}]:", f"            xmin = {start:.6f}", f"            xmax = {stop:.6f}"]
            lines.append(f'            text = "{_quoted(text)}"')
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": txt,
    "json": json_text,
    "srt": srt,
    "vtt": vtt,
    "tsv": tsv,
    "ctm": ctm,
    "textgrid": textgrid,
}
SUFFIXES = {name: "TextGrid" if name == "textgrid" else name for name in FORMATS}


def parse(names: str) -> tuple[str, ...]:
    """Formats of a comma-separated list, each once.

    Raises:
        ConfigurationError: one of them is unknown.
    """
    wanted = tuple(dict.fromkeys(name.strip().lower() for name in names.split(",") if name.strip()))
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown or not wanted:
        raise ConfigurationError(f"format '{', '.join(unknown)}' is unknown; give one or several of {','.join(FORMATS)}.")
    return wanted


def render(transcript: Transcript, format: str) -> str:
    """A transcript in one of ``FORMATS``."""
    return FORMATS[format](transcript)


def _subtitles(transcript: Transcript) -> Iterable[tuple[Subtitle, str | None]]:
    """Subtitles of each speaker's words, in order of time."""
    speakers = list(dict.fromkeys(segment.speaker for segment in transcript.segments))
    found: list[tuple[Subtitle, str | None]] = []
    for speaker in speakers:
        words: list[Word] = [w for each in transcript.segments if each.speaker == speaker for w in each.words or ()]
        found += [(each, speaker) for each in subtitles(words)]
    return sorted(found, key=lambda each: each[0].start)


def _spoken(lines: Sequence[str], speaker: str | None) -> str:
    return "\n".join([f"[{speaker}]", *lines] if speaker else lines)


def _clock(seconds: float, separator: str) -> str:
    milliseconds = max(round(seconds * 1000), 0)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{separator}{milliseconds % 1000:03}"


def _quoted(text: str) -> str:
    return text.replace('"', '""').replace("\n", " ")


def _filled(spans: Sequence[tuple[float, float, str]], end: float) -> list[tuple[float, float, str]]:
    """Intervals that cover everything from 0 to ``end``, empty ones in between, on microseconds."""
    filled: list[tuple[float, float, str]] = []
    position, limit = 0, round(end * 1e6)
    for start, stop, text in spans:
        first, last = max(round(start * 1e6), position), min(round(stop * 1e6), limit)
        if last <= first:
            continue
        if first > position:
            filled.append((position / 1e6, first / 1e6, ""))
        filled.append((first / 1e6, last / 1e6, text))
        position = last
    if position < limit:
        filled.append((position / 1e6, limit / 1e6, ""))
    return filled
