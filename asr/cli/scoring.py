"""``asr score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli.root import app


@app.command()
def score(
    reference: Annotated[Path, typer.Argument(help="Reference texts.", show_default=False)],
    hypothesis: Annotated[Path, typer.Argument(help="Hypotheses of a system.", show_default=False)],
    hypothesis_b: Annotated[
        Path | None, typer.Argument(help="Hypotheses of a second system, compared with the first.", show_default=False)
    ] = None,
    unit: Annotated[str, typer.Option(help="word, char, or mixed (Han characters and whole Latin words).")] = "word",
    normalizer: Annotated[str, typer.Option(help="none, basic, english or mandarin; applied to both sides.")] = "none",
    input_format: Annotated[
        str, typer.Option(help="auto, plain, kaldi, trn, csv, tsv, jsonl, stm or ctm; of every file.")
    ] = "auto",
    hypothesis_format: Annotated[
        str | None, typer.Option(help="Format of the hypotheses where it is another.", show_default=False)
    ] = None,
    allow_missing: Annotated[bool, typer.Option(help="Score utterances without hypothesis as empty.")] = False,
    alignment_costs: Annotated[
        str, typer.Option(help="levenshtein, or sclite (4 for a substitution, 3 for an insertion or deletion).")
    ] = "levenshtein",
    speakers: Annotated[
        Path | None, typer.Option(help="Speaker of each utterance: '<utterance> <speaker>' lines.", show_default=False)
    ] = None,
    alignment: Annotated[Path | None, typer.Option(help="Write the aligned pairs to this file.", show_default=False)] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that opens offline.", show_default=False)] = None,
    html_utterances: Annotated[int, typer.Option(min=1, help="Utterances on the page: those with most errors.")] = 2000,
    audio: Annotated[
        Path | None, typer.Option(help="Folder of audio named as the utterances, to play.", show_default=False)
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", help="Write all figures as JSON; - for stdout.", show_default=False)
    ] = None,
    bootstrap_samples: Annotated[
        int | None, typer.Option(min=100, help="Sets drawn for each interval.", show_default="10000")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Score hypotheses against references: error rate with interval, where the errors are, and which system is better.

    Reads plain text line by line, Kaldi text, trn, csv, tsv, jsonl, STM and CTM.
    """
    from asr.scoring.command import score_files

    text = score_files(
        reference,
        [hypothesis, *([hypothesis_b] if hypothesis_b else [])],
        unit=unit,
        normalizer=normalizer,
        reference_format=input_format,
        hypothesis_format=hypothesis_format or input_format,
        allow_missing=allow_missing,
        costs=alignment_costs,
        speakers=speakers,
        alignment=alignment,
        page=html,
        page_utterances=html_utterances,
        audio=audio,
        json_file=None if json_file in (None, "-") else Path(json_file or ""),
        as_json=json_file == "-",
        samples=bootstrap_samples,
        seed=seed,
    )
    print(text)
