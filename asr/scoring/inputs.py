"""Reading references and hypotheses: Kaldi text, trn, csv, jsonl, plain text, STM and CTM.

Every reader is strict: a line that cannot be understood, an utterance named twice or a byte that is not UTF-8 stops
the reading with the file and the line.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from asr.exceptions import ScoringError
from asr.scoring.timed import Segment, Word, assign, read_ctm, read_stm

FORMATS = ("plain", "kaldi", "trn", "csv", "tsv", "jsonl", "stm", "ctm")
_BY_ENDING = {".trn": "trn", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".stm": "stm", ".ctm": "ctm"}
_IDENTIFIERS = ("utterance", "utt", "utt_id", "utterance_id", "id", "key", "audio", "path", "file", "filename")
_TEXTS = ("text", "transcript", "transcription", "sentence", "words", "reference", "hypothesis", "ref", "hyp", "pred")
_SPEAKERS = ("speaker", "speaker_id", "spk")
_SAMPLE = 1000  # lines that are looked at to recognise a format

csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Texts:
    """The texts of one file.

    Attributes:
        texts: text by utterance, in the file's order.
        format: one of ``FORMATS``.
        speakers: speaker by utterance, where the file says so.
        note: what a reader of the score should know about the reading; empty for nothing.
    """

    texts: dict[str, str]
    format: str
    speakers: dict[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class _Pipe:
    """What came through a pipe, which can be read only once, under its path's name."""

    path: Path
    content: bytes

    def __str__(self) -> str:
        return str(self.path)


_Source = Path | _Pipe


def _source(path: Path) -> _Source:
    try:
        if path.is_fifo() or path.is_char_device():
            return _Pipe(path, path.read_bytes())
    except OSError as error:
        raise ScoringError(f"{path}: cannot be read ({error.strerror}); give an existing text file.") from error
    return path


def read_all(
    reference: Path, hypotheses: list[Path], reference_format: str = "auto", hypothesis_format: str = "auto"
) -> list[Texts]:
    """Read a reference and the hypotheses to score against it.

    Words of a CTM hypothesis are put into the segments of an STM reference.

    Args:
        reference: file of reference texts.
        hypotheses: files of hypotheses.
        reference_format: one of ``FORMATS``, or ``auto`` to recognise it by the file's name and content.
        hypothesis_format: as ``reference_format``.

    Returns:
        The reference, then each hypothesis.

    Raises:
        ScoringError: a file cannot be read or understood, or two formats do not go together.
    """
    paths = [_source(path) for path in (reference, *hypotheses)]
    formats = [reference_format, *[hypothesis_format] * len(hypotheses)]
    formats = [recognise(path) if name == "auto" else name for path, name in zip(paths, formats, strict=True)]
    known = next((name for name in formats if name != "empty"), "plain")
    formats = [known if name == "empty" else name for name in formats]
    for path, name in zip(paths, formats, strict=True):
        if name not in FORMATS:
            raise ScoringError(f"input format '{name}': is not known, choose auto or one of {', '.join(FORMATS)}.")
        if (name == "plain") != (formats[0] == "plain"):
            raise ScoringError(
                f"{path}: reads as {name} but {reference} as {formats[0]}, and a plain text has no utterance names; "
                "name both formats with --input-format and --hypothesis-format."
            )
    if formats[0] == "stm":
        segments = read_stm(reference, list(lines(paths[0])))
        return [
            _stm(segments),
            *[_timed(path, kind, segments) for path, kind in zip(paths[1:], formats[1:], strict=True)],
        ]
    result = [_READERS[name](path) for path, name in zip(paths, formats, strict=True)]
    if formats[0] == "plain":
        for path, texts in zip(paths[1:], result[1:], strict=True):
            if len(texts.texts) != len(result[0].texts):
                raise ScoringError(
                    f"{path}: has {len(texts.texts)} lines, {reference} has {len(result[0].texts)}; plain texts are "
                    "scored line by line and need the same number."
                )
    return result


def lines(path: _Source) -> Iterator[tuple[int, str]]:
    """Number and text of each line of a UTF-8 file, with or without byte-order mark, without the line's end.

    Raises:
        ScoringError: the file cannot be read, or a line is not UTF-8.
    """
    try:
        with io.BytesIO(path.content) if isinstance(path, _Pipe) else open(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                if number == 1:
                    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                        raise ScoringError(f"{path}: is UTF-16; save it as UTF-8.")
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                if b"\0" in raw:
                    raise ScoringError(f"{path}, line {number}: holds a zero byte, so it is not text; give a text file.")
                try:
                    yield number, raw.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise ScoringError(
                        f"{path}, line {number}: is not UTF-8 (byte 0x{raw[error.start]:02x} at {error.start + 1}); "
                        "convert the file to UTF-8."
                    ) from error
    except IsADirectoryError as error:
        raise ScoringError(f"{path}: is a folder; give a text file.") from error
    except OSError as error:
        raise ScoringError(f"{path}: cannot be read ({error.strerror}); give an existing text file.") from error


def recognise(path: _Source) -> str:
    """The format of a file by its ending, or by its first lines; ``empty`` where neither tells.

    Every line ending in ``(name)`` is trn; nearly every line beginning with something that looks like a name (digits,
    or letters with ``-`` or ``_``) is Kaldi text, as is a file called ``text``; anything else is plain text.

    Raises:
        ScoringError: the file cannot be read.
    """
    name = path.path if isinstance(path, _Pipe) else path
    if known := _BY_ENDING.get(name.suffix.lower()):
        return known
    sample = [line.strip() for _, line in islice(lines(path), _SAMPLE) if line.strip()]
    if not sample:
        return "empty"
    if all(_TRN.match(line) for line in sample):
        return "trn"
    if all(line.startswith("{") and line.endswith("}") for line in sample):
        return "jsonl"
    first = [line.split(maxsplit=1)[0] for line in sample]
    likely = sum(bool(_NAME.fullmatch(word)) for word in first)
    if name.name == "text" or likely >= 0.9 * len(first):
        return "kaldi"
    return "plain"


_TRN = re.compile(r"(.*?)\s*\(([^()]*)\)$", re.DOTALL)
_NAME = re.compile(r"(?=.*[^\W\d])(?=.*[\d_\-]).{2,}|[\d_.\-]{4,}")


class _Collected:
    """Texts by utterance, refusing a name twice."""

    def __init__(self, path: _Source) -> None:
        self.path = path
        self.texts: dict[str, str] = {}
        self.speakers: dict[str, str] = {}
        self._repeated: list[str] = []

    def add(self, number: int, name: str, text: str, speaker: str = "") -> None:
        if not name or name.split() != [name]:
            problem = f"utterance name '{name}' holds a space" if name else "has no utterance name"
            raise ScoringError(f"{self.path}, line {number}: {problem}; give each utterance one name without spaces.")
        if name in self.texts:
            self._repeated.append(f"{name} (line {number})")
        self.texts[name] = text
        if speaker:
            self.speakers[name] = speaker

    def done(self, kind: str) -> Texts:
        if self._repeated:
            more = f" and {len(self._repeated) - 20} more" if len(self._repeated) > 20 else ""
            raise ScoringError(
                f"{self.path}: names utterances more than once: {', '.join(self._repeated[:20])}{more}; keep one line for each."
            )
        return Texts(self.texts, kind, self.speakers)


def _plain(path: _Source) -> Texts:
    return Texts({str(number): text for number, text in lines(path)}, "plain")


def _kaldi(path: _Source) -> Texts:
    found = _Collected(path)
    for number, line in lines(path):
        name, *rest = line.split(maxsplit=1) or [""]
        if name:
            found.add(number, name, rest[0] if rest else "")
    return found.done("kaldi")


def _trn(path: _Source) -> Texts:
    found = _Collected(path)
    for number, line in lines(path):
        line = line.strip()
        if not line or line.startswith(";;"):
            continue
        match = _TRN.match(line)
        if not match:
            raise ScoringError(f"{path}, line {number}: does not end in '(utterance)'; write 'words (utterance)'.")
        if re.search(r"(^|\s)\{.*/.*\}(\s|$)", match[1]):
            raise ScoringError(f"{path}, line {number}: holds alternatives {{ a / b }}; choose one of them.")
        found.add(number, match[2].strip(), match[1])
    return found.done("trn")


def _table(path: _Source, delimiter: str) -> Texts:
    found = _Collected(path)

    def text() -> Iterator[str]:
        for _, line in lines(path):
            yield line + "\n"

    reader = csv.reader(text(), delimiter=delimiter, strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        identifier, content = _column(path, header, _IDENTIFIERS), _column(path, header, _TEXTS)
        speaker = next((header.index(name) for name in _SPEAKERS if name in header), None)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise ScoringError(
                    f"{path}, line {reader.line_num}: has {len(row)} fields, the header has {len(header)}; "
                    "quote fields that hold the separator."
                )
            found.add(reader.line_num, row[identifier].strip(), row[content], row[speaker] if speaker is not None else "")
    except csv.Error as error:
        raise ScoringError(f"{path}, line {reader.line_num}: is not valid csv ({error}); correct it.") from error
    return found.done("csv" if delimiter == "," else "tsv")


def _column(path: _Source, header: list[str], names: tuple[str, ...]) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise ScoringError(
        f"{path}, line 1: has no column named {' or '.join(names[:3])} (it has {', '.join(header)[:200] or 'none'}); "
        "name the columns in the first line."
    )


def _jsonl(path: _Source) -> Texts:
    found = _Collected(path)
    for number, line in lines(path):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ScoringError(f"{path}, line {number}: is not JSON ({error}); write one object a line.") from error
        if not isinstance(entry, dict):
            raise ScoringError(f"{path}, line {number}: is not a JSON object; write one object a line.")
        identifier = next((entry[name] for name in _IDENTIFIERS if name in entry), None)
        text = next((entry[name] for name in _TEXTS if name in entry), None)
        if identifier is None or not isinstance(text, str):
            missing = "an utterance (key 'utterance')" if identifier is None else "a text (key 'text')"
            raise ScoringError(f"{path}, line {number}: has not {missing}; add it.")
        speaker = next((str(entry[name]) for name in _SPEAKERS if name in entry), "")
        if any("\ud800" <= c <= "\udfff" for c in f"{identifier}{text}{speaker}"):
            raise ScoringError(f"{path}, line {number}: holds half a character (a lone surrogate); correct the escape.")
        found.add(number, str(identifier), text, speaker)
    return found.done("jsonl")


def _stm(segments: list[Segment]) -> Texts:
    scored = [segment for segment in segments if not segment.ignored]
    texts = {segment.name: segment.text for segment in scored}
    return Texts(texts, "stm", {segment.name: segment.speaker for segment in scored})


def _timed(path: _Source, kind: str, segments: list[Segment]) -> Texts:
    """A hypothesis for an STM reference."""
    if kind == "stm":
        return _stm(read_stm(path, list(lines(path))))
    if kind == "ctm":
        words: list[Word] = read_ctm(path, list(lines(path)))
        texts, note = assign(path, words, segments)
        return Texts(texts, "ctm", note=note)
    raise ScoringError(f"{path}: reads as {kind}, but an STM reference needs a CTM or STM hypothesis; convert it.")


def _ctm(path: _Source) -> Texts:
    """Without segments to put its words into, one utterance for each recording and channel."""
    texts: dict[str, list[str]] = {}
    for word in sorted(read_ctm(path, list(lines(path))), key=lambda word: word.start):
        texts.setdefault(f"{word.recording}_{word.channel}", []).append(word.text)
    return Texts({name: " ".join(words) for name, words in texts.items()}, "ctm")


_READERS: dict[str, Callable[[_Source], Texts]] = {
    "plain": _plain,
    "kaldi": _kaldi,
    "trn": _trn,
    "csv": lambda path: _table(path, ","),
    "tsv": lambda path: _table(path, "\t"),
    "jsonl": _jsonl,
    "stm": lambda path: _stm(read_stm(path, list(lines(path)))),
    "ctm": _ctm,
}


def read_speakers(path: Path, names: list[str]) -> dict[str, str]:
    """Speaker of each utterance, from Kaldi's ``utt2spk`` (``<utterance> <speaker>``).

    Raises:
        ScoringError: the file cannot be read, a line has not two fields, or an utterance has no speaker.
    """
    speakers: dict[str, str] = {}
    for number, line in lines(path):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2:
            raise ScoringError(f"{path}, line {number}: has {len(fields)} fields; write '<utterance> <speaker>'.")
        speakers[fields[0]] = fields[1]
    absent = [name for name in names if name not in speakers]
    if absent:
        raise ScoringError(f"{path}: names no speaker for {len(absent)} utterances ({', '.join(absent[:20])}); add them.")
    return {name: speakers[name] for name in names}
