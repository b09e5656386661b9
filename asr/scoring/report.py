"""The whole report of a scoring: figures with intervals, comparison of two systems, tables; as text and as JSON."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from asr.exceptions import ScoringError
from asr.scoring.alignment import Alignment, Costs, ErrorCounts
from asr.scoring.errors import Observer, Score, score_systems
from asr.scoring.significance import (
    Interval,
    MatchedPairs,
    PairedBootstrap,
    bootstrap,
    matched_pairs,
    paired_bootstrap,
    segments,
)
from asr.scoring.tables import ErrorTables, LengthClass, Speaker, WorstUtterances, by_length, by_speaker

TOP = 50
CHANGED = 20


@dataclass(frozen=True)
class SystemReport:
    """Figures and tables of one system.

    Attributes:
        name: how the system is called, such as its file.
        score: counts and rates.
        interval: over utterances; None for a single one, of which nothing can be drawn.
        speaker_interval: over speakers; None where fewer than two are known.
        speakers: errors of each speaker.
        lengths: errors by length of the reference.
        confusions: most confused pairs (reference, hypothesis) with their number.
        deletions: most deleted units.
        insertions: most inserted units.
        pruned: whether rare entries of these were dropped to bound memory.
    """

    name: str
    score: Score
    interval: Interval | None
    speaker_interval: Interval | None
    speakers: list[Speaker]
    lengths: list[LengthClass]
    confusions: list[tuple[tuple[str, str], int]]
    deletions: list[tuple[str, int]]
    insertions: list[tuple[str, int]]
    pruned: bool


@dataclass(frozen=True)
class Comparison:
    """The second system against the first.

    Attributes:
        bootstrap: over utterances.
        speaker_bootstrap: over speakers; None where fewer than two are known.
        matched_pairs: MAPSSWE.
        better: utterances in which the second system makes fewer errors.
        worse: those in which it makes more.
        most_better: names of those with the greatest change, with the change of their errors.
        most_worse: as ``most_better``.
    """

    bootstrap: PairedBootstrap
    speaker_bootstrap: PairedBootstrap | None
    matched_pairs: MatchedPairs
    better: int
    worse: int
    most_better: list[tuple[str, int]]
    most_worse: list[tuple[str, int]]


@dataclass(frozen=True)
class Report:
    """Everything that is shown of a scoring.

    Attributes:
        systems: one or two.
        comparison: of the second with the first, where there are two.
        worst: alignments of the utterances with the most errors, for the page.
        notes: sentences that a reader should know, such as missing hypotheses.
        inputs: file and format of the reference and of each hypothesis.
        speaker_of: speaker of each utterance in ``worst``, where known.
    """

    systems: list[SystemReport]
    comparison: Comparison | None = None
    worst: list[tuple[str, tuple[Alignment, ...]]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    speaker_of: Mapping[str, str] = field(default_factory=dict)


def build_report(
    references: Mapping[str, str],
    systems: Mapping[str, Mapping[str, str]],
    unit: str = "word",
    normalizer: str = "none",
    allow_missing: bool = False,
    costs: Costs = "levenshtein",
    speakers: Mapping[str, str] | None = None,
    shown: int = 0,
    samples: int | None = None,
    seed: int = 0,
    observers: Sequence[Observer] = (),
    notes: Sequence[str] = (),
    inputs: Sequence[tuple[str, str]] = (),
) -> Report:
    """Score one or two systems and gather all that is reported about them.

    Args:
        references: text by utterance.
        systems: hypotheses of one or two systems, by the system's name.
        unit: ``word``, ``char`` or ``mixed``.
        normalizer: ``none``, ``basic``, ``english`` or ``mandarin``.
        allow_missing: score an utterance without hypothesis as empty.
        costs: weights of the alignment.
        speakers: speaker of every utterance, where known.
        shown: alignments to keep for the page.
        samples: sets to draw in each bootstrap; None for the default of ``asr.scoring.significance.bootstrap``.
        seed: of the bootstrap.
        observers: further ones, such as a writer of alignments.
        notes: further notes.
        inputs: file and format of the reference and of each hypothesis.

    Raises:
        ScoringError: there are no utterances or more than two systems, or as ``asr.scoring.errors.count``.
    """
    if not references:
        raise ScoringError("the reference holds no utterances; give a file with at least one.")
    if not 1 <= len(systems) <= 2:
        raise ScoringError(f"{len(systems)} systems cannot be reported; give one or two.")
    tables = [ErrorTables(system) for system in range(len(systems))]
    worst = WorstUtterances(shown)
    segment_errors = array("q")  # flat: a list of pairs would take ten times the memory

    def collect_segments(name: str, alignments: tuple[Alignment, ...]) -> None:
        for pair in segments(alignments[0], alignments[1]):
            segment_errors.extend(pair)

    every: list[Observer] = [*tables, *observers]
    if shown:
        every.append(worst)
    if len(systems) == 2:
        every.append(collect_segments)
    labels = tuple(systems)
    scores = score_systems(
        references,
        list(systems.values()),
        unit,
        normalizer,
        allow_missing,
        costs,
        every,
        labels if len(labels) > 1 else (),
    )
    groups = [speakers[name] for name in references] if speakers else None
    if groups is not None and len(set(groups)) < 2:
        groups = None
        notes = [*notes, "all utterances are of one speaker, so that there is no interval over speakers"]
    found = list(notes)
    for label, score in zip(labels, scores, strict=True):
        if score.missing:
            found.append(f"{label}: {len(score.missing):,} utterances have no hypothesis and were scored as empty")
    reports = [
        SystemReport(
            name=label,
            score=score,
            interval=bootstrap(*_errors(score), samples=samples, seed=seed) if len(references) > 1 else None,
            speaker_interval=bootstrap(*_errors(score), groups, samples=samples, seed=seed) if groups else None,
            speakers=by_speaker(score, speakers) if speakers else [],
            lengths=by_length(score),
            confusions=table.confusions.most_common(TOP),
            deletions=table.deletions.most_common(TOP),
            insertions=table.insertions.most_common(TOP),
            pruned=table.pruned,
        )
        for label, score, table in zip(labels, scores, tables, strict=True)
    ]
    comparison = _compare(scores, segment_errors, groups, samples, seed) if len(scores) == 2 else None
    shown_speakers = {name: speakers[name] for name, _ in worst.utterances} if speakers else {}
    return Report(reports, comparison, worst.utterances, tuple(found), tuple(inputs), shown_speakers)


def _errors(score: Score) -> tuple[Any, Any]:
    table = score.utterances.table
    return table[:, 1:].sum(axis=1), table[:, :3].sum(axis=1)


def _compare(
    scores: Sequence[Score],
    segment_errors: array[int],
    groups: list[str] | None,
    samples: int | None,
    seed: int,
) -> Comparison:
    (first, lengths), (second, _) = _errors(scores[0]), _errors(scores[1])
    change = second - first
    names = scores[0].utterances.identifiers
    order = np.argsort(change, kind="stable")
    return Comparison(
        bootstrap=paired_bootstrap(first, second, lengths, samples=samples, seed=seed),
        speaker_bootstrap=paired_bootstrap(first, second, lengths, groups, samples=samples, seed=seed) if groups else None,
        matched_pairs=matched_pairs(np.array(segment_errors, dtype=np.int64)),
        better=int((change < 0).sum()),
        worse=int((change > 0).sum()),
        most_better=[(names[k], int(change[k])) for k in order[:CHANGED] if change[k] < 0],
        most_worse=[(names[k], int(change[k])) for k in order[::-1][:CHANGED] if change[k] > 0],
    )


def to_dict(report: Report) -> dict[str, Any]:
    """The report as plain values for JSON; rates are fractions. Utterances come as ``[C, S, D, I]`` by name."""
    return {
        "inputs": [{"file": file, "format": kind} for file, kind in report.inputs],
        "notes": list(report.notes),
        "systems": [_system_dict(system) for system in report.systems],
        "comparison": asdict(report.comparison) if report.comparison else None,
    }


def _system_dict(system: SystemReport) -> dict[str, Any]:
    score = system.score
    return {
        "name": system.name,
        "unit": score.unit,
        "normalizer": score.normalizer,
        "normalizer_version": score.normalizer_version,
        "alignment_costs": score.costs,
        "rate_name": score.rate_name,
        **counts_dict(score.total),
        "interval": asdict(system.interval) if system.interval else None,
        "speaker_interval": asdict(system.speaker_interval) if system.speaker_interval else None,
        "utterances": len(score.utterances),
        "wrong_sentences": score.wrong_sentences,
        "sentence_error_rate": score.sentence_error_rate,
        "missing": list(score.missing),
        "speakers": [
            {"name": s.name, "utterances": s.utterances, "wrong_sentences": s.wrong_sentences, **counts_dict(s.counts)}
            for s in system.speakers
        ],
        "lengths": [
            {"shortest": c.shortest, "longest": c.longest, "utterances": c.utterances, **counts_dict(c.counts)}
            for c in system.lengths
        ],
        "confusions": [[reference, hypothesis, times] for (reference, hypothesis), times in system.confusions],
        "deleted": [list(entry) for entry in system.deletions],
        "inserted": [list(entry) for entry in system.insertions],
        "tables_pruned": system.pruned,
        "per_utterance": dict(zip(score.utterances.identifiers, score.utterances.table.tolist(), strict=True)),
    }


def counts_dict(counts: ErrorCounts) -> dict[str, float | int]:
    """Counts and rate as plain values."""
    return {
        "rate": counts.rate,
        "correct": counts.correct,
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
        "reference_length": counts.reference_length,
    }
