"""What is done to models: ``asr average``, ``asr import-whisper``, ``asr calibrate`` and ``asr distill``."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from asr.cli import decoding
from asr.cli.root import Device, DeviceChoice, app
from asr.exceptions import AsrError


class StorageChoice(str, Enum):
    """Types of weights on disk."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"
    int6 = "int6"


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
    source: Annotated[
        Path,
        typer.Argument(
            help="OpenAI .pt, ggml .bin, Hugging Face folder, or a name from tiny.en to large-v3 to download.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option(help="Checkpoint folder to write.", show_default=False)],
    vocabulary: Annotated[Path | None, typer.Option(help=".tiktoken or vocab.json for a .pt.", show_default=False)] = None,
    storage: Annotated[StorageChoice, typer.Option(help="Type of the weights on disk.")] = StorageChoice.float16,
) -> None:
    """Turn Whisper's published weights into a checkpoint of this project."""
    from asr.model import checkpoint, whisper, whisper_download

    if not source.exists() and len(source.parts) == 1 and source.suffix not in (".pt", ".bin"):
        source, given = whisper_download.fetch_model(source.name)
        vocabulary = vocabulary or given
    card = f"# {source.stem}\n\nWhisper's published weights (OpenAI, MIT licence), imported from `{source.name}`.\n"
    checkpoint.save(whisper.convert(source, vocabulary), output, card, storage.value)
    print(output)


@app.command(name="adapt-vocabulary")
def adapt_vocabulary(
    model: Annotated[str, typer.Argument(help="Embedded model or checkpoint folder with byte pairs.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Checkpoint folder to write.", show_default=False)],
    words: Annotated[
        Path | None,
        typer.Option(help="Keep the byte pairs of this text: a word and its count, or text, a line.", show_default=False),
    ] = None,
    size: Annotated[int, typer.Option(min=256, help="Byte pairs to keep, at most, with --words.")] = 20_000,
    like: Annotated[
        str | None, typer.Option(help="Keep the byte pairs of this checkpoint folder or embedded model.", show_default=False)
    ] = None,
    characters: Annotated[
        Path | None, typer.Option(help="Write the characters of this text instead of byte pairs.", show_default=False)
    ] = None,
    merge: Annotated[
        Path | None,
        typer.Option(help="Write each character of this text in one step, beside the byte pairs.", show_default=False),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(help="The only language of a multilingual model from now on.", show_default=False),
    ] = None,
) -> None:
    """Give a trained model another vocabulary: fewer byte pairs, characters among them, or characters alone."""
    from asr import pretrained
    from asr.model import checkpoint, vocabulary

    if sum(choice is not None for choice in (words, like, characters, merge)) != 1:
        raise typer.BadParameter("give one of --words, --like, --characters and --merge", param_hint="--words")
    whole = checkpoint.load(pretrained.find(model))
    if language is not None:
        whole = vocabulary.for_language(whole, language)
    if words is not None:
        adapted = vocabulary.prune(whole, vocabulary.read_counts(words), size)
    elif like is not None:
        adapted = vocabulary.prune_like(whole, checkpoint.load(pretrained.find(like)))
    elif merge is not None:
        adapted = vocabulary.merge_characters(whole, vocabulary.read_characters(merge))
    else:
        assert characters is not None
        adapted = vocabulary.to_characters(whole, vocabulary.read_characters(characters))
    checkpoint.save(
        adapted, output, f"# {output.name}\n\n{Path(model).name} with {len(adapted.tokenizer):,} tokens.\n", "float16"
    )
    print(output)


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="Embedded model or checkpoint folder.", show_default=False)],
    manifest: Annotated[Path, typer.Argument(help="Held-aside utterances: manifest or csv/jsonl table.", show_default=False)],
    device: Device = DeviceChoice.auto,
    batch_size: Annotated[int, typer.Option(min=1, help="Utterances decoded together.")] = 16,
    write: Annotated[bool, typer.Option(help="Store the result in the checkpoint's config.yaml and model card.")] = True,
) -> None:
    """Make the confidence of words hold: fit it on half of a manifest, measure its error on the other half."""
    from asr.transcription.calibration import calibrate as run

    print(run(model, manifest, device.value, batch_size, write).describe())


@app.command()
def distill(
    model: Annotated[str, typer.Argument(help="The teacher: embedded model or checkpoint folder.", show_default=False)],
    manifest: Annotated[Path, typer.Argument(help="Manifest or csv/jsonl table.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Manifest to write, .jsonl.gz.", show_default=False)],
    decoder: decoding.Decoder = None,
    beam_size: decoding.BeamSize = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Utterances decoded together.")] = 16,
    language: Annotated[str | None, typer.Option(help="Ask for this language, a code; also of a model made for another.")] = None,
    device: Device = DeviceChoice.auto,
) -> None:
    """Write a manifest with a model's texts in place of the transcripts, for another model to learn from."""
    from asr.transcription.distillation import distill as run

    options = decoding.options(decoder, beam_size=beam_size)
    result = run(model, manifest, output, options=options, batch_size=batch_size, device=device.value, language=language)
    for failure in result.failures:
        print(f"asr: {failure}", file=sys.stderr)
    print(
        f"{result.manifest}: {result.written} utterances, {result.changed} with other words than the transcript; "
        f"left out: {result.empty} empty, {result.unfinished} unfinished, {len(result.failures)} unreadable"
    )
    if result.failures:
        raise typer.Exit(1)
