"""Where transcripts go: the files that are meant, and txt or json beside each other in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from asr.audio.files import AUDIO_SUFFIXES
from asr.exceptions import AudioError
from asr.transcription.transcriber import Transcript

Format = Literal["txt", "json"]


def find(paths: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Audio files under the given paths, each with the path that its output takes below the output folder.

    A folder is searched recursively and its sub-folders stay apart. Files whose output would have the same name, as
    ``a.wav`` and ``a.mp3``, keep their suffix in it.

    Raises:
        AudioError: a folder has no audio. A file that is missing is found out when it is read.
    """
    found: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in AUDIO_SUFFIXES and each.is_file())
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


def render(transcript: Transcript, format: Format) -> str:
    """A transcript as text, or as JSON with its segments."""
    if format == "txt":
        return transcript.text + "\n"
    content = {
        "path": str(transcript.path),
        "text": transcript.text,
        "duration": round(transcript.duration, 3),
        "segments": [
            {
                "start": round(segment.start, 3),
                "end": round(segment.end, 3),
                "text": segment.hypothesis.text,
                "finish_reason": segment.hypothesis.finish_reason,
                "score": round(segment.hypothesis.score, 4),
            }
            for segment in transcript.segments
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def write(transcript: Transcript, output: Path, format: Format) -> Path:
    """Write a transcript to ``output`` with the format's suffix, whole or not at all.

    Raises:
        AudioError: the place cannot be written to.
    """
    target = output.with_name(f"{output.name}.{format}")
    temporary = target.with_name(f".{target.name}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(render(transcript, format), encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        raise AudioError(f"{target}: cannot be written ({error.strerror}); give another --output-dir.") from error
    return target
