"""A training set with readable text: transcribed by a model, whose capitals and punctuation its own words then get."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from asr.audio import files
from asr.corpora import manifests
from asr.exceptions import CorpusError
from asr.text.readable import restore
from asr.transcription.transcriber import Transcriber


def write_table(
    transcriber: Transcriber,
    sources: Sequence[Path],
    output: Path,
    on_progress: Callable[[float], None] = lambda _: None,
) -> int:
    """Write a jsonl table of ``audio, text, id, speaker`` that ``asr train`` reads; the table is whole or not there.

    Args:
        sources: manifests or tables of English speech with its transcripts, one utterance a file.
        output: the table.
        on_progress: told seconds of audio as they are done.

    Returns:
        Number of utterances.

    Raises:
        AsrError: a manifest or an audio file cannot be used, or the table cannot be written.
    """
    cuts = sorted(manifests.load_all(sources), key=lambda cut: float(cut.duration))
    for cut in cuts:
        if cut.start or abs(cut.duration - cut.recording.duration) > 0.01:
            raise CorpusError(f"{cut.id}: is a part of a recording, which a table cannot say; cut the audio first.")
    unfinished = output.with_name(f".{output.name}.unfinished")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", encoding="utf-8") as table:
            for first in range(0, len(cuts), transcriber.batch_size):
                group = cuts[first : first + transcriber.batch_size]
                paths = [str(cut.recording.sources[0].source) for cut in group]
                found = transcriber.decode([files.read(path) for path in paths])
                for cut, path, hypothesis in zip(group, paths, found, strict=True):
                    spoken = cut.supervisions[0]
                    row = {"audio": path, "text": restore(spoken.text or "", hypothesis.text)}
                    row |= {"id": spoken.id, "speaker": spoken.speaker or ""}
                    table.write(json.dumps(row, ensure_ascii=False) + "\n")
                on_progress(sum(float(cut.duration) for cut in group))
        unfinished.replace(output)
    except OSError as error:
        raise CorpusError(f"{output}: cannot be written ({error.strerror}); give another --output.") from error
    return len(cuts)
