"""The report as one HTML file that opens without a network.

Figures, tables and the chart are written into the page; the utterances' alignments are data that a script in the
page shows, so that they can be sorted and searched.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, TextIO

from asr.exceptions import ScoringError
from asr.scoring.alignment import Alignment
from asr.scoring.chart import rates_by_length
from asr.scoring.report import Comparison, Report, SystemReport
from asr.scoring.summary import interval_text, p_text, percent

# A page that a browser opens at once: units of all alignments, and bytes of all audio in it.
MAXIMUM_UNITS = 1_000_000
MAXIMUM_AUDIO = 30_000_000

_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".opus": "audio/ogg",
    ".ogg": "audio/ogg",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".mp4": "audio/mp4",
    ".webm": "audio/webm",
    ".aac": "audio/aac",
}
_MARKS = (("C", "correct"), ("S", "substituted"), ("D", "deleted"), ("I", "inserted"))
_NAMES = {"WER": "Word error rate", "CER": "Character error rate", "MER": "Mixed error rate"}
_UNITS = {"word": "words", "char": "characters", "mixed": "units"}


def write_page(file: TextIO, report: Report, audio: Mapping[str, Path]) -> None:
    """Write the page.

    Args:
        file: where to.
        report: with the alignments to show in ``worst``.
        audio: sound file by utterance; put into the page up to 30 MB, and linked beyond.

    Raises:
        ScoringError: a sound file cannot be read.
    """
    score = report.systems[0].score
    rows, notes = _rows(report, audio)
    rates = " and ".join(percent(system.score.rate) for system in report.systems)
    data = {
        "rate": score.rate_name,
        "unit": score.unit,
        "systems": [system.name for system in report.systems],
        "speakers": bool(report.systems[0].speakers),
        "rows": rows,
    }
    parts = {
        "TITLE": escape(f"{score.rate_name} {rates}"),
        "HEADING": escape(_NAMES[score.rate_name]),
        "SUBTITLE": _subtitle(report),
        "CARDS": "".join(_card(system, place, len(report.systems)) for place, system in enumerate(report.systems))
        + (_comparison_card(report, report.comparison) if report.comparison else ""),
        "NOTES": "".join(f'<p class="note">{escape(note)}</p>' for note in report.notes),
        "CHART": rates_by_length([system.lengths for system in report.systems], _UNITS[score.unit]),
        "ERRORS": "".join(_errors(system, len(report.systems) > 1) for system in report.systems),
        "SPEAKERS": "".join(_speakers(system, len(report.systems) > 1) for system in report.systems),
        "SHOWN": escape(" ".join([_shown(report, len(rows)), *notes])),
        # "<" cannot end the script element when it is written as an escape, which JSON reads as the same character.
        "DATA": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    template = files("asr.scoring").joinpath("page.html").read_text(encoding="utf-8")
    head, *rest = template.split("@@")
    file.write(head)
    for name, after in zip(rest[::2], rest[1::2], strict=True):
        # A lone surrogate can come from JSON input; it has no UTF-8.
        file.write(parts[name].encode("utf-8", "replace").decode("utf-8"))
        file.write(after)


def _subtitle(report: Report) -> str:
    score = report.systems[0].score
    kinds = [f"{escape(file)} ({escape(kind)})" for file, kind in report.inputs]
    lines = [f"Reference {kinds[0]}, hypotheses {', '.join(kinds[1:])}"] if kinds else []
    lines.append(
        f"Normaliser {escape(score.normalizer)}, version {escape(score.normalizer_version)} · "
        f"alignment costs {escape(score.costs)}"
    )
    return "".join(f"<p>{line}</p>" for line in lines)


def _card(system: SystemReport, place: int, systems: int) -> str:
    score, total = system.score, system.score.total
    values = {"C": total.correct, "S": total.substitutions, "D": total.deletions, "I": total.insertions}
    whole = max(1, sum(values.values()))
    bars = "".join(f'<i class="c-{mark}" style="width:{100 * values[mark] / whole:.3f}%"></i>' for mark, _ in _MARKS)
    legend = "".join(f'<span><i class="dot c-{mark}"></i>{title} <b>{values[mark]:,}</b></span>' for mark, title in _MARKS)
    label = f"{'AB'[place]} · {system.name}" if systems > 1 else system.name
    intervals = "".join(
        f"<p>{escape(interval_text(interval))}</p>" for interval in (system.interval, system.speaker_interval) if interval
    )
    empty = "" if total.reference_length else "<p>The references are empty: the rate is the number of insertions.</p>"
    return (
        f'<div class="card"><div class="name" style="--colour:var(--{_colour(place)})">{escape(label)}</div>'
        f'<div class="rate">{percent(score.rate)} <small>{score.rate_name}</small></div>{intervals}{empty}'
        f'<div class="share">{bars}</div><div class="legend">{legend}</div>'
        f'<p class="note">N = {total.reference_length:,} {_UNITS[score.unit]}. Sentence error rate '
        f"{percent(score.sentence_error_rate)}: {score.wrong_sentences:,} of {len(score.utterances):,} utterances.</p>"
        "</div>"
    )


def _comparison_card(report: Report, comparison: Comparison) -> str:
    difference = comparison.bootstrap.difference
    direction = "up" if difference < 0 else "down"
    lines = []
    for paired in (comparison.bootstrap, comparison.speaker_bootstrap):
        if paired:
            lines.append(
                f"[{100 * paired.low:+.2f}, {100 * paired.high:+.2f}]%, <b>p = {p_text(paired.p_value)}</b> "
                f"(paired bootstrap over {paired.units:,} {paired.drawn})"
            )
    test = comparison.matched_pairs
    lines.append(f"<b>p = {p_text(test.p_value)}</b> (matched pairs, z = {test.z:.2f}, {test.segments:,} segments)")
    same = len(report.systems[0].score.utterances) - comparison.better - comparison.worse
    return (
        '<div class="card"><div class="name">B compared with A</div>'
        f'<div class="rate {direction if difference else ""}">{100 * difference:+.2f}% <small>absolute</small></div>'
        + "".join(f"<p>{line}</p>" for line in lines)
        + f'<p class="note">{comparison.better:,} utterances better, {comparison.worse:,} worse, {same:,} with as many '
        "errors.</p></div>"
    )


def _errors(system: SystemReport, titled: bool) -> str:
    tables = [
        (
            "Most confused",
            [
                (f'{_unit(reference)}<span class="arrow">→</span>{_unit(hypothesis)}', times)
                for (reference, hypothesis), times in system.confusions
            ],
        ),
        ("Most deleted", [(_unit(unit), times) for unit, times in system.deletions]),
        ("Most inserted", [(_unit(unit), times) for unit, times in system.insertions]),
    ]
    columns = "".join(
        f'<div><h2>{title}</h2><div class="scroll"><table class="list"><tbody>'
        + ("".join(f"<tr><td>{what}</td><td>{times:,}</td></tr>" for what, times in entries) or "<tr><td>none</td></tr>")
        + "</tbody></table></div></div>"
        for title, entries in tables
    )
    title = f'<p class="note" style="margin:-4px 0 10px">{escape(system.name)}</p>' if titled else ""
    pruned = '<p class="note">Rare entries were dropped to bound memory.</p>' if system.pruned else ""
    return f'<section>{title}<div class="columns">{columns}</div>{pruned}</section>'


def _unit(unit: str) -> str:
    return escape("␣" if unit == " " else unit)


def _speakers(system: SystemReport, titled: bool) -> str:
    if not system.speakers:
        return ""
    head = ["Speaker", "Utterances", "N", "Correct", "S", "D", "I", system.score.rate_name, "Sentences wrong"]
    rows = []
    for speaker in sorted(system.speakers, key=lambda speaker: -speaker.counts.rate):
        c = speaker.counts
        values = [speaker.utterances, c.reference_length, c.correct, c.substitutions, c.deletions, c.insertions]
        cells = "".join(f'<td data-value="{value}">{value:,}</td>' for value in values)
        for share in (c.rate, speaker.wrong_sentences / speaker.utterances):
            cells += f'<td data-value="{share:.9f}">{percent(share)}</td>'
        rows.append(f"<tr><td>{escape(speaker.name)}</td>{cells}</tr>")
    title = f'<p class="note" style="margin:-6px 0 10px">{escape(system.name)}</p>' if titled else ""
    return (
        f'<section><h2>Speakers</h2>{title}<div class="scroll frame"><table data-sort><thead><tr>'
        + "".join(f"<th>{name}</th>" for name in head)
        + f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _shown(report: Report, rows: int) -> str:
    total = len(report.systems[0].score.utterances)
    if rows == total:
        return f"All {total:,} utterances."
    which = "with the most errors" if len(report.systems) == 1 else "on which the systems differ most"
    return f"The {rows:,} utterances {which}, of {total:,}."


def _rows(report: Report, audio: Mapping[str, Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """The utterances for the script, until the page is full, and what had to be left out."""
    rows: list[dict[str, Any]] = []
    units = embedded = linked = 0
    for name, alignments in report.worst:
        units += sum(len(alignment.reference) + len(alignment.hypothesis) for alignment in alignments)
        if rows and units > MAXIMUM_UNITS:
            break
        row: dict[str, Any] = {
            "name": name,
            "counts": [_counts(alignment) for alignment in alignments],
            "aligned": [_pairs(alignment) for alignment in alignments],
        }
        if report.speaker_of:
            row["speaker"] = report.speaker_of[name]
        if name in audio:
            path = audio[name]
            try:
                size = path.stat().st_size
                if embedded + size <= MAXIMUM_AUDIO:
                    embedded += size
                    content = base64.b64encode(path.read_bytes()).decode("ascii")
                    row["audio"] = f"data:{_TYPES[path.suffix.lower()]};base64,{content}"
                else:
                    linked += 1
                    row["audio"] = path.resolve().as_uri()
            except OSError as error:
                raise ScoringError(f"{path}: cannot be read ({error.strerror}); check the audio folder.") from error
        rows.append(row)
    notes = [f"The audio of {linked:,} is linked, not in this file."] if linked else []
    if audio and len(audio) < len(rows):
        notes.append(f"No audio was found for {sum('audio' not in row for row in rows):,}.")
    return rows, notes


def _counts(alignment: Alignment) -> Sequence[int]:
    counts = alignment.counts
    return counts.correct, counts.substitutions, counts.deletions, counts.insertions


def _pairs(alignment: Alignment) -> list[Any]:
    """A correct unit is itself; an error is its mark with the unit of the reference, of the hypothesis, or both."""
    return [
        ref if mark == "C" else [mark, *(unit for unit in (ref, hyp) if unit is not None)] for mark, ref, hyp in alignment.pairs()
    ]


def _colour(place: int) -> str:
    return ("first", "second")[place]
