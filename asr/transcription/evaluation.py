"""Decode a manifest, score it, and keep what is needed to believe the figure."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from asr.audio import files
from asr.corpora import manifests
from asr.exceptions import AsrError
from asr.scoring.errors import Score, count
from asr.scoring.results import ResultsRow, write_row
from asr.scoring.significance import bootstrap
from asr.search.hypothesis import Hypothesis
from asr.search.options import DecodingOptions
from asr.transcription.transcriber import Transcriber, load


def evaluate(
    model: str,
    manifest: Path,
    output: Path,
    *,
    options: DecodingOptions | None = None,
    unit: str = "word",
    normalizer: str = "english",
    batch_size: int = 16,
    device: str = "auto",
    precision: str = "auto",
    readme: Path | None = None,
    command: str = "",
) -> str:
    """Decode and score; ``output`` gets ``ref.txt``, ``hyp.txt`` (Kaldi text) and the results row in ``README.md``.

    Utterances go to the recogniser whole, batched by length.

    Args:
        readme: results table that gets the row instead of ``output``'s.
        command: what the row says measures it again.

    Returns:
        The figures in one line.

    Raises:
        AsrError: the model, the manifest or an audio file cannot be used; nothing is scored then, since a score
            without some utterances is not that of the set.
    """
    transcriber = load(model, device, options, batch_size, precision=precision)
    cuts = sorted(manifests.load(manifest), key=lambda cut: float(cut.duration))
    references = {cut.supervisions[0].id: cut.supervisions[0].text or "" for cut in cuts}
    # Now and not after an hour of decoding.
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AsrError(f"{output}: cannot be made ({error.strerror}); choose another output folder.") from error
    hypotheses: dict[str, Hypothesis] = {}
    computing = 0.0
    for first in range(0, len(cuts), batch_size):
        group = cuts[first : first + batch_size]
        samples = [files.read(cut.recording.sources[0].source, cut.start, cut.duration) for cut in group]
        began = time.perf_counter()
        found = transcriber.decode(samples)
        computing += time.perf_counter() - began
        hypotheses.update((cut.supervisions[0].id, each) for cut, each in zip(group, found, strict=True))
    seconds = sum(float(cut.duration) for cut in cuts)
    texts = {utterance: hypothesis.text for utterance, hypothesis in hypotheses.items()}
    score = count(references, texts, unit=unit, normalizer=normalizer)
    for name, lines in (("ref.txt", references), ("hyp.txt", texts)):
        content = "".join(f"{utterance} {lines[utterance]}".rstrip() + "\n" for utterance in sorted(lines))
        (output / name).write_text(content, encoding="utf-8")
    row = _row(score, transcriber, model, manifest, computing / seconds, command)
    write_row(readme or output / "README.md", row)
    bounded = sum(hypothesis.finish_reason != "stop" for hypothesis in hypotheses.values())
    low, high = row.interval or (0.0, 0.0)
    return (
        f"{score.rate_name} {100 * score.rate:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f}), "
        f"{row.substitutions} substitutions, {row.deletions} deletions, {row.insertions} insertions, "
        f"{row.reference_length} {unit}s, {len(references)} utterances, real-time factor {computing / seconds:.4f}, "
        f"{bounded} ended by a bound"
    )


def _row(score: Score, transcriber: Transcriber, model: str, manifest: Path, real_time_factor: float, command: str) -> ResultsRow:
    table = score.utterances.table
    interval = bootstrap(table[:, 1:].sum(axis=1), table[:, :3].sum(axis=1))
    return ResultsRow.from_score(
        score,
        data_set=manifest.name.removesuffix(".jsonl.gz"),
        model=Path(model).name,
        decoder=f"{transcriber.options.describe()}, batch {transcriber.batch_size}, {transcriber.checkpoint.precision}",
        interval=(interval.low, interval.high),
        real_time_factor=real_time_factor,
        parameters=sum(transcriber.checkpoint.model.parameter_counts().values()),
        commit=_commit(),
        command=command,
    )


def _commit() -> str:
    """Revision of the program, where it runs from a checkout."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()
