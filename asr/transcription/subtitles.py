"""Words with times to subtitles that a person can read: short lines, broken at pauses and punctuation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from asr.transcription.transcript import Word, is_spaceless, join

LINES = 2
LINE_LENGTH, LINE_LENGTH_SPACELESS = 42, 16
LONGEST_SECONDS = 7.0
_SHORTEST_SECONDS = 1.0
# A pause of this length always ends a subtitle.
_PAUSE_SECONDS = 1.5
_STOPS = frozenset(".?!。？！…")
_COMMAS = frozenset(",;:，；：、")
_CLOSING = frozenset("\"')]}”’»」』）")


@dataclass(frozen=True)
class Subtitle:
    """Lines that are shown from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    lines: tuple[str, ...]


def subtitles(words: Sequence[Word]) -> list[Subtitle]:
    """Subtitles of at most 2 lines of 42 characters (16 where half of them are of a script without spaces) and 7 s.

    Of all ways to break the words, the one that costs least: a subtitle costs one, the more the worse the place where it
    ends (in a sentence; after a comma; after a full stop or at a pause), the shorter it is, and the more uneven its lines.

    Args:
        words: in order, with times that do not overlap.
    """
    if not words:
        return []
    characters = "".join(word.text for word in words)
    spaceless = sum(is_spaceless(character) for character in characters)
    width = LINE_LENGTH_SPACELESS if 2 * spaceless >= len(characters) else LINE_LENGTH
    words = [part for word in words for part in _pieces(word, width)]
    # best[n]: cost of the first n words, and where the last of their subtitles begins.
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(words) + 1):
        choices = []
        for begin in range(end - 1, -1, -1):
            group = words[begin:end]
            if end - begin > 1 and not _fits(group, width):
                break
            choices.append((best[begin][0] + _cost(group, words[end] if end < len(words) else None, width), begin))
        best.append(min(choices))
    bounds = [len(words)]
    while bounds[-1]:
        bounds.append(best[bounds[-1]][1])
    bounds.reverse()
    groups = [words[begin:end] for begin, end in itertools.pairwise(bounds)]
    found = []
    for group, after in zip(groups, [*groups[1:], None], strict=True):
        first = group[0].start
        # A short one stays a little, until the next.
        last = max(group[-1].end, first + _SHORTEST_SECONDS)
        last = min(last, first + LONGEST_SECONDS, after[0].start if after else math.inf)
        found.append(Subtitle(first, max(last, first), _lines(group, width) or ("",)))
    return found


def _pieces(word: Word, width: int) -> list[Word]:
    """A word that fits no line, in parts that do; the time is shared by length."""
    if len(word.text) <= width:
        return [word]
    parts = [word.text[first : first + width] for first in range(0, len(word.text), width)]
    seconds = (word.end - word.start) / len(word.text)
    begins = [word.start + seconds * width * number for number in range(len(parts))] + [word.end]
    return [Word(part, begins[n], begins[n + 1], word.confidence) for n, part in enumerate(parts)]


def _fits(group: Sequence[Word], width: int) -> bool:
    if group[-1].end - group[0].start > LONGEST_SECONDS:
        return False
    if any(second.start - first.end > _PAUSE_SECONDS for first, second in itertools.pairwise(group)):
        return False
    return _lines(group, width) is not None


def _cost(group: Sequence[Word], after: Word | None, width: int) -> float:
    cost = 1.0
    text = join(word.text for word in group)
    last = text.rstrip("".join(_CLOSING))[-1:] or text[-1]
    pause = after.start - group[-1].end if after else math.inf
    if last not in _STOPS:
        cost += 0.6 if last in _COMMAS else 2.0
        cost -= min(pause, _PAUSE_SECONDS) / _PAUSE_SECONDS * (0.6 if last in _COMMAS else 2.0)
    # Sentences that end inside.
    cost += 0.7 * sum(word.text.rstrip("".join(_CLOSING))[-1:] in _STOPS for word in group[:-1])
    if len(text) < width // 2:
        cost += 0.4
    lines = _lines(group, width)
    if lines is not None and len(lines) == LINES:
        cost += 0.2 + 0.3 * abs(len(lines[0]) - len(lines[1])) / width
    return cost


def _lines(group: Sequence[Word], width: int) -> tuple[str, ...] | None:
    """The words in one line, or two as even as they get, the first one rather ending at a comma; None if they do not fit."""
    text = join(word.text for word in group)
    if len(text) <= width:
        return (text,)
    if len(text) > LINES * width + 1:
        return None
    choices = []
    for cut in range(1, len(group)):
        first, second = join(w.text for w in group[:cut]), join(w.text for w in group[cut:])
        if max(len(first), len(second)) <= width:
            comma = first[-1] in _COMMAS or first[-1] in _STOPS
            choices.append((abs(len(first) - len(second)) - 8 * comma, first, second))
    return min(choices)[1:] if choices else None
