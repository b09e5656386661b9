"""``asr listen``."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asr.cli import decoding
from asr.cli.root import INTERRUPTED, Device, DeviceChoice, app, imports
from asr.exceptions import ConfigurationError

if TYPE_CHECKING:
    from asr.audio.microphone import Microphone
    from asr.audio.sources import Samples
    from asr.transcription.transcriber import Transcriber

_CODES = "Exit code: 0 it was ended by Ctrl-C or --input was heard, 1 it failed, 2 it was not understood, 130 by a second Ctrl-C."


@app.command(epilog=_CODES)
def listen(
    source: Annotated[
        Path | None,
        typer.Option("--input", help="A file, heard at the pace of speech, instead of the microphone.", show_default=False),
    ] = None,
    microphone: Annotated[
        str | None, typer.Option(help="Number of the microphone, or part of its name.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Embedded model or checkpoint folder.", show_default="the language's embedded one")
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            help="Of the speech: zh, another that the model named knows, or auto: as heard in each sentence alone, which short "
            "ones and accents make hard.",
            show_default="en, or what the model named is set to",
        ),
    ] = None,
    punctuation: Annotated[bool, typer.Option(help="Mandarin text gets the marks of the model's punctuation model.")] = True,
    times: Annotated[bool, typer.Option(help="Print when each sentence was said.")] = False,
    decoder: decoding.Decoder = None,
    device: Device = DeviceChoice.auto,
) -> None:
    """Transcribe the microphone: text is printed as sentences end, until Ctrl-C, and then what was said so far."""
    from asr.audio import files
    from asr.audio.microphone import Microphone

    # Before the model is loaded, so that nobody waits to be told that there is none.
    heard = Microphone(microphone) if source is None else None
    if source is not None:
        files.inspect(source)

    with imports():
        from asr.transcription import languages, listening
        from asr.transcription.transcriber import load

    options = decoding.options(decoder, None)

    def load_model(name: str, spoken: str | None = None) -> Transcriber:
        return load(name, device.value, options, 1, language=spoken, punctuation=punctuation)

    transcriber = load_model(model, language) if model is not None else languages.load(load_model, language or "en")
    if isinstance(transcriber, languages.Polyglot):
        # Nobody waits for a model in the middle of what they say, nor is told then that it cannot do what was asked.
        try:
            for code in transcriber.languages:
                transcriber.of(code)
        except ConfigurationError as error:
            raise ConfigurationError(f"{str(error).rstrip('.')}, or name the language that is spoken with --language.") from error
    try:
        with _until_interrupted() as stop:
            if heard is not None:
                blocks = _announced(heard, stop)
            else:
                assert source is not None
                blocks = takewhile(lambda _: not stop.is_set(), listening.paced(source))
            for segment in listening.listen(transcriber, blocks):
                print(f"[{segment.start:.1f} - {segment.end:.1f}] {segment.text}" if times else segment.text, flush=True)
        if heard is not None and heard.losses:
            print(f"asr: gaps in the sound: {heard.losses}; this computer was too slow or too busy.", file=sys.stderr)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _announced(microphone: Microphone, stop: threading.Event) -> Iterator[Samples]:
    """The microphone's blocks; when the first one is there, a person is told that what is said now is heard."""
    for number, block in enumerate(microphone.blocks(stop)):
        if number == 0:
            print(f"asr: listening to '{microphone.name}'; Ctrl-C ends.", file=sys.stderr, flush=True)
        yield block


@contextmanager
def _until_interrupted() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that what was said is still written; the second one interrupts."""
    stop = threading.Event()

    def end(*_: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, end)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
