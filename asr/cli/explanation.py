"""``asr explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli.root import Device, DeviceChoice, app


@app.command()
def explain(
    audio: Annotated[Path, typer.Argument(help="A recording of at most 30 s.", show_default=False)],
    output: Annotated[Path | None, typer.Option(help="Write a page that opens offline.", show_default=False)] = None,
    png: Annotated[Path | None, typer.Option(help="Write one still picture.", show_default=False)] = None,
    decoders: Annotated[
        Path | None,
        typer.Option(help="Write a picture of what both decoders of a model know at each step.", show_default=False),
    ] = None,
    model: Annotated[str, typer.Option(help="Embedded model or checkpoint folder.")] = "en",
    start: Annotated[float, typer.Option(min=0, help="Seconds from the recording's beginning.")] = 0.0,
    duration: Annotated[float | None, typer.Option(help="Seconds of it.", show_default=False)] = None,
    device: Device = DeviceChoice.auto,
) -> None:
    """Show how the model came to its text: every step, its candidates, and where it listened."""
    from asr.transcription import decoders_picture, explanation_page, explanation_picture
    from asr.transcription.explanation import explain as run
    from asr.transcription.transcriber import load

    if output is None and png is None and decoders is None:
        raise typer.BadParameter("name a page with --output, a picture with --png, or both", param_hint="--output")
    checkpoint = load(model, device.value, precision="float32").checkpoint
    name = Path(model).name
    if decoders is not None:
        known = decoders_picture.known_tokens(checkpoint, audio, start, duration)
        decoders_picture.write(known, decoders, f"{audio.name}, model {name}")
        print(decoders)
    if output is None and png is None:
        return
    found = run(checkpoint, audio, start, duration)
    if output is not None:
        explanation_page.write(found, output, name)
        print(output)
    if png is not None:
        explanation_picture.write(found, png, name)
        print(png)
