"""What is done to models: ``asr average`` and ``asr import-whisper``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from asr.cli.root import app
from asr.exceptions import AsrError


class StorageChoice(str, Enum):
    """Types of weights on disk."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"


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
