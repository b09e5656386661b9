"""From files to files: what ``asr score`` does."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import TextIO, cast

from asr.exceptions import ScoringError
from asr.scoring.alignment import Costs
from asr.scoring.inputs import Texts, read_all, read_speakers
from asr.scoring.page import write_page
from asr.scoring.report import Report, build_report, to_dict
from asr.scoring.summary import AlignmentWriter, summary
from asr.text.mandarin import HAN, is_han

_HAN_SPACE = re.compile(rf"[{HAN}]\s+[{HAN}]")
AUDIO_ENDINGS = (".wav", ".flac", ".opus", ".ogg", ".mp3", ".m4a", ".mp4", ".webm", ".aac")


def score_files(
    reference: Path,
    hypotheses: list[Path],
    *,
    unit: str = "word",
    normalizer: str = "none",
    reference_format: str = "auto",
    hypothesis_format: str = "auto",
    allow_missing: bool = False,
    costs: str = "levenshtein",
    speakers: Path | None = None,
    alignment: Path | None = None,
    page: Path | None = None,
    page_utterances: int = 2000,
    audio: Path | None = None,
    json_file: Path | None = None,
    as_json: bool = False,
    samples: int | None = None,
    seed: int = 0,
) -> str:
    """Score one or two files of hypotheses, write what is asked for, and give the summary.

    Args:
        reference: file of references; see ``asr.scoring.inputs.read_all``.
        hypotheses: one or two files.
        unit: ``word``, ``char`` or ``mixed``.
        normalizer: ``none``, ``basic``, ``english`` or ``mandarin``.
        reference_format: one of ``asr.scoring.inputs.FORMATS`` or ``auto``.
        hypothesis_format: as ``reference_format``.
        allow_missing: score utterances without hypothesis as empty.
        costs: ``levenshtein`` or ``sclite``.
        speakers: file of the utterances' speakers; without it those that the reference names are used.
        alignment: file for the aligned pairs.
        page: file for the HTML report.
        page_utterances: utterances whose alignments the page holds.
        audio: folder of audio for the page, each file named as its utterance.
        json_file: file for all figures.
        as_json: give the figures as JSON instead of the summary.
        samples: sets to draw for each interval.
        seed: of the drawing.

    Returns:
        The summary, or JSON.

    Raises:
        ScoringError: an input cannot be understood or an output not be written.
    """
    inputs = [reference, *hypotheses, *([speakers] if speakers else [])]
    _check_outputs([path for path in (alignment, page, json_file) if path], inputs)
    texts = read_all(reference, hypotheses, reference_format, hypothesis_format)
    references = texts[0].texts
    named = {_name(path, hypotheses, place): texts[place + 1].texts for place, path in enumerate(hypotheses)}
    with _written(alignment) if alignment else nullcontext() as file:
        report = build_report(
            references,
            named,
            unit=unit,
            normalizer=normalizer,
            allow_missing=allow_missing,
            costs=cast(Costs, costs),
            speakers=read_speakers(speakers, list(references)) if speakers else _own_speakers(texts[0]),
            shown=page_utterances if page else 0,
            samples=samples,
            seed=seed,
            observers=[AlignmentWriter(file, list(named))] if file else [],
            notes=[
                *(f"{path}: {held.note}" for path, held in zip(hypotheses, texts[1:], strict=True) if held.note),
                *_advice(references, unit, normalizer),
            ],
            inputs=[(str(path), held.format) for path, held in zip([reference, *hypotheses], texts, strict=True)],
        )
    if page:
        _write(page, lambda file: write_page(file, report, find_audio(audio, report) if audio else {}))
    if json_file:
        _write(json_file, lambda file: json.dump(to_dict(report), file, ensure_ascii=False))
    return json.dumps(to_dict(report), ensure_ascii=False) if as_json else summary(report)


def _name(path: Path, paths: list[Path], place: int) -> str:
    """The file's name as given; the second of two that are the same is told apart."""
    return str(path) if path not in paths[:place] else f"{path} (again)"


def _own_speakers(texts: Texts) -> dict[str, str] | None:
    """The reference's own speakers, where it names one for every utterance."""
    return texts.speakers if texts.speakers and len(texts.speakers) == len(texts.texts) else None


def _advice(references: Mapping[str, str], unit: str, normalizer: str) -> list[str]:
    """What is most likely not meant: Chinese scored in words, or with the spaces of a word segmentation."""
    sample = list(islice(references.values(), 200))
    chinese = [text for text in sample if is_han(text)]
    if 2 * len(chinese) <= len(sample) or normalizer == "mandarin" or unit == "mixed":
        return []
    if unit == "word":
        return ["the references are Chinese: score characters with --unit char --normalizer mandarin"]
    if any(_HAN_SPACE.search(text) for text in chinese):
        return ["spaces between Chinese characters are counted as characters: --normalizer mandarin drops them"]
    return []


def find_audio(folder: Path, report: Report) -> dict[str, Path]:
    """Audio files under a folder whose names without ending are the names of utterances on the page.

    Raises:
        ScoringError: there is no such folder.
    """
    if not folder.is_dir():
        raise ScoringError(f"{folder}: is not a folder; give the folder that holds the audio.")
    wanted = {Path(name).name.rsplit(".", 1)[0] if _is_audio(name) else name: name for name, _ in report.worst}
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if _is_audio(path.name) and path.stem in wanted and path.is_file():
            found.setdefault(wanted[path.stem], path)
    return found


def _is_audio(name: str) -> bool:
    return name.lower().endswith(AUDIO_ENDINGS)


def _check_outputs(outputs: list[Path], inputs: list[Path]) -> None:
    """Find what is wrong with an output before the work and not after it."""
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.is_dir():
            raise ScoringError(f"{path}: is a folder; give a file to write.")
        if path.resolve() in taken:
            raise ScoringError(f"{path}: is an input or another output; give another file to write.")
        taken.add(path.resolve())


@contextmanager
def _written(path: Path) -> Iterator[TextIO]:
    """A file that takes its name only when it is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise ScoringError(f"{path}: cannot be written ({error.strerror}); check folder and space.") from error
    finally:
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)


def _write(path: Path, fill: Callable[[TextIO], object]) -> None:
    with _written(path) as file:
        fill(file)
