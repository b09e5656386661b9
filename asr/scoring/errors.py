"""Word and character error rates of a set of utterances.

Rates are those of jiwer: every error costs 1 in the alignment, and the rate of the set is all errors divided by all
reference units. Utterances are aligned in batches and their alignments are handed to whoever asks and then dropped,
so that memory grows with the texts and four numbers an utterance only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest

import numpy as np
from numpy.typing import NDArray

from asr.exceptions import AsrError, ScoringError
from asr.scoring.alignment import Alignment, Costs, ErrorCounts, align, align_all
from asr.scoring.units import RATES, tokenizer
from asr.text.normalization import Normalizer, normalizer

__all__ = ["Alignment", "Costs", "ErrorCounts", "Score", "UtteranceCounts", "align", "count", "score_systems"]

BATCH = 2000
LISTED = 20

# Called for each utterance with its name and its alignment under each system.
Observer = Callable[[str, tuple[Alignment, ...]], None]


class UtteranceCounts(Mapping[str, ErrorCounts]):
    """Counts by utterance, held as one table: a million utterances take 32 MB beside their names.

    Attributes:
        identifiers: utterance names in order.
        table: int64 ``(utterances, 4)``: correct, substitutions, deletions, insertions.
    """

    def __init__(self, identifiers: Sequence[str], table: NDArray[np.int64]) -> None:
        """Take names and their counts, row by row."""
        self.identifiers = tuple(identifiers)
        self.table = table
        self._row: dict[str, int] | None = None

    def __getitem__(self, identifier: str) -> ErrorCounts:
        if self._row is None:
            self._row = {name: row for row, name in enumerate(self.identifiers)}
        return ErrorCounts(*(int(value) for value in self.table[self._row[identifier]]))

    def __iter__(self) -> Iterator[str]:
        return iter(self.identifiers)

    def __len__(self) -> int:
        return len(self.identifiers)


@dataclass(frozen=True)
class Score:
    """Errors of one system on one set.

    Attributes:
        total: counts of all utterances.
        utterances: counts of each.
        unit: ``word``, ``char`` or ``mixed``.
        normalizer: name of the normaliser that both sides went through.
        normalizer_version: its version; rates under different ones cannot be compared.
        costs: the weights of the alignment.
        missing: utterances without a hypothesis, scored as empty.
    """

    total: ErrorCounts
    utterances: UtteranceCounts = field(repr=False, compare=False)
    unit: str = "word"
    normalizer: str = "none"
    normalizer_version: str = "1"
    costs: Costs = "levenshtein"
    missing: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """Error rate of the set; see ``ErrorCounts.rate``."""
        return self.total.rate

    @property
    def rate_name(self) -> str:
        """WER, CER, or MER (mixed error rate)."""
        return RATES[self.unit]

    @property
    def wrong_sentences(self) -> int:
        """Utterances with at least one error."""
        return int((self.utterances.table[:, 1:].sum(axis=1) > 0).sum())

    @property
    def sentence_error_rate(self) -> float:
        """Utterances with at least one error, divided by all; 0.0 for an empty set."""
        return self.wrong_sentences / len(self.utterances) if len(self.utterances) else 0.0


def count(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    unit: str = "word",
    normalizer: str = "none",
    allow_missing: bool = False,
    costs: Costs = "levenshtein",
) -> Score:
    """Count the errors of hypotheses against references.

    Args:
        references: text by utterance.
        hypotheses: text by utterance, for the same utterances.
        unit: ``word``, ``char`` or ``mixed``; see ``asr.scoring.units.tokenizer``.
        normalizer: ``none``, ``basic``, ``english`` or ``mandarin``, applied to both sides.
        allow_missing: an utterance without hypothesis is scored as if its hypothesis were empty.
        costs: weights of the alignment; see ``asr.scoring.alignment.align_all``.

    Raises:
        ScoringError: an utterance is missing or has no reference (the message names them), or the unit, the
            normaliser or the costs are not known.
    """
    (score,) = score_systems(references, [hypotheses], unit, normalizer, allow_missing, costs)
    return score


def score_systems(
    references: Mapping[str, str],
    systems: Sequence[Mapping[str, str]],
    unit: str = "word",
    normalizer: str = "none",
    allow_missing: bool = False,
    costs: Costs = "levenshtein",
    observers: Sequence[Observer] = (),
    labels: Sequence[str] = (),
) -> tuple[Score, ...]:
    """As ``count``, for several systems at once, utterance by utterance.

    Args:
        references: as ``count``.
        systems: the hypotheses of each system.
        unit: as ``count``.
        normalizer: as ``count``.
        allow_missing: as ``count``.
        costs: as ``count``.
        observers: each is called with every utterance's alignments, in the references' order.
        labels: name of each system in messages, such as its file.

    Raises:
        ScoringError: as ``count``.
    """
    missing = [
        check_identifiers(references, hypotheses, allow_missing, label)
        for hypotheses, label in zip_longest(systems, labels, fillvalue="")
        if not isinstance(hypotheses, str)
    ]
    try:
        standard = _normalizer(normalizer)
    except AsrError as error:
        raise ScoringError(str(error)) from error
    split = tokenizer(unit, standard)

    def normalized_units(name: str, text: str) -> list[str]:
        try:
            return split(standard(text))
        except AsrError as error:
            raise ScoringError(f"utterance {name}: {error}") from error

    tables = np.zeros((len(systems), len(references), 4), dtype=np.int64)
    row = 0
    names = iter(references)
    while batch := list(islice(names, BATCH)):
        texts = [references[name] for name in batch]
        units = [normalized_units(name, text) for name, text in zip(batch, texts, strict=True)]
        aligned = [
            align_all(
                units,
                [
                    # What is the same before normalisation is so after it.
                    same if (hypothesis := hypotheses.get(name, "")) == text else normalized_units(name, hypothesis)
                    for name, text, same in zip(batch, texts, units, strict=True)
                ],
                costs,
            )
            for hypotheses in systems
        ]
        for place, name in enumerate(batch):
            alignments = tuple(system[place] for system in aligned)
            for table, alignment in zip(tables, alignments, strict=True):
                counts = alignment.counts
                table[row] = counts.correct, counts.substitutions, counts.deletions, counts.insertions
            for observe in observers:
                observe(name, alignments)
            row += 1
    identifiers = tuple(references)
    return tuple(
        Score(
            total=ErrorCounts(*(int(value) for value in table.sum(axis=0))),
            utterances=UtteranceCounts(identifiers, table),
            unit=unit,
            normalizer=standard.name,
            normalizer_version=standard.version,
            costs=costs,
            missing=absent,
        )
        for table, absent in zip(tables, missing, strict=True)
    )


def check_identifiers(
    references: Mapping[str, str], hypotheses: Mapping[str, str], allow_missing: bool = False, label: str = ""
) -> tuple[str, ...]:
    """Check that both sides have the same utterances; gives those without hypothesis where that is allowed.

    A hypothesis without reference is always an error: nothing can be said about it.

    Raises:
        ScoringError: the sides differ; the message names the first 20 utterances and says how many there are.
    """
    missing = tuple(name for name in references if name not in hypotheses)
    extra = tuple(name for name in hypotheses if name not in references)
    mistakes = []
    if missing and not allow_missing:
        mistakes.append(f"{len(missing)} without hypothesis: {listed(missing)}")
    if extra:
        mistakes.append(f"{len(extra)} without reference: {listed(extra)}")
    if mistakes:
        hint = "" if extra else " or allow missing ones to be scored as empty"
        where = f"{label}: " if label else ""
        raise ScoringError(f"{where}utterances differ ({'; '.join(mistakes)}); complete the files{hint}.")
    return missing


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


_normalizer: Callable[[str], Normalizer] = normalizer
