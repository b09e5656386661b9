"""A manifest in which a model's texts stand in place of the transcripts, for another model to learn from.

Parallel decoding suffers where several answers are good, since each position may choose another. What one model writes is
more regular than what people say, so that a non-autoregressive decoder learns more easily from it (sequence-level
distillation, Kim and Rush 2016; Gu et al. 2018, section 3.4).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.utils import fastcopy

from asr.audio import files
from asr.corpora import manifests
from asr.exceptions import AudioError, ConfigurationError, CorpusError
from asr.search.language import prompt
from asr.search.options import DecodingOptions
from asr.text.normalization import of_language
from asr.transcription.transcriber import Transcriber, load


@dataclass(frozen=True)
class Distillation:
    """What was written, and what was left out.

    Attributes:
        manifest: the file.
        written: utterances in it.
        changed: of these, with another text than the transcript as scoring compares them, without capitals and marks.
        empty: utterances left out because the model wrote nothing.
        unfinished: left out because a bound or repetition ended the text.
        failures: one for each file that could not be read.
    """

    manifest: Path
    written: int
    changed: int
    empty: int
    unfinished: int
    failures: tuple[AudioError, ...]


def asked_for(transcriber: Transcriber, language: str) -> DecodingOptions:
    """The options of a transcriber with another language; what a model of one language brings along for its search stays at home.

    Raises:
        ConfigurationError: the model has no token for it, or the decoder that writes is not asked for a language.
    """
    options = replace(transcriber.options, prompt=prompt(transcriber.checkpoint, language))
    if options.decoder not in ("autoregressive", "joint", "rescoring"):
        raise ConfigurationError(
            f"decoder '{options.decoder}' cannot be asked for a language; leave out --language or --decoder."
        )
    if transcriber.checkpoint.model.configuration.language in ("multilingual", language):
        return options
    return replace(options, language_model=None, language_model_weight=0.0, length_bonus=0.0, stop_threshold=None)


def distill(
    model: str,
    manifest: Path,
    output: Path,
    *,
    options: DecodingOptions | None = None,
    batch_size: int = 16,
    device: str = "auto",
    language: str | None = None,
) -> Distillation:
    """Decode a manifest and write it with the hypotheses as its texts; a transcript stays as ``custom['transcript']``.

    Args:
        model: embedded model or checkpoint folder, the teacher.
        manifest: manifest or csv/jsonl table.
        output: ends in ``.jsonl.gz``; appears whole or not at all.
        options: which part of the model writes the text, and how it is searched.
        language: asks a model that has tokens of languages for this one, also where it was made for another; the manifest
            says so of each utterance.

    Raises:
        CorpusError: the manifest cannot be read, the output not be written, or no utterance is left.
        CheckpointError, ConfigurationError: as ``load``, or the model has no token for the language.
    """
    if not output.name.endswith(".jsonl.gz"):
        raise CorpusError(f"{output}: is not the name of a manifest; end it in .jsonl.gz.")
    cuts = sorted(manifests.load(manifest), key=lambda cut: float(cut.duration))
    transcriber = load(model, device, options, batch_size)
    own = transcriber.checkpoint.model.configuration.language
    if language is not None:
        transcriber.options = asked_for(transcriber, language)
    normal = of_language(language or own)
    written: list[Cut] = []
    changed = empty = unfinished = 0
    failures: list[AudioError] = []
    for first in range(0, len(cuts), batch_size):
        group, samples = [], []
        for cut in cuts[first : first + batch_size]:
            try:
                samples.append(files.read(cut.recording.sources[0].source, cut.start, cut.duration))
                group.append(cut)
            except AudioError as error:
                failures.append(error)
        for cut, found in zip(group, transcriber.decode(samples) if group else [], strict=True):
            if found.finish_reason != "stop":
                unfinished += 1
            elif not found.text:
                empty += 1
            else:
                (supervision,) = cut.supervisions
                changed += normal(found.text) != normal(supervision.text or "")
                custom = {**(supervision.custom or {}), "transcript": supervision.text}
                heard = language or supervision.language
                taught = fastcopy(supervision, text=found.text, language=heard, custom=custom)
                written.append(fastcopy(cut, supervisions=[taught]))
    if not written:
        raise CorpusError(f"{manifest}: the model wrote no text for any utterance; use another model or manifest.")
    temporary = output.with_name(f".partial-{output.name}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        CutSet.from_cuts(sorted(written, key=lambda cut: str(cut.id))).to_file(temporary)
        os.replace(temporary, output)
    except OSError as error:
        raise CorpusError(f"{output}: cannot be written ({error.strerror}); choose another output.") from error
    return Distillation(output, len(written), changed, empty, unfinished, tuple(failures))
