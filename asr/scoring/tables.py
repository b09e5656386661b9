"""Where the errors are: what is confused, deleted and inserted, how errors grow with length, the worst utterances."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.scoring.alignment import Alignment, ErrorCounts
from asr.scoring.errors import Score

# A counter that outgrows this drops what was seen once, so that memory stays bounded over millions of utterances.
MAXIMUM_ENTRIES = 500_000

# Upper ends of the classes of reference length; the last class has none.
_ENDS = (0, 1, 2, 3, 5, 8, 12, 16, 20, 25, 30, 40, 60, 100, 200, 500, 1000)


@dataclass(frozen=True)
class LengthClass:
    """Utterances whose references have about the same length.

    Attributes:
        shortest: least units of a reference in the class.
        longest: most; None for no bound.
        utterances: how many.
        counts: their errors.
    """

    shortest: int
    longest: int | None
    utterances: int
    counts: ErrorCounts


@dataclass(frozen=True)
class Speaker:
    """Errors of one speaker."""

    name: str
    utterances: int
    wrong_sentences: int
    counts: ErrorCounts


class ErrorTables:
    """Counts what is confused, deleted and inserted while a system is scored.

    Attributes:
        confusions: how often each pair (reference unit, hypothesis unit) was substituted.
        deletions: how often each reference unit was deleted.
        insertions: how often each hypothesis unit was inserted.
        pruned: whether rare entries were dropped to bound memory; the most frequent ones are hardly touched by it.
    """

    def __init__(self, system: int = 0) -> None:
        """Take the position of the system among those that are scored together."""
        self.system = system
        self.confusions: Counter[tuple[str, str]] = Counter()
        self.deletions: Counter[str] = Counter()
        self.insertions: Counter[str] = Counter()
        self.pruned = False

    def __call__(self, name: str, alignments: tuple[Alignment, ...]) -> None:
        """Count one utterance."""
        alignment = alignments[self.system]
        reference, hypothesis = alignment.reference, alignment.hypothesis
        for mark, i, i_end, j, j_end in alignment.chunks:
            if mark == "S":
                self.confusions.update(zip(reference[i:i_end], hypothesis[j:j_end], strict=True))
            elif mark == "D":
                self.deletions.update(reference[i:i_end])
            elif mark == "I":
                self.insertions.update(hypothesis[j:j_end])
        counters: tuple[Counter[tuple[str, str]] | Counter[str], ...] = (
            self.confusions,
            self.deletions,
            self.insertions,
        )
        for counter in counters:
            if len(counter) > MAXIMUM_ENTRIES:
                _prune(counter)
                self.pruned = True


def _prune(counter: Counter[tuple[str, str]] | Counter[str]) -> None:
    """Drop the rarest until half of the room is free."""
    kept = heapq.nlargest(MAXIMUM_ENTRIES // 2, counter.items(), key=lambda entry: entry[1])
    counter.clear()
    for entry, times in kept:
        counter[entry] = times  # type: ignore[index]


class WorstUtterances:
    """Keeps the alignments of the utterances with the most errors; of two systems, those on which they differ most."""

    def __init__(self, limit: int) -> None:
        """Take how many to keep at most."""
        self.limit = limit
        self.seen = 0
        self._heap: list[tuple[int, int, int, str, tuple[Alignment, ...]]] = []

    def __call__(self, name: str, alignments: tuple[Alignment, ...]) -> None:
        """Look at one utterance."""
        errors = [alignment.counts.errors for alignment in alignments]
        order = -self.seen  # earlier utterances win ties; no two are equal, so that alignments are never compared
        self.seen += 1
        entry = (max(errors) - min(errors), sum(errors), order, name, alignments)
        if len(self._heap) < self.limit:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry[:3] > self._heap[0][:3]:
            heapq.heapreplace(self._heap, entry)

    @property
    def utterances(self) -> list[tuple[str, tuple[Alignment, ...]]]:
        """Names and alignments, the most first."""
        return [entry[3:] for entry in sorted(self._heap, key=lambda entry: entry[:3], reverse=True)]


def by_length(score: Score) -> list[LengthClass]:
    """Errors by length of the reference; classes without utterances are left out."""
    table = score.utterances.table
    lengths = table[:, :3].sum(axis=1)
    place = np.searchsorted(_ENDS, lengths)
    starts = [0, *(end + 1 for end in _ENDS)]
    classes = []
    for k, (start, end) in enumerate(itertools.zip_longest(starts, _ENDS)):
        rows = table[place == k]
        if len(rows):
            classes.append(LengthClass(start, end, len(rows), _counts(rows)))
    return classes


def by_speaker(score: Score, speakers: Mapping[str, str]) -> list[Speaker]:
    """Errors of each speaker, by name."""
    names, place = np.unique([speakers[name] for name in score.utterances], return_inverse=True)
    order = np.argsort(place, kind="stable")
    parts = np.split(score.utterances.table[order], np.cumsum(np.bincount(place))[:-1])
    return [
        Speaker(str(name), len(rows), int((rows[:, 1:].sum(axis=1) > 0).sum()), _counts(rows))
        for name, rows in zip(names, parts, strict=True)
    ]


def _counts(rows: NDArray[np.int64]) -> ErrorCounts:
    return ErrorCounts(*(int(value) for value in rows.sum(axis=0)))
