"""``asr prepare`` and ``asr readable``."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from asr.cli.root import Device, DeviceChoice, Precision, PrecisionChoice, app, precision_for


class Corpus(str, Enum):
    """The corpora whose own folder layouts are known."""

    librispeech = "librispeech"
    aishell = "aishell"
    hsk_words = "hsk-words"


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

    from asr.corpora import aishell, hsk, librispeech

    if subset and corpus is not Corpus.librispeech:
        raise typer.BadParameter(f"is for librispeech; {corpus.value} comes whole", param_hint="--subset")
    if corpus is Corpus.hsk_words:
        if download:
            raise typer.BadParameter("is not for hsk-words; fetch the recordings yourself", param_hint="--download")
        preparation = hsk.prepare(folder, output)
    elif corpus is Corpus.aishell:
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


@app.command()
def readable(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests or tables of English speech.", show_default=False)],
    model: Annotated[str, typer.Option(help="Model that hears capitals and punctuation.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Table (.jsonl) to write.", show_default=False)],
    batch_size: Annotated[int, typer.Option(min=1, help="Utterances decoded together.")] = 16,
    device: Device = DeviceChoice.auto,
    precision: Precision = PrecisionChoice.auto,
) -> None:
    """Give a training set's transcripts capitals and punctuation, as a model hears them; the words stay."""
    from asr.transcription.readable import write_table
    from asr.transcription.transcriber import load

    transcriber = load(model, device.value, batch_size=batch_size, precision=precision_for(precision, device))
    print(f"{write_table(transcriber, manifests, output)} utterances -> {output}")
