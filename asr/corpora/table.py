"""A corpus of one's own: a csv or jsonl table of ``audio,text`` and, where known, ``id``, ``speaker`` and ``language``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lhotse import CutSet

from asr.corpora.utterances import Utterance, to_cuts
from asr.exceptions import CorpusError

SUFFIXES = (".csv", ".jsonl")


def read(path: Path) -> CutSet:
    """Read a table of ``audio,text[,id,speaker,language]``; further columns are not looked at.

    A relative audio path starts from the table's folder. An id that is not given is the audio path as written,
    without its ending. A csv has a header line; both are UTF-8.

    Raises:
        CorpusError: names the file and line of the first bad row (of a csv, the line on which the row ends): audio or
            text missing, an audio file that does not exist, an id that came before, not JSON; or audio that cannot be
            read.
    """
    utterances: dict[str, Utterance] = {}
    lines: dict[str, int] = {}
    try:
        for line, row in _rows(path):
            utterance = _utterance(path, line, row)
            if utterance.id in lines:
                first = lines[utterance.id]
                raise CorpusError(f"{path}, line {line}: id '{utterance.id}' was used on line {first}; make ids differ.")
            lines[utterance.id] = line
            utterances[utterance.id] = utterance
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); give a csv or jsonl file.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8.") from error
    if not utterances:
        raise CorpusError(f"{path}: holds no utterance; add rows of audio and text.")
    return to_cuts(utterances.values(), str(path))


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".csv":
            reader = csv.DictReader(file, strict=True)
            missing = {"audio", "text"} - set(reader.fieldnames or ())
            if missing:
                columns = " and ".join(f"'{column}'" for column in sorted(missing))
                raise CorpusError(f"{path}, line 1: the header has no column {columns}; name the columns audio,text.")
            try:
                for row in reader:
                    if None in row:
                        raise CorpusError(
                            f"{path}, line {reader.line_num}: has more values than the header has columns; "
                            "put a text that holds commas in double quotes."
                        )
                    yield reader.line_num, row
            except csv.Error as error:
                # The DictReader's own number is that of the row before.
                number = reader.reader.line_num
                raise CorpusError(f"{path}, line {number}: is not valid csv ({error}); correct it.") from error
            return
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise CorpusError(f"{path}, line {number}: is not valid JSON ({error.msg}); correct it.") from error
            if not isinstance(row, dict):
                raise CorpusError(f'{path}, line {number}: is not a JSON object; write {{"audio": ..., "text": ...}}.')
            yield number, row


def _utterance(path: Path, line: int, row: Mapping[str, Any]) -> Utterance:
    values = {}
    for key in ("audio", "text", "id", "speaker", "language"):
        value = row.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and key in ("id", "speaker"):
            value = str(value)
        if not isinstance(value, str | None):
            raise CorpusError(f"{path}, line {line}: '{key}' is not a string; put it in quotes.")
        values[key] = (value or "").strip()
    for key in ("audio", "text"):
        if not values[key]:
            raise CorpusError(f"{path}, line {line}: has no {key}; fill it in or remove the row.")
    audio = path.parent / Path(values["audio"]).expanduser()
    if not audio.is_file():
        raise CorpusError(f"{path}, line {line}: audio file {audio} does not exist; correct the path.")
    text = " ".join(values["text"].split())
    return Utterance(
        id=values["id"] or Path(values["audio"]).with_suffix("").as_posix(),
        audio=audio,
        text=text,
        speaker=values["speaker"],
        words=len(text.split()),
        language=values["language"],
    )
