"""One command, ``asr``, with sub-commands. The only module that prints or parses arguments.

Heavy imports stay inside the commands, so that ``asr --help`` answers at once.
"""

from __future__ import annotations

import shlex
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


class TextFormat(str, Enum):
    """Formats of a transcript."""

    txt = "txt"
    json = "json"


class DecoderChoice(str, Enum):
    """Parts of a model that write text."""

    autoregressive = "autoregressive"
    ctc = "ctc"


class DeviceChoice(str, Enum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class StorageChoice(str, Enum):
    """Types of weights on disk."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"


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


@app.command()
def transcribe(
    paths: Annotated[list[Path], typer.Argument(help="Audio files, or folders that are searched for them.", show_default=False)],
    model: Annotated[str, typer.Option(help="Embedded model or checkpoint folder.")] = "en",
    output_dir: Annotated[Path | None, typer.Option(help="Write a file for each recording here.", show_default=False)] = None,
    output_format: Annotated[TextFormat, typer.Option("--format", help="Of the output.")] = TextFormat.txt,
    decoder: Annotated[DecoderChoice | None, typer.Option(help="Part of the model that writes.", show_default=False)] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Segments decoded together.")] = 8,
    device: Annotated[DeviceChoice, typer.Option(help="Where to compute.")] = DeviceChoice.auto,
) -> None:
    """Transcribe audio files. One file without --output-dir prints its text alone on stdout."""
    from asr.transcription import outputs
    from asr.transcription.transcriber import Failure, load

    found = outputs.find(paths)
    if len(found) > 1 and output_dir is None:
        raise AsrError(f"{len(found)} recordings were given; name a folder for their texts with --output-dir.")
    transcriber = load(model, device.value, decoder.value if decoder else None, batch_size)
    failed = 0
    for number, ((path, name), result) in enumerate(
        zip(found, transcriber.transcribe_all(path for path, _ in found), strict=True), start=1
    ):
        if isinstance(result, Failure):
            failed += 1
            print(f"asr: {result.error}", file=sys.stderr)
        elif output_dir is None:
            sys.stdout.write(outputs.render(result, output_format.value))
        else:
            target = outputs.write(result, output_dir / name, output_format.value)
            print(f"[{number}/{len(found)}] {path} -> {target}", file=sys.stderr)
    if failed:
        if len(found) > 1:
            print(f"asr: {failed} of {len(found)} recordings failed.", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def train(
    configuration: Annotated[Path, typer.Argument(help="Recipe, a YAML file.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value in place of the recipe's values.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
) -> None:
    """Train a recipe; checkpoints, log.jsonl and curves.png go to its output folder."""
    from asr import configuration as settings
    from asr.training.configuration import Recipe
    from asr.training.loop import train as run
    from asr.training.progress import ProgressBar

    recipe = settings.load(configuration, Recipe, overrides or [])
    with ProgressBar() as monitor:
        folder = run(recipe, monitor, resume)
    print(folder)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Embedded model or checkpoint folder.", show_default=False)],
    manifest: Annotated[Path, typer.Argument(help="Manifest or csv/jsonl table.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder for hypotheses, scores and the results row.", show_default=False)],
    decoder: Annotated[DecoderChoice | None, typer.Option(help="Part of the model that writes.", show_default=False)] = None,
    unit: Annotated[str, typer.Option(help="word, char or mixed.")] = "word",
    normalizer: Annotated[str, typer.Option(help="none, basic, english or mandarin.")] = "english",
    batch_size: Annotated[int, typer.Option(min=1, help="Utterances decoded together.")] = 16,
    device: Annotated[DeviceChoice, typer.Option(help="Where to compute.")] = DeviceChoice.auto,
    readme: Annotated[Path | None, typer.Option(help="README whose results table gets the row.", show_default=False)] = None,
) -> None:
    """Decode a manifest, score it, and write a row of the results table."""
    from asr.transcription.evaluation import evaluate as run

    result = run(
        model,
        manifest,
        output,
        decoder=decoder.value if decoder else None,
        unit=unit,
        normalizer=normalizer,
        batch_size=batch_size,
        device=device.value,
        readme=readme,
        command=shlex.join(["asr", *sys.argv[1:]]),
    )
    print(result)


@app.command()
def average(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoint folders of one kind of model.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder of the average.", show_default=False)],
    weights: Annotated[str | None, typer.Option(help="Share of each, as 0.5,0.5; equal if left out.", show_default=False)] = None,
    storage: Annotated[StorageChoice, typer.Option(help="Type of the weights on disk.")] = StorageChoice.float32,
) -> None:
    """Average checkpoints: the last epochs of a run, or a fine-tuned model with its parent."""
    from asr.training.checkpoints import average as run

    try:
        shares = [float(share) for share in weights.split(",")] if weights else None
    except ValueError as error:
        raise AsrError(f"--weights '{weights}': is not a list of numbers; write 0.5,0.5.") from error
    run(checkpoints, output, shares, storage.value)
    print(output)


@app.command(name="import-whisper")
def import_whisper(
    source: Annotated[Path, typer.Argument(help="OpenAI .pt, ggml .bin or Hugging Face folder.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Checkpoint folder to write.", show_default=False)],
    vocabulary: Annotated[Path | None, typer.Option(help=".tiktoken or vocab.json for a .pt.", show_default=False)] = None,
    storage: Annotated[StorageChoice, typer.Option(help="Type of the weights on disk.")] = StorageChoice.float16,
) -> None:
    """Turn Whisper's published weights into a checkpoint of this project."""
    from asr.model import checkpoint, whisper

    card = f"# {source.stem}\n\nWhisper's published weights (OpenAI, MIT licence), imported from `{source.name}`.\n"
    checkpoint.save(whisper.convert(source, vocabulary), output, card, storage.value)
    print(output)


def main() -> None:
    """Run the command line; a failure that a user can meet is one sentence on stderr and exit code 1."""
    try:
        app()
    except AsrError as error:
        print(f"asr: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
