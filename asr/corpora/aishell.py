"""AISHELL-1: 178 hours of read Mandarin in its own folder layout.

H. Bu, J. Du, X. Na, B. Wu, H. Zheng, "AISHELL-1: an open-source Mandarin speech corpus and a speech recognition
baseline", O-COCOSDA 2017; OpenSLR 33.
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from pathlib import Path

from lhotse.recipes.aishell import download_aishell

from asr.corpora.manifests import Preparation, Published, check_pairs, prepare_subset
from asr.corpora.utterances import Utterance, find_audio, some
from asr.exceptions import CorpusError

PUBLISHED = {
    "train": Published(120_098),
    "dev": Published(14_326, characters=205_341),
    "test": Published(7_176, characters=104_765),
}
TRANSCRIPT = Path("transcript", "aishell_transcript_v0.8.txt")
OPENSLR = "http://www.openslr.org/resources"

# Of A-Z and a-z, in half and full width.
_LATIN = "A-Za-zＡ-Ｚａ-ｚ"
_SPACE = re.compile(rf"(?<![{_LATIN}]) | (?![{_LATIN}])")


def prepare(corpus: Path, output: Path, download: bool = False) -> Preparation:
    """Write a manifest for each of train, dev and test that is there, after checking transcripts against audio.

    Expects ``wav/<subset>/<speaker>/<utterance>.wav`` (or ``.flac``, ``.opus``) and the transcript file, in which
    words are separated by spaces; the manifests' texts have spaces between Latin words only. (lhotse's own preparation
    reads only ``.wav`` and passes over what has no partner.)

    The published archive holds some recordings that were never transcribed: with a subset that has all its published
    utterances they are a warning. Where a subset is missing, so are its transcripts' recordings: transcripts of
    speakers of whom there is nothing are then a warning, too.

    Args:
        corpus: the folder ``data_aishell``, or the one that contains it.
        output: where ``train.jsonl.gz``, ``dev.jsonl.gz`` and ``test.jsonl.gz`` are written.
        download: first fetch the official archive, unless a copy is there.

    Raises:
        CorpusError: no subset or transcript found, a transcript without audio or the reverse, an utterance given twice,
            audio that cannot be read, a download that fails.
    """
    if download:
        fetch(corpus)
    root = _root(corpus)
    transcripts = _transcripts(root / TRANSCRIPT)
    audio = {name: find_audio(root / "wav" / name, "*/*") for name in PUBLISHED if (root / "wav" / name).is_dir()}
    occurrences = Counter(identifier for files in audio.values() for identifier in files)
    repeated = sorted(identifier for identifier, times in occurrences.items() if times > 1)
    if repeated:
        raise CorpusError(f"{root}: {len(repeated)} utterances are in two subsets ({some(repeated)}); keep one of each.")
    warnings: tuple[str, ...] = ()
    if len(audio) < len(PUBLISHED):
        heard = {path.parent.name for files in audio.values() for path in files.values()}
        unheard = {key for key in transcripts if key not in occurrences and _speaker(key) not in heard}
        if unheard:
            transcripts = {key: text for key, text in transcripts.items() if key not in unheard}
            missing = " and ".join(sorted(set(PUBLISHED) - set(audio)))
            warnings = (f"{len(unheard)} transcripts are of speakers without recordings; there is no {missing}.",)
    left_out: dict[str, tuple[str, ...]] = {}
    for name, files in audio.items():
        surplus = sorted(files.keys() - transcripts.keys())
        if surplus and len(files) - len(surplus) == PUBLISHED[name].utterances:
            left_out[name] = (f"{name}: {len(surplus)} recordings without transcript are left out ({some(surplus)}).",)
            audio[name] = {key: path for key, path in files.items() if key in transcripts}
    check_pairs(str(root), set(transcripts), {key for files in audio.values() for key in files})
    subsets = []
    for name, files in sorted(audio.items()):
        utterances = [
            Utterance(key, path, join_words(transcripts[key]), path.parent.name, len(transcripts[key].split()))
            for key, path in files.items()
        ]
        subsets.append(prepare_subset(name, utterances, output, PUBLISHED[name], left_out.get(name, ())))
    return Preparation(root, tuple(subsets), warnings)


def join_words(text: str) -> str:
    """Remove the spaces between words, except where Latin letters are on both sides."""
    return _SPACE.sub("", " ".join(text.split()))


def fetch(corpus: Path, base_url: str = OPENSLR) -> None:
    """Fetch and unpack the official archive (15 GB) into ``<corpus>/aishell/data_aishell``.

    A download cut short goes on where it stopped. A copy that was not unpacked by an earlier call is left as it is, and
    nothing is fetched.

    Args:
        base_url: OpenSLR or a mirror of it.

    Raises:
        CorpusError: a download or archive that fails.
    """
    # lhotse deletes and unpacks anew a folder that it did not mark as completed: somebody's own copy must not go.
    if not (corpus / "data_aishell.tgz").is_file() and any((root / "wav").is_dir() for root in _roots(corpus)):
        return
    try:
        download_aishell(corpus, base_url=base_url)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise CorpusError(f"AISHELL-1 from {base_url}: download failed ({error}); run the command again.") from error


def _roots(corpus: Path) -> tuple[Path, ...]:
    return (corpus, corpus / "data_aishell", corpus / "aishell" / "data_aishell")


def _root(corpus: Path) -> Path:
    for root in _roots(corpus):
        if any((root / "wav" / name).is_dir() for name in PUBLISHED):
            return root
    raise CorpusError(
        f"{corpus}: holds no wav/train, wav/dev or wav/test; give the folder data_aishell (with its inner archives "
        "unpacked) or the one that contains it, or download it."
    )


def _transcripts(file: Path) -> dict[str, str]:
    """Transcripts with their words separated by single spaces."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{file}: cannot be read ({error}); restore it from the archive.") from error
    transcripts: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        identifier, *words = line.split()
        if not words:
            raise CorpusError(f"{file}, line {number}: utterance {identifier} has no text; restore the file.")
        if identifier in transcripts:
            raise CorpusError(f"{file}, line {number}: utterance {identifier} is there twice; keep one of them.")
        transcripts[identifier] = " ".join(words)
    return transcripts


def _speaker(identifier: str) -> str:
    """``S0150`` of ``BAC009S0150W0001``."""
    match = re.search(r"S\d{4}(?=W)", identifier)
    return match.group() if match else ""
