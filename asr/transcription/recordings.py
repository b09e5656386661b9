"""What there is to transcribe: files, folders, patterns and standard input, and where the output of each goes."""

from __future__ import annotations

import glob
import shutil
import time
import wave
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from asr.audio.files import AUDIO_SUFFIXES, SAMPLE_RATE
from asr.exceptions import AudioError

STANDARD_INPUT = "-"
# First bytes of what is a sound file; anything else on standard input is samples without a header.
_MAGIC = (b"RIFF", b"RF64", b"riff", b"FORM", b"fLaC", b"OggS", b"ID3", b".snd", b"caff", b"\x1aE\xdf\xa3", b"#!AMR")
_MAGIC_MP3 = (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"\xff\xf9")  # MP3 and AAC without a tag before them


@dataclass(frozen=True)
class Recording:
    """One voice track to be transcribed.

    Attributes:
        path: the file.
        channel: index of a channel; None averages all.
        track: which of a video's audio tracks.
        speaker: name that its segments get, where channels are speakers.
    """

    path: Path
    channel: int | None = None
    track: int = 0
    speaker: str | None = None


def find(paths: Iterable[str | Path]) -> list[tuple[Path, Path]]:
    """Audio files under the given paths, each with the path that its output takes below the output folder.

    A folder is searched recursively and its sub-folders stay apart. A pattern as ``talks/*.mp3`` or ``**/*.wav`` that no
    file is named like is matched here, for shells that do not. Files whose output would have the same name, as ``a.wav``
    and ``a.mp3``, keep their suffix in it.

    Raises:
        AudioError: a folder has no audio, or nothing matches a pattern. A file that is missing is found out when it is
            read.
    """
    found: list[tuple[Path, Path]] = []
    for path in (each for given in paths for each in _matches(given)):
        if path.is_dir():
            inside = audio_inside(path)
            if not inside:
                raise AudioError(f"{path}: holds no audio file; give a folder with audio, or a file.")
            found += [(each, each.relative_to(path).with_suffix("")) for each in inside]
        else:
            found.append((path, Path(path.stem)))
    found = list(dict.fromkeys(found))
    names = [name for _, name in found]
    full = [
        (path, name.with_name(name.name + path.suffix) if names.count(name) > 1 and path.suffix else name) for path, name in found
    ]
    names = [name for _, name in full]
    # Equal names of different folders, given one by one, are kept apart by their folder's name.
    return [(path, Path(path.parent.name) / name if names.count(name) > 1 else name) for path, name in full]


def audio_inside(folder: Path) -> list[Path]:
    """Audio files in a folder and its sub-folders, by their suffix; hidden ones are left out."""
    inside = (each for each in folder.rglob("*") if each.suffix.lower() in AUDIO_SUFFIXES and not each.name.startswith("."))
    return sorted(each for each in inside if each.is_file())


def _matches(given: str | Path) -> list[Path]:
    text = str(given)
    if not glob.has_magic(text) or Path(text).exists():
        return [Path(given)]
    matches = sorted(Path(each) for each in glob.glob(text, recursive=True))
    if not matches:
        raise AudioError(f"{given}: matches no file; check the pattern.")
    return matches


@contextmanager
def spooled(source: BinaryIO, rate: int = SAMPLE_RATE) -> Iterator[Path]:
    """Standard input as a temporary file, so that it is read like any other and memory does not grow with it.

    A sound file of any kind, or samples without a header: 16 bit, little-endian, mono, at ``rate`` Hz.

    Raises:
        AudioError: nothing came, or the temporary folder is full.
    """
    with TemporaryDirectory(prefix="asr-") as folder:
        path = Path(folder) / "standard-input"
        try:
            _spool(source, path, rate)
        except OSError as error:
            raise AudioError(f"standard input: cannot be kept in {folder} ({error.strerror}); make room there.") from error
        yield path


def _spool(source: BinaryIO, path: Path, rate: int) -> None:
    start = source.read(12)
    if not start:
        raise AudioError("standard input: is empty; pipe a sound file or samples into it.")
    if start.startswith(_MAGIC) or start.startswith(_MAGIC_MP3) or start[4:8] == b"ftyp":
        with path.open("wb") as file:
            file.write(start)
            shutil.copyfileobj(source, file)
        return
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        rest = start
        while chunk := source.read(1 << 20):
            rest += chunk
            whole = len(rest) // 2 * 2
            writer.writeframesraw(rest[:whole])
            rest = rest[whole:]
        writer.writeframes(rest[: len(rest) // 2 * 2])


def watch(folder: Path, poll: float = 1.0, sleep: Callable[[float], None] = time.sleep) -> Iterator[list[Path]]:
    """Audio files that appear in a folder, as soon as they no longer grow; those that are there already come first.

    Yields after each look, also an empty list, so that the caller can stop. A file that is replaced comes again.

    Raises:
        AudioError: the folder is none.
    """
    if not folder.is_dir():
        raise AudioError(f"{folder}: is not a folder; give one to watch.")
    done: dict[Path, tuple[int, int]] = {}
    before: dict[Path, tuple[int, int]] = {}
    while True:
        now: dict[Path, tuple[int, int]] = {}
        for path in audio_inside(folder):
            try:
                status = path.stat()
            except OSError:
                continue  # it is gone again
            now[path] = (status.st_size, status.st_mtime_ns)
        ready = [path for path, state in now.items() if done.get(path) != state and before.get(path) == state]
        done.update((path, now[path]) for path in ready)
        before = now
        yield ready
        sleep(poll)
