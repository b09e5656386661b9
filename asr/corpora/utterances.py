"""One transcribed recording, and its lhotse cut: what every corpus is read into."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lhotse import CutSet, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.cut import MonoCut

from asr.audio.files import AudioInformation, inspect
from asr.exceptions import AudioError, CorpusError

AUDIO_SUFFIXES = (".flac", ".wav", ".opus")
"""The endings that audio of a corpus in a published folder layout may have."""


@dataclass(frozen=True)
class Utterance:
    """A recording with its transcript.

    Args:
        id: unique within its subset.
        audio: file that holds this utterance and nothing else.
        text: the transcript.
        speaker: as the corpus names the speaker; empty where it does not say.
        words: words of the transcript as the corpus separates them.
        language: code of what is spoken; empty where the corpus does not say.
    """

    id: str
    audio: Path
    text: str
    speaker: str
    words: int
    language: str = ""


def to_cuts(utterances: Iterable[Utterance], source: str) -> CutSet:
    """Read the audio headers and build one cut with one supervision for each utterance, in the order given.

    The sampling rate is that of the original recording, also of Opus, for which FFmpeg would say 48 kHz; lhotse's own
    reading of headers is therefore not used.

    Args:
        source: what the utterances come from, for messages.

    Raises:
        CorpusError: audio that cannot be read or holds no sample.
    """
    utterances = list(utterances)
    with ThreadPoolExecutor(8) as pool:
        headers = list(pool.map(_header, [utterance.audio for utterance in utterances]))
    broken = [str(header) for header in headers if isinstance(header, AudioError)]
    if broken:
        raise CorpusError(f"{source}: {len(broken)} audio files cannot be used; restore or remove them: {some(broken)}")
    return CutSet.from_cuts(
        _cut(utterance, header)
        for utterance, header in zip(utterances, headers, strict=True)
        if isinstance(header, AudioInformation)
    )


def find_audio(folder: Path, pattern: str) -> dict[str, Path]:
    """Audio files below a folder by utterance id, which is the file name without its ending.

    Raises:
        CorpusError: an utterance is there twice.
    """
    found: dict[str, Path] = {}
    repeated: list[str] = []
    for path in sorted(folder.glob(pattern)):
        # Some systems leave a hidden companion beside each file.
        if path.suffix.lower() not in AUDIO_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            repeated.append(path.stem)
        found[path.stem] = path
    if repeated:
        raise CorpusError(f"{folder}: {len(repeated)} utterances are there twice ({some(repeated)}); keep one of each.")
    return found


def some(items: Sequence[str], limit: int = 5) -> str:
    """The first few of a list, and how many more there are."""
    shown = ", ".join(items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown


def _header(audio: Path) -> AudioInformation | AudioError:
    try:
        return inspect(audio)
    except AudioError as error:
        return error


def _cut(utterance: Utterance, header: AudioInformation) -> MonoCut:
    channels = list(range(header.channels))
    recording = Recording(
        id=utterance.id,
        sources=[AudioSource(type="file", channels=channels, source=str(utterance.audio.absolute()))],
        sampling_rate=header.sample_rate,
        num_samples=round(header.duration * header.sample_rate),
        duration=header.duration,
        channel_ids=channels,
    )
    supervision = SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.id,
        start=0.0,
        duration=header.duration,
        text=utterance.text,
        speaker=utterance.speaker or None,
        language=utterance.language or None,
    )
    return MonoCut(
        id=utterance.id, start=0.0, duration=header.duration, channel=0, recording=recording, supervisions=[supervision]
    )
