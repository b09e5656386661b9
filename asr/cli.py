"""One command, ``asr``, with sub-commands. The only module that prints or parses arguments.

Heavy imports stay inside the commands, so that ``asr --help`` answers at once.
"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from asr.exceptions import AsrError

app = typer.Typer(
    name="asr",
    help="Speech recognition: transcribe audio files, train on recipes, score word error rates.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def root() -> None:
    """Speech recognition: transcribe audio files, train on recipes, score word error rates."""


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


class Corpus(str, Enum):
    """The corpora whose own folder layouts are known."""

    librispeech = "librispeech"
    aishell = "aishell"


@app.command()
def prepare(
    corpus: Annotated[Corpus, typer.Argument(show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="CORPUS_DIR", help="Where the corpus is.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder for the manifests.", show_default=False)],
    download: Annotated[bool, typer.Option("--download", help="First fetch the official archives.")] = False,
    subset: Annotated[
        list[str] | None, typer.Option(help="LibriSpeech: only this subset; may be given again.", show_default=False)
    ] = None,
) -> None:
    """Check a corpus and write one manifest for each of its subsets."""
    from rich.console import Console
    from rich.table import Table

    from asr.corpora import aishell, librispeech

    if corpus is Corpus.aishell:
        if subset:
            raise typer.BadParameter("is for librispeech; AISHELL-1 comes whole", param_hint="--subset")
        preparation = aishell.prepare(folder, output, download)
    else:
        preparation = librispeech.prepare(folder, output, download, subset or ())
    table = Table("subset", "complete")
    for column in ("utterances", "hours", "speakers", "words", "characters"):
        table.add_column(column, justify="right")
    for part in preparation.subsets:
        complete = {True: "yes", False: "no", None: ""}[part.complete]
        counts = (f"{part.utterances:,}", f"{part.hours:.2f}", f"{part.speakers:,}", f"{part.words:,}")
        table.add_row(part.name, complete, *counts, f"{part.characters:,}")
    Console().print(table)
    print(f"{preparation.corpus} -> {', '.join(str(part.manifest) for part in preparation.subsets)}")
    for warning in (*preparation.warnings, *(warning for part in preparation.subsets for warning in part.warnings)):
        print(f"asr: {warning}", file=sys.stderr)


def main() -> None:
    """Run the command line; a failure that a user can meet is one sentence on stderr and exit code 1."""
    try:
        app()
    except AsrError as error:
        print(f"asr: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
