"""LibriSpeech: a thousand hours of read English in its own folder layout.

V. Panayotov, G. Chen, D. Povey, S. Khudanpur, "LibriSpeech: an ASR corpus based on public domain audio books", ICASSP
2015; OpenSLR 12, and OpenSLR 31 (Mini LibriSpeech).
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from lhotse.recipes.librispeech import LIBRISPEECH, MINI_LIBRISPEECH, download_librispeech

from asr.corpora.manifests import Preparation, Published, check_pairs, prepare_subset
from asr.corpora.utterances import Utterance, find_audio, some
from asr.exceptions import CorpusError

PUBLISHED = {
    "dev-clean": Published(2_703, 54_402),
    "dev-other": Published(2_864, 50_948),
    "test-clean": Published(2_620, 52_576),
    "test-other": Published(2_939, 52_343),
    "train-clean-100": Published(28_539),
    "train-clean-360": Published(104_014),
    "train-other-500": Published(148_688),
    "train-clean-5": Published(1_519),
    "dev-clean-2": Published(1_089),
}
OPENSLR = "http://www.openslr.org/resources"


def prepare(corpus: Path, output: Path, download: bool = False, subsets: Sequence[str] = ()) -> Preparation:
    """Write a manifest for every subset found, after checking that transcripts and audio belong together.

    A subset is a folder with ``<speaker>/<chapter>/<speaker>-<chapter>.trans.txt`` and the audio beside, as ``.flac``,
    ``.wav`` or ``.opus``. (lhotse's own preparation reads only ``.flac`` and skips a transcript without audio.)

    Args:
        corpus: the folder ``LibriSpeech``, or the one that contains it.
        output: where ``<subset>.jsonl.gz`` are written.
        download: first fetch the official subsets that are not there.
        subsets: names to which all this is restricted; none means every one.

    Raises:
        CorpusError: no subset or not the named one found, a transcript without audio or the reverse, an utterance given
            twice, audio that cannot be read, a download that fails.
    """
    if download:
        fetch(corpus, subsets or LIBRISPEECH)
    root = _root(corpus)
    folders = [folder for folder in _subsets(root) if not subsets or folder.name in subsets]
    missing = sorted(set(subsets) - {folder.name for folder in folders})
    if missing:
        raise CorpusError(f"{root}: has no subset {some(missing)}; choose from those there, or download it.")
    return Preparation(
        root,
        tuple(prepare_subset(folder.name, _utterances(folder), output, PUBLISHED.get(folder.name)) for folder in folders),
    )


def fetch(corpus: Path, subsets: Sequence[str] = LIBRISPEECH, base_url: str = OPENSLR) -> None:
    """Fetch and unpack official subsets into ``<corpus>/LibriSpeech`` (all seven: 60 GB of archives).

    A download cut short goes on where it stopped. A subset folder that is there but was not unpacked by an earlier
    call is left as it is.

    Args:
        corpus: the folder ``LibriSpeech``, or the one that contains it or shall contain it.
        subsets: official names, Mini LibriSpeech's included.
        base_url: OpenSLR or a mirror of it.

    Raises:
        CorpusError: an unknown subset, or a download or archive that fails.
    """
    unknown = [name for name in subsets if name not in (*LIBRISPEECH, *MINI_LIBRISPEECH)]
    if unknown:
        raise CorpusError(f"LibriSpeech has no subset {some(unknown)}; choose from {', '.join(PUBLISHED)}.")
    target = corpus.parent if corpus.name == "LibriSpeech" else corpus
    # lhotse deletes and unpacks anew a folder that it did not mark as completed: somebody's own copy must not go.
    wanted = [name for name in subsets if not (target / "LibriSpeech" / name).is_dir() or (target / f"{name}.tar.gz").is_file()]
    try:
        download_librispeech(target, dataset_parts=wanted, base_url=base_url)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise CorpusError(f"LibriSpeech from {base_url}: download failed ({error}); run the command again.") from error


def _root(corpus: Path) -> Path:
    for folder in (corpus, corpus / "LibriSpeech"):
        if folder.is_dir() and _subsets(folder):
            return folder
    raise CorpusError(
        f"{corpus}: holds no LibriSpeech subset (<subset>/<speaker>/<chapter>/*.trans.txt); "
        "give the folder LibriSpeech or the one that contains it, or download it."
    )


def _subsets(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and any(path.glob("*/*/*.trans.txt")))


def _utterances(subset: Path) -> list[Utterance]:
    texts: dict[str, str] = {}
    repeated: list[str] = []
    for file in sorted(subset.glob("*/*/*.trans.txt")):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CorpusError(f"{file}: cannot be read ({error}); restore it from the archive.") from error
        for number, line in enumerate(lines, start=1):
            identifier, _, text = line.strip().partition(" ")
            if not text.strip():
                raise CorpusError(f"{file}, line {number}: is not '<utterance> <TRANSCRIPT>'; restore the file.")
            if identifier in texts:
                repeated.append(identifier)
            texts[identifier] = " ".join(text.split())
    if repeated:
        raise CorpusError(f"{subset}: {len(repeated)} utterances have two transcripts ({some(repeated)}); keep one each.")
    audio = find_audio(subset, "*/*/*")
    check_pairs(str(subset), set(texts), set(audio))
    return [
        Utterance(identifier, audio[identifier], text, identifier.partition("-")[0], len(text.split()))
        for identifier, text in texts.items()
    ]
