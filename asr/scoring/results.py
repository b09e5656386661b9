"""The results table of a recipe: rows written by the program, never typed.

The table stands in the recipe's README between two markers, and the same rows stand in ``results.json`` beside it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from asr.exceptions import ScoringError
from asr.scoring.errors import Score
from asr.scoring.units import RATES

BEGIN, END = "<!-- results -->", "<!-- /results -->"
COLUMNS = (
    "data set",
    "model",
    "decoder",
    "unit",
    "error rate",
    "95% interval",
    "S",
    "D",
    "I",
    "N",
    "real-time factor",
    "parameters",
    "normaliser",
    "commit",
    "command",
)
_HEADER = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]


@dataclass(frozen=True)
class ResultsRow:
    """One measured result.

    Attributes:
        data_set: what was decoded, for example ``test-clean``.
        model: name of the model.
        decoder: how it was searched, for example ``autoregressive, beam 8``.
        unit: ``word``, ``char`` or ``mixed``.
        rate: error rate as a fraction, not per cent.
        interval: 95 % interval of the rate, as fractions; None where it was not computed.
        substitutions: substituted units.
        deletions: deleted units.
        insertions: inserted units.
        reference_length: units in the references.
        real_time_factor: seconds of computing per second of audio; None where it was not measured.
        parameters: parameters of the model; None where they are not known.
        commit: revision of the program that measured.
        command: the command that measures it again.
        normalizer: name and version of the normaliser.
    """

    data_set: str
    model: str
    decoder: str
    unit: str
    rate: float
    interval: tuple[float, float] | None
    substitutions: int
    deletions: int
    insertions: int
    reference_length: int
    real_time_factor: float | None
    parameters: int | None
    commit: str
    command: str
    normalizer: str = "none"

    @classmethod
    def from_score(
        cls,
        score: Score,
        *,
        data_set: str,
        model: str,
        decoder: str,
        interval: tuple[float, float] | None,
        real_time_factor: float | None,
        parameters: int | None,
        commit: str,
        command: str,
    ) -> ResultsRow:
        """Take the figures of a score."""
        normalizer = score.normalizer
        if normalizer != "none":
            normalizer += f" {score.normalizer_version}"
        return cls(
            data_set=data_set,
            model=model,
            decoder=decoder,
            unit=score.unit,
            rate=score.rate,
            interval=interval,
            substitutions=score.total.substitutions,
            deletions=score.total.deletions,
            insertions=score.total.insertions,
            reference_length=score.total.reference_length,
            real_time_factor=real_time_factor,
            parameters=parameters,
            commit=commit,
            command=command,
            normalizer=normalizer,
        )

    @property
    def cells(self) -> list[str]:
        """The row as Markdown, one text a column."""
        low, high = self.interval or (0.0, 0.0)
        return [
            _text(self.data_set),
            _text(self.model),
            _text(self.decoder),
            self.unit,
            f"{RATES.get(self.unit, 'error rate')} {100 * self.rate:.2f}%",
            f"{100 * low:.2f}–{100 * high:.2f}%" if self.interval else "–",
            f"{self.substitutions:,}",
            f"{self.deletions:,}",
            f"{self.insertions:,}",
            f"{self.reference_length:,}",
            "–" if self.real_time_factor is None else f"{self.real_time_factor:.3g}",
            "–" if self.parameters is None else f"{self.parameters:,}",
            _text(self.normalizer),
            _text(self.commit),
            "`" + _text(self.command).replace("`", "'") + "`",
        ]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes a row the same measurement: data set, model, decoder and command, as they stand in the table."""
        cells = self.cells
        return cells[0], cells[1], cells[2], cells[-1]


def write_row(readme: Path, row: ResultsRow) -> None:
    """Put a row into the table of a README, in place of the one with the same data set, model, decoder and command.

    A README that is not there is made; one without the markers gets them at its end. The row is also written to
    ``results.json`` beside it. Both files are replaced as a whole, never left half written.

    Raises:
        ScoringError: a file cannot be read or written, has one marker without the other, or is not what this
            program wrote.
    """
    path = Path(readme)
    text = _read(path)
    begin, end = text.find(BEGIN), text.find(END)
    if (begin < 0) != (end < 0) or end < begin or text.count(BEGIN) > 1 or text.count(END) > 1:
        raise ScoringError(f"{path}: needs '{BEGIN}' once and '{END}' once after it; correct the markers.")
    if begin < 0:
        before, table, after = (text.rstrip("\n") + "\n\n" if text.strip() else "# Results\n\n"), "", "\n"
    else:
        before, table, after = text[:begin], text[begin + len(BEGIN) : end], text[end + len(END) :]
    lines = [line.strip() for line in table.splitlines() if line.strip().startswith("|")][2:]
    lines = _replaced(lines, [_key(line) for line in lines], "| " + " | ".join(row.cells) + " |", row.key)
    block = "\n".join([BEGIN, *_HEADER, *lines, END])

    results = path.with_name("results.json")
    rows = _read_json(results)
    keys = [_json_key(entry, results) for entry in rows]
    rows = _replaced(rows, keys, asdict(row), row.key)
    _write(results, json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
    _write(path, before + block + after)


def _replaced(entries: list, keys: list, entry: object, key: object) -> list:  # type: ignore[type-arg]
    """The entries with the one of this key replaced in its place, or the new one at the end."""
    if key not in keys:
        return [*entries, entry]
    place = keys.index(key)
    kept = [old for old, old_key in zip(entries, keys, strict=True) if old_key != key]
    return [*kept[:place], entry, *kept[place:]]


def _text(value: str) -> str:
    return " ".join(value.replace("|", "\\|").split())


def _key(line: str) -> tuple[str, str, str, str]:
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))]
    cells += [""] * (4 - len(cells))
    return cells[0], cells[1], cells[2], cells[-1]


def _json_key(entry: object, path: Path) -> tuple[str, str, str, str]:
    try:
        return ResultsRow(**entry).key  # type: ignore[arg-type]
    except TypeError as error:
        raise ScoringError(f"{path}: is not a list of results written by this program; move it away.") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ScoringError(f"{path}: cannot be read ({error}); give a text file in UTF-8.") from error


def _read_json(path: Path) -> list[object]:
    text = _read(path)
    try:
        rows = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        raise ScoringError(f"{path}: is not JSON ({error}); move it away.") from error
    if not isinstance(rows, list):
        raise ScoringError(f"{path}: is not a list of results written by this program; move it away.")
    return rows


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ScoringError(f"{path}: cannot be written ({error.strerror}); check the folder.") from error
