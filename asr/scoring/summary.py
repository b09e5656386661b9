"""The report as text: a summary for the terminal, and aligned pairs for a file."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import TextIO

from asr.scoring.alignment import Alignment, ErrorCounts
from asr.scoring.report import Comparison, Report, SystemReport
from asr.scoring.significance import Interval

_SPEAKERS = 20
_TOP = 8


def percent(rate: float) -> str:
    """A fraction as per cent with two digits."""
    return f"{100 * rate:.2f}%"


def interval_text(interval: Interval | None) -> str:
    """An interval with what was drawn for it."""
    if interval is None:
        return ""
    return (
        f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]% "
        f"({round(100 * interval.confidence)}%, bootstrap over {interval.units:,} {interval.drawn})"
    )


def summary(report: Report) -> str:
    """The figures and the most frequent errors, to be printed."""
    parts = [_system(system, titled=len(report.systems) > 1) for system in report.systems]
    if report.comparison:
        parts.append(_comparison(report, report.comparison))
    score = report.systems[0].score
    first = report.systems[0]
    parts.append(
        "\n".join(
            [
                *(f"{role}: {file}, read as {kind}" for role, (file, kind) in zip(_roles(report), report.inputs, strict=False)),
                f"normaliser: {score.normalizer}, version {score.normalizer_version}",
                f"unit: {score.unit}, alignment costs: {score.costs}",
                *(f"note: {note}" for note in report.notes),
                *(["note: rare entries of the tables of errors were dropped to bound memory"] if first.pruned else []),
            ]
        )
    )
    return "\n\n".join(parts)


def _roles(report: Report) -> list[str]:
    return ["reference", *["hypothesis"] * len(report.systems)]


def _system(system: SystemReport, titled: bool) -> str:
    score = system.score
    lines = [system.name] if titled else []
    lines.append(f"{score.rate_name} {percent(score.rate)}  {interval_text(system.interval)}".rstrip())
    if system.speaker_interval:
        lines.append(f"    {' ' * len(percent(score.rate))}  {interval_text(system.speaker_interval)}")
    total = score.total
    lines.append(
        f"N {total.reference_length:,}  correct {total.correct:,}  substitutions {total.substitutions:,}  "
        f"deletions {total.deletions:,}  insertions {total.insertions:,}"
    )
    lines.append(
        f"sentence error rate {percent(score.sentence_error_rate)} "
        f"({score.wrong_sentences:,} of {len(score.utterances):,} utterances)"
    )
    if not total.reference_length:
        lines.append("the references are empty: the rate is the number of insertions")
    for title, entries in (
        ("confused", [(f"{reference} → {hypothesis}", n) for (reference, hypothesis), n in system.confusions]),
        ("deleted", system.deletions),
        ("inserted", system.insertions),
    ):
        if entries:
            lines.append(f"most {title}: " + ", ".join(f"{_visible(unit)} ({n:,})" for unit, n in entries[:_TOP]))
    if system.speakers:
        lines += ["", *_speakers(system)]
    return "\n".join(lines)


def _speakers(system: SystemReport) -> list[str]:
    shown = sorted(system.speakers, key=lambda speaker: -speaker.counts.rate)[:_SPEAKERS]
    rows = [["speaker", "utterances", "N", "S", "D", "I", system.score.rate_name, "sentences wrong"]]
    for speaker in shown:
        c: ErrorCounts = speaker.counts
        values = [speaker.utterances, c.reference_length, c.substitutions, c.deletions, c.insertions]
        share = percent(speaker.wrong_sentences / speaker.utterances)
        rows.append([speaker.name, *(f"{value:,}" for value in values), percent(c.rate), share])
    widths = [max(width(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([padded(row[0], widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    if len(system.speakers) > len(shown):
        lines.append(f"(the {len(shown)} speakers with the highest rates of {len(system.speakers):,})")
    return lines


def _comparison(report: Report, comparison: Comparison) -> str:
    first, second = (system.name for system in report.systems)
    lines = [f"{second} against {first}"]
    for paired in (comparison.bootstrap, comparison.speaker_bootstrap):
        if paired:
            lines.append(
                f"difference {100 * paired.difference:+.2f}% [{100 * paired.low:+.2f}, {100 * paired.high:+.2f}]%, "
                f"p = {p_text(paired.p_value)} (paired bootstrap over {paired.units:,} {paired.drawn})"
            )
    test = comparison.matched_pairs
    lines.append(f"matched pairs (MAPSSWE): p = {p_text(test.p_value)}, z = {test.z:.3f} over {test.segments:,} segments")
    same = len(report.systems[0].score.utterances) - comparison.better - comparison.worse
    lines.append(f"utterances: {comparison.better:,} better, {comparison.worse:,} worse, {same:,} with as many errors")
    for title, changed in (("better", comparison.most_better), ("worse", comparison.most_worse)):
        if changed:
            lines.append(f"most {title}: " + ", ".join(f"{name} ({change:+d})" for name, change in changed[:_TOP]))
    return "\n".join(lines)


def p_text(p_value: float) -> str:
    """A p-value with the digits that mean something."""
    return f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.1e}"


def _visible(unit: str) -> str:
    return "␣" if unit == " " else unit


def width(text: str) -> int:
    """Columns that a text takes in a terminal: two for a wide character, none for a combining mark."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def padded(text: str, columns: int) -> str:
    """The text with spaces up to that many columns."""
    return text + " " * (columns - width(text))


class AlignmentWriter:
    """Writes every utterance's aligned pairs while a set is scored: REF, HYP and marks, in columns.

    Marks are ``S``, ``D``, ``I`` and nothing for a correct unit; a missing unit is a row of asterisks.
    """

    def __init__(self, file: TextIO, labels: Sequence[str]) -> None:
        """Take an open text file and the systems' names."""
        self.file = file
        self.labels = labels

    def __call__(self, name: str, alignments: tuple[Alignment, ...]) -> None:
        """Write one utterance."""
        for label, alignment in zip(self.labels, alignments, strict=True):
            system = f" [{label}]" if len(self.labels) > 1 else ""
            counts = alignment.counts
            self.file.write(
                f"{name}{system}  C={counts.correct} S={counts.substitutions} D={counts.deletions} "
                f"I={counts.insertions} N={counts.reference_length}\n"
            )
            self.file.writelines(f"{line}\n" for line in aligned_lines(alignment))
            self.file.write("\n")


def aligned_lines(alignment: Alignment) -> Iterable[str]:
    """Three lines of one utterance, their units in columns."""
    reference, hypothesis, marks = ["REF:"], ["HYP:"], ["    "]
    for mark, ref, hyp in alignment.pairs():
        left, right = _visible(ref or ""), _visible(hyp or "")
        columns = max(width(left), width(right), 1)
        reference.append(padded(left, columns) if ref is not None else "*" * columns)
        hypothesis.append(padded(right, columns) if hyp is not None else "*" * columns)
        marks.append(padded("" if mark == "C" else mark, columns))
    return (" ".join(line).rstrip() for line in (reference, hypothesis, marks))
