"""``asr listen``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli import decoding
from asr.cli.root import Device, DeviceChoice, app


@app.command()
def listen(
    source: Annotated[
        Path | None,
        typer.Option("--input", help="A file, heard at the pace of speech, instead of the microphone.", show_default=False),
    ] = None,
    microphone: Annotated[
        str | None, typer.Option(help="Number of the microphone, or part of its name.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option(help="Embedded model or checkpoint folder.")] = "en",
    times: Annotated[bool, typer.Option(help="Print when each sentence was said.")] = False,
    decoder: decoding.Decoder = None,
    device: Device = DeviceChoice.auto,
) -> None:
    """Transcribe the microphone: text is printed as sentences end, until Ctrl-C."""
    from asr.transcription import listening
    from asr.transcription.transcriber import load

    transcriber = load(model, device.value, decoding.options(decoder, None), 1)
    blocks = listening.microphone(microphone) if source is None else listening.paced(source)
    try:
        for segment in listening.listen(transcriber, blocks):
            print(f"[{segment.start:.1f} - {segment.end:.1f}] {segment.text}" if times else segment.text, flush=True)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
