"""HSK words: single Mandarin words of the HSK lists, read by one speaker (Yue Tan, in the ``audio-cmn`` collection, CC BY-SA)."""

from __future__ import annotations

from pathlib import Path

from asr.corpora.manifests import Preparation, check_pairs, prepare_subset
from asr.corpora.utterances import Utterance, find_audio
from asr.exceptions import CorpusError

SPEAKER = "yue-tan"


def prepare(corpus: Path, output: Path) -> Preparation:
    """Write ``train.jsonl.gz``; there is no other subset.

    Expects ``audio/<utterance>.opus`` (or ``.flac``, ``.wav``) and a file ``text`` of ``<utterance> <word>`` lines.
    Patterns with gaps, such as ``从_到_``, are left out: how the gap was read is not written.

    Raises:
        CorpusError: the file is missing or damaged, a word without audio or the reverse, audio that cannot be read.
    """
    file = corpus / "text"
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{file}: cannot be read ({error}); give the folder that holds 'text' and 'audio'.") from error
    words: dict[str, str] = {}
    for number, fields in enumerate(lines, start=1):
        if len(fields) != 2 or fields[0] in words:
            raise CorpusError(f"{file}, line {number}: is not one new '<utterance> <word>'; correct the line.")
        words[fields[0]] = fields[1]
    audio = find_audio(corpus / "audio", "*")
    check_pairs(str(corpus), set(words), set(audio))
    spoken = {identifier: word for identifier, word in words.items() if "_" not in word}
    gaps = len(words) - len(spoken)
    warnings = (f"{gaps} patterns with gaps are left out.",) if gaps else ()
    utterances = [Utterance(identifier, audio[identifier], word, SPEAKER, 1) for identifier, word in spoken.items()]
    return Preparation(corpus, (prepare_subset("train", utterances, output, None, warnings),))
