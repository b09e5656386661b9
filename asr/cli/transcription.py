"""``asr transcribe``."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from asr.cli import decoding
from asr.cli.root import DeviceChoice, app
from asr.exceptions import AsrError


class TextFormat(str, Enum):
    """Formats of a transcript."""

    txt = "txt"
    json = "json"


@app.command()
def transcribe(
    paths: Annotated[list[Path], typer.Argument(help="Audio files, or folders that are searched for them.", show_default=False)],
    model: Annotated[str, typer.Option(help="Embedded model or checkpoint folder.")] = "en",
    output_dir: Annotated[Path | None, typer.Option(help="Write a file for each recording here.", show_default=False)] = None,
    output_format: Annotated[TextFormat, typer.Option("--format", help="Of the output.")] = TextFormat.txt,
    decoder: decoding.Decoder = None,
    beam_size: decoding.BeamSize = None,
    ctc_weight: decoding.CtcWeight = None,
    length_bonus: decoding.LengthBonus = None,
    language_model: decoding.LanguageModelFile = None,
    language_model_weight: decoding.LanguageModelWeight = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Segments decoded together.")] = 8,
    device: Annotated[DeviceChoice, typer.Option(help="Where to compute.")] = DeviceChoice.auto,
) -> None:
    """Transcribe audio files. One file without --output-dir prints its text alone on stdout."""
    from asr.transcription import outputs
    from asr.transcription.transcriber import Failure, load

    found = outputs.find(paths)
    if len(found) > 1 and output_dir is None:
        raise AsrError(f"{len(found)} recordings were given; name a folder for their texts with --output-dir.")
    transcriber = load(
        model,
        device.value,
        decoding.options(
            decoder,
            language_model,
            language_model_weight=language_model_weight,
            beam_size=beam_size,
            ctc_weight=ctc_weight,
            length_bonus=length_bonus,
        ),
        batch_size,
    )
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
