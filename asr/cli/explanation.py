"""``asr explain``."""

from __future__ import annotations

import sys
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
    model: Annotated[
        str | None,
        typer.Option(help="Embedded model or checkpoint folder; left out: of the language that is heard.", show_default=False),
    ] = None,
    start: Annotated[float, typer.Option(min=0, help="Seconds from the recording's beginning.")] = 0.0,
    duration: Annotated[float | None, typer.Option(help="Seconds of it.", show_default=False)] = None,
    device: Device = DeviceChoice.auto,
) -> None:
    """Show how the model came to its text: every step, its candidates, and where it listened."""
    from asr.transcription import decoders_picture, explanation_page, explanation_picture, languages
    from asr.transcription.explanation import explain as run
    from asr.transcription.recordings import Recording
    from asr.transcription.transcriber import Transcriber, load

    if output is None and png is None and decoders is None:
        raise typer.BadParameter("name a page with --output, a picture with --png, or both", param_hint="--output")

    def load_model(name: str) -> Transcriber:
        return load(name, device.value, precision="float32")

    heard = languages.load(load_model) if model is None else load_model(model)
    if isinstance(heard, languages.Polyglot):
        heard = heard.of(heard.identify(Recording(audio)))
    checkpoint = heard.checkpoint
    name = "" if checkpoint.folder is None else checkpoint.folder.name
    drawn = True
    if decoders is not None:
        known = decoders_picture.known_tokens(checkpoint, audio, start, duration)
        drawn &= decoders_picture.write(known, decoders, f"{audio.name}, model {name}")
        print(decoders)
    found = run(checkpoint, audio, start, duration) if output is not None or png is not None else None
    if found is not None and output is not None:
        explanation_page.write(found, output, name)
        print(output)
    if found is not None and png is not None:
        drawn &= explanation_picture.write(found, png, name)
        print(png)
    if not drawn:
        print(
            "asr: no font here has all characters of the picture, the others are boxes; install Noto Sans CJK, or write a page "
            "with --output.",
            file=sys.stderr,
        )
