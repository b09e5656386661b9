"""Time-marked texts of NIST's scoring tools: STM (segments of a reference) and CTM (words of a hypothesis).

STM lines are ``recording channel speaker start end [<label>] words``, CTM lines ``recording channel start duration
word [confidence]``; times are seconds, lines that begin with ``;;`` are comments.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from asr.exceptions import ScoringError

IGNORED = "IGNORE_TIME_SEGMENT_IN_SCORING"


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording with its reference text; times in seconds."""

    recording: str
    channel: str
    speaker: str
    start: float
    end: float
    text: str
    ignored: bool = False

    @property
    def name(self) -> str:
        """Recording, channel and start and end in hundredths of a second, which name a segment in one file."""
        return f"{self.recording}_{self.channel}_{round(self.start * 100):07d}_{round(self.end * 100):07d}"


@dataclass(frozen=True)
class Word:
    """A recognised word; times in seconds."""

    recording: str
    channel: str
    start: float
    duration: float
    text: str


def read_stm(path: object, lines: list[tuple[int, str]]) -> list[Segment]:
    """Segments in the file's order; those to be left out of scoring are marked ``ignored``.

    Raises:
        ScoringError: a line is not STM, or two lines are the same segment.
    """
    found: dict[str, Segment] = {}
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith(";;"):
            continue
        fields = line.split(maxsplit=5)
        if len(fields) < 5:
            raise ScoringError(
                f"{path}, line {number}: has {len(fields)} fields; write 'recording channel speaker start end words'."
            )
        recording, channel, speaker = fields[:3]
        start, end = _seconds(path, number, fields[3]), _seconds(path, number, fields[4])
        if end < start:
            raise ScoringError(f"{path}, line {number}: ends before it starts ({end:g} < {start:g}); correct the times.")
        text = fields[5] if len(fields) > 5 else ""
        if text.startswith("<"):
            label, _, rest = text.partition(" ")
            text = rest if label.endswith(">") else text
        if "{" in text.split():
            raise ScoringError(f"{path}, line {number}: holds alternatives {{ a / b }}; choose one of them.")
        segment = Segment(recording, channel, speaker, start, end, text.strip(), text.strip().upper() == IGNORED)
        if segment.name in found:
            raise ScoringError(f"{path}, line {number}: is the segment {segment.name} again; keep one line for it.")
        found[segment.name] = segment
    return list(found.values())


def read_ctm(path: object, lines: list[tuple[int, str]]) -> list[Word]:
    """Words in the file's order.

    Raises:
        ScoringError: a line is not CTM.
    """
    words = []
    for number, line in lines:
        fields = line.split()
        if not fields or fields[0].startswith(";;"):
            continue
        if len(fields) < 5:
            raise ScoringError(f"{path}, line {number}: has {len(fields)} fields; write 'recording channel start duration word'.")
        if fields[4] == "<ALT_BEGIN>":
            raise ScoringError(f"{path}, line {number}: holds alternatives; choose one of them.")
        start, duration = _seconds(path, number, fields[2]), _seconds(path, number, fields[3])
        words.append(Word(fields[0], fields[1], start, duration, fields[4]))
    return words


def assign(path: object, words: list[Word], segments: list[Segment]) -> tuple[dict[str, str], str]:
    """Put each word into the segment that holds its middle; one between two goes to the later, as in sclite.

    No word is lost: one behind the last segment goes to the last.

    Args:
        path: the CTM file, for messages.
        words: its words.
        segments: the segments of the reference; words in ignored ones are dropped.

    Returns:
        Text by segment (ignored ones left out), and what was done with words outside or ignored.

    Raises:
        ScoringError: a word's recording and channel are not in the reference.
    """
    tracks: dict[tuple[str, str], list[Segment]] = {}
    for segment in sorted(segments, key=lambda segment: segment.end):
        tracks.setdefault((segment.recording, segment.channel), []).append(segment)
    ends = {track: [segment.end for segment in held] for track, held in tracks.items()}
    texts: dict[str, list[str]] = {segment.name: [] for segment in segments if not segment.ignored}
    outside = ignored = 0
    for word in sorted(words, key=lambda word: word.start):
        track = (word.recording, word.channel)
        if track not in tracks:
            raise ScoringError(
                f"{path}: has words of recording {word.recording}, channel {word.channel}, which are not in the "
                "reference; remove them or add the reference."
            )
        middle = word.start + word.duration / 2
        segment = tracks[track][min(bisect.bisect_left(ends[track], middle), len(tracks[track]) - 1)]
        outside += not segment.start <= middle <= segment.end
        if segment.ignored:
            ignored += 1
        else:
            texts[segment.name].append(word.text)
    notes = []
    if outside:
        notes.append(f"{outside} words lie outside all segments and were put into the next")
    if ignored:
        notes.append(f"{ignored} words lie in segments to be ignored and were dropped")
    return {name: " ".join(held) for name, held in texts.items()}, "; ".join(notes)


def _seconds(path: object, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ScoringError(f"{path}, line {number}: '{text}' is not a time in seconds; correct it.")
    return value
