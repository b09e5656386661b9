"""Aligning a hypothesis with its reference: which units are correct, substituted, deleted or inserted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from asr.exceptions import ScoringError

Costs = Literal["levenshtein", "sclite"]
Units = Sequence[str]
Mark = Literal["C", "S", "D", "I"]

# Cells of the largest table of directions that sclite's weights may need: one byte each.
MAXIMUM_CELLS = 400_000_000

_MARKS: dict[str, Mark] = {"equal": "C", "substitute": "S", "delete": "D", "insert": "I"}


@dataclass(frozen=True)
class ErrorCounts:
    """Units that were recognised correctly, and the three kinds of error.

    Adding two gives the counts of both together: rates are never averaged.
    """

    correct: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def reference_length(self) -> int:
        """Units in the reference, the N that the rate divides by."""
        return self.correct + self.substitutions + self.deletions

    @property
    def hypothesis_length(self) -> int:
        """Units in the hypothesis."""
        return self.correct + self.substitutions + self.insertions

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors divided by the length of the reference, as jiwer defines it.

        An empty reference has no length to divide by: the rate is then the number of insertions, so that both empty
        is 0.0, and an empty hypothesis for a reference that is not empty is 1.0.
        """
        length = self.reference_length
        return self.errors / length if length else float(self.insertions)

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.correct + other.correct,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclass(frozen=True)
class Alignment:
    """A reference and a hypothesis, side by side.

    Attributes:
        reference: the units of the reference.
        hypothesis: the units of the hypothesis.
        chunks: runs of one mark in order: mark, then start and end (exclusive) in the reference and in the
            hypothesis. A deletion is empty in the hypothesis, an insertion in the reference.
    """

    reference: Units
    hypothesis: Units
    chunks: tuple[tuple[Mark, int, int, int, int], ...]

    @property
    def counts(self) -> ErrorCounts:
        """The four counts of this alignment."""
        lengths: dict[Mark, int] = {"C": 0, "S": 0, "D": 0, "I": 0}
        for mark, start, end, hypothesis_start, hypothesis_end in self.chunks:
            lengths[mark] += max(end - start, hypothesis_end - hypothesis_start)
        return ErrorCounts(lengths["C"], lengths["S"], lengths["D"], lengths["I"])

    def pairs(self) -> Iterator[tuple[Mark, str | None, str | None]]:
        """Mark, unit of the reference (None for an insertion) and unit of the hypothesis (None for a deletion)."""
        for mark, i, i_end, j, j_end in self.chunks:
            for step in range(max(i_end - i, j_end - j)):
                yield (
                    mark,
                    None if mark == "I" else self.reference[i + step],
                    None if mark == "D" else self.hypothesis[j + step],
                )


def align(reference: Units, hypothesis: Units, costs: Costs = "levenshtein") -> Alignment:
    """Align one pair with the fewest errors; see ``align_all``."""
    return align_all([reference], [hypothesis], costs)[0]


def align_all(references: Sequence[Units], hypotheses: Sequence[Units], costs: Costs = "levenshtein") -> list[Alignment]:
    """Align pairs of unit sequences with the least total cost.

    Args:
        references: one sequence of units for each pair.
        hypotheses: as many.
        costs: ``levenshtein`` makes every error cost 1 (jiwer's alignment, by RapidFuzz); ``sclite`` makes a
            substitution cost 4, an insertion or deletion 3 and a correct unit 0, as NIST's scorer does, which
            prefers correct units to fewer errors.

    Raises:
        ScoringError: the costs are not known, or a pair is too long for sclite's weights.
    """
    if costs == "levenshtein":
        # jiwer is asked for its alignment of units already split: the identity stands in for its own splitting.
        import jiwer

        def units(texts: object) -> object:
            return texts

        result = jiwer.process_words(
            [list(reference) for reference in references],  # type: ignore[misc]
            [list(hypothesis) for hypothesis in hypotheses],  # type: ignore[misc]
            units,  # type: ignore[arg-type]
            units,  # type: ignore[arg-type]
        )
        return [
            Alignment(
                reference,
                hypothesis,
                tuple((_MARKS[c.type], c.ref_start_idx, c.ref_end_idx, c.hyp_start_idx, c.hyp_end_idx) for c in chunks),
            )
            for reference, hypothesis, chunks in zip(references, hypotheses, result.alignments, strict=True)
        ]
    if costs == "sclite":
        return _weighted(references, hypotheses)
    raise ScoringError(f"alignment costs '{costs}': are not known, choose levenshtein or sclite.")


def _weighted(references: Sequence[Units], hypotheses: Sequence[Units]) -> list[Alignment]:
    """Sort by size so that the pairs of one batch need little padding, align, and put back in order."""
    order = sorted(range(len(references)), key=lambda k: (len(references[k]), len(hypotheses[k])))
    result: list[Alignment | None] = [None] * len(references)
    batch: list[int] = []
    rows = columns = 0
    for k in order:
        rows_with = max(rows, len(references[k]) + 1)
        columns_with = max(columns, len(hypotheses[k]) + 1)
        if (len(references[k]) + 1) * (len(hypotheses[k]) + 1) > MAXIMUM_CELLS:
            raise ScoringError(
                f"a pair of {len(references[k])} and {len(hypotheses[k])} units is too long for sclite's weights; "
                "score shorter segments, or use levenshtein."
            )
        if batch and (len(batch) + 1) * rows_with * columns_with > 4_000_000:
            _align_batch(references, hypotheses, batch, result)
            batch, rows_with, columns_with = [], len(references[k]) + 1, len(hypotheses[k]) + 1
        batch.append(k)
        rows, columns = rows_with, columns_with
    if batch:
        _align_batch(references, hypotheses, batch, result)
    return [alignment for alignment in result if alignment is not None]


def _align_batch(
    references: Sequence[Units], hypotheses: Sequence[Units], batch: list[int], result: list[Alignment | None]
) -> None:
    """Dynamic programming over the reference's units, for all pairs of a batch and all columns of a row at once.

    Within a row, an insertion depends on the cell to its left; the least of ``cost[k] + 3 (j - k)`` over k <= j is a
    running minimum of ``cost[k] - 3 k``, so that a row needs no loop over its columns.
    """
    numbers: dict[str, int] = {}
    n = max(len(references[k]) for k in batch)
    m = max(len(hypotheses[k]) for k in batch)
    reference = np.full((len(batch), n), -1, dtype=np.int32)
    hypothesis = np.full((len(batch), m), -2, dtype=np.int32)
    for row, k in enumerate(batch):
        reference[row, : len(references[k])] = [numbers.setdefault(unit, len(numbers)) for unit in references[k]]
        hypothesis[row, : len(hypotheses[k])] = [numbers.setdefault(unit, len(numbers)) for unit in hypotheses[k]]
    ramp = 3 * np.arange(m + 1, dtype=np.int32)
    cost = np.broadcast_to(ramp, (len(batch), m + 1)).copy()
    directions = np.empty((n + 1, len(batch), m + 1), dtype=np.uint8)
    directions[0] = _INSERT
    for i in range(n):
        different = reference[:, i, None] != hypothesis
        diagonal = np.full_like(cost, np.iinfo(np.int32).max // 2)
        diagonal[:, 1:] = cost[:, :-1] + np.where(different, np.int32(4), np.int32(0))
        above = cost + np.int32(3)
        best = np.minimum(diagonal, above)
        best = np.minimum.accumulate(best - ramp, axis=1) + ramp
        left = np.full_like(best, np.iinfo(np.int32).max // 2)
        left[:, 1:] = best[:, :-1] + np.int32(3)
        # Among equal costs: the choice of sclite, found by comparison with its own alignments.
        directions[i + 1] = np.where(best == diagonal, _DIAGONAL, np.where(best == left, _INSERT, _DELETE))
        cost = best
    for row, k in enumerate(batch):
        result[k] = _trace(references[k], hypotheses[k], directions[:, row])


_DIAGONAL, _DELETE, _INSERT = np.uint8(0), np.uint8(1), np.uint8(2)


def _trace(reference: Units, hypothesis: Units, directions: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Alignment:
    i, j = len(reference), len(hypothesis)
    chunks: list[tuple[Mark, int, int, int, int]] = []
    while i or j:
        direction = directions[i, j] if i and j else (_DELETE if i else _INSERT)
        end_i, end_j = i, j
        mark: Mark
        if direction == _DIAGONAL:
            mark = "C" if reference[i - 1] == hypothesis[j - 1] else "S"
            i, j = i - 1, j - 1
        elif direction == _DELETE:
            mark, i = "D", i - 1
        else:
            mark, j = "I", j - 1
        if chunks and chunks[-1][0] == mark:
            _, _, last_i, _, last_j = chunks.pop()
            end_i, end_j = last_i, last_j
        chunks.append((mark, i, end_i, j, end_j))
    return Alignment(reference, hypothesis, tuple(reversed(chunks)))
