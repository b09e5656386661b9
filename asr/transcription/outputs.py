"""Transcripts on disk: a file for each format, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from asr.exceptions import AudioError
from asr.transcription.formats import SUFFIXES, render
from asr.transcription.transcript import Transcript


def targets(output: Path, formats: Iterable[str]) -> list[Path]:
    """Files that a recording's transcript becomes; ``output`` is the path without suffix."""
    return [output.with_name(f"{output.name}.{SUFFIXES[format]}") for format in formats]


def is_done(recording: Path, files: Iterable[Path]) -> bool:
    """Whether all of the files are there and none is older than the recording."""
    try:
        changed = recording.stat().st_mtime_ns
        return all(file.stat().st_mtime_ns >= changed for file in files)
    except OSError:
        return False


def check_folder(folder: Path) -> None:
    """Find out before the work whether a folder can be written to.

    Raises:
        AudioError: it is a file, or not permitted.
    """
    if folder.exists() and not folder.is_dir():
        raise AudioError(f"{folder}: is a file; give a folder as --output-dir.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioError(f"{folder}: cannot be made ({error.strerror}); give another --output-dir.") from error


def write(transcript: Transcript, output: Path, formats: Iterable[str]) -> list[Path]:
    """Write a transcript in each format; a file appears under its name only when it is complete.

    Raises:
        AudioError: the place cannot be written to.
    """
    formats = tuple(formats)
    written = targets(output, formats)
    for target, format in zip(written, formats, strict=True):
        temporary = target.with_name(f".{target.name}.unfinished")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(render(transcript, format), encoding="utf-8")
            temporary.replace(target)
        except OSError as error:
            raise AudioError(f"{target}: cannot be written ({error.strerror}); give another --output-dir.") from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    return written
