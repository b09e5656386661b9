"""Manifests: what preparation writes, what it reports, and how training and evaluation read it back.

A manifest is a lhotse ``CutSet`` in a ``.jsonl.gz`` file: one line per utterance with its recording, transcript and
speaker.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lhotse import CutSet

from asr.corpora import table
from asr.corpora.utterances import Utterance, some, to_cuts
from asr.exceptions import CorpusError


@dataclass(frozen=True)
class Published:
    """What a corpus says about one of its subsets; ``None`` where it does not."""

    utterances: int
    words: int | None = None
    characters: int | None = None


@dataclass(frozen=True)
class Subset:
    """One prepared subset.

    Args:
        hours: of audio.
        words: of the transcripts, as the corpus separates them.
        characters: of the transcripts, without spaces.
        manifest: the file written.
        complete: whether it has all that was published under its name; ``None`` for a name that was not.
        warnings: one sentence each.
    """

    name: str
    utterances: int
    hours: float
    speakers: int
    words: int
    characters: int
    manifest: Path
    complete: bool | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Preparation:
    """What was found in a corpus and written as manifests.

    Args:
        corpus: folder that holds the subsets.
        subsets: in the order of their names.
        warnings: about the corpus as a whole; those about one subset are its own.
    """

    corpus: Path
    subsets: tuple[Subset, ...]
    warnings: tuple[str, ...] = ()


def prepare_subset(
    name: str,
    utterances: Iterable[Utterance],
    output: Path,
    published: Published | None,
    warnings: tuple[str, ...] = (),
) -> Subset:
    """Write ``<output>/<name>.jsonl.gz``, in the order of utterance ids, and count what it holds.

    The file appears whole or not at all.

    Raises:
        CorpusError: audio that cannot be read, or a folder that cannot be written.
    """
    utterances = sorted(utterances, key=lambda utterance: utterance.id)
    cuts = to_cuts(utterances, name)
    manifest = output / f"{name}.jsonl.gz"
    # lhotse chooses the format by the ending, so the temporary name keeps it.
    temporary = output / f".{name}.partial.jsonl.gz"
    try:
        output.mkdir(parents=True, exist_ok=True)
        cuts.to_file(temporary)
        os.replace(temporary, manifest)
    except OSError as error:
        raise CorpusError(f"{manifest}: cannot be written ({error.strerror}); choose another output folder.") from error
    words = sum(utterance.words for utterance in utterances)
    characters = sum(len("".join(utterance.text.split())) for utterance in utterances)
    complete = None
    if published is not None:
        found = {"utterances": len(utterances), "words": words, "characters": characters}
        short = [
            f"{found[unit]:,} {unit} where {expected:,} were published"
            for unit, expected in vars(published).items()
            if expected is not None and expected != found[unit]
        ]
        complete = not short
        if short:
            counts = ", ".join(short)
            warnings = (*warnings, f"{name} is not complete: {counts}; figures on it are not figures on {name}.")
    return Subset(
        name=name,
        utterances=len(utterances),
        hours=sum(cut.duration for cut in cuts) / 3600,
        speakers=len({utterance.speaker for utterance in utterances}),
        words=words,
        characters=characters,
        manifest=manifest,
        complete=complete,
        warnings=warnings,
    )


def load(path: str | Path) -> CutSet:
    """Read a manifest written by preparation, or a csv/jsonl table of one's own (see ``asr.corpora.table``).

    Raises:
        CorpusError: a file that is missing, of another kind, damaged, or empty, or a bad row of a table.
    """
    path = Path(path)
    if not path.is_file():
        raise CorpusError(f"{path}: no such file; give a manifest (.jsonl.gz) or a table (.csv, .jsonl).")
    if path.suffix in table.SUFFIXES:
        return table.read(path)
    if not path.name.endswith(".jsonl.gz"):
        raise CorpusError(f"{path}: is neither a manifest (.jsonl.gz) nor a table (.csv, .jsonl); rename or convert it.")
    try:
        cuts = CutSet.from_cuts(CutSet.from_jsonl_lazy(path))
    # Whatever lhotse stumbles over in a damaged file, the remedy is the same.
    except Exception as error:
        raise CorpusError(f"{path}: is not a readable manifest ({error}); prepare the corpus again.") from error
    if len(cuts) == 0:
        raise CorpusError(f"{path}: holds no utterance; prepare the corpus again.")
    bare = [cut.id for cut in cuts if len(cut.supervisions) != 1 or cut.supervisions[0].text is None]
    if bare:
        raise CorpusError(f"{path}: {len(bare)} cuts do not have one transcript each ({some(bare)}); prepare it again.")
    return cuts


def load_all(paths: Iterable[str | Path]) -> CutSet:
    """Read several manifests or tables as one set.

    Raises:
        CorpusError: as ``load``.
    """
    return CutSet.from_cuts(cut for path in paths for cut in load(path))


def check_pairs(source: str, transcripts: set[str], audio: set[str]) -> None:
    """Check that every transcript has its audio and the reverse.

    Raises:
        CorpusError: names the first ids without a partner, and their number.
    """
    for missing, what in (
        (transcripts - audio, "transcripts have no audio"),
        (audio - transcripts, "audio files have no transcript"),
    ):
        if missing:
            raise CorpusError(f"{source}: {len(missing)} {what} ({some(sorted(missing))}); restore or remove them.")
