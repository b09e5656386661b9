"""``asr synthesize`` and ``asr sentences``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from asr.cli.root import app


@app.command()
def synthesize(
    text: Annotated[Path, typer.Argument(help="Mandarin sentences, one a line, numbers written out.", show_default=False)],
    model: Annotated[Path, typer.Option(help="Kokoro's ONNX file, its tokenizer.json beside it.", show_default=False)],
    voices: Annotated[Path, typer.Option(help="Folder of Kokoro's voices (.bin).", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder for audio, table.jsonl and shar.", show_default=False)],
    hours: Annotated[float, typer.Option(min=0, help="Stop when there are so many hours of speech.")] = 15.0,
    voice: Annotated[
        list[str] | None, typer.Option(help="A voice that speaks; may be given again.", show_default="zf_*, zm_*")
    ] = None,
    timbre: Annotated[
        list[str] | None,
        typer.Option(help="A voice that lends only its sound; may be given again.", show_default="those of other languages"),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="A voice to leave out; may be given again.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the voices drawn.")] = 0,
) -> None:
    """Make a corpus of Mandarin speech with Kokoro; the same command goes on where it stopped."""
    from asr.exceptions import ConfigurationError
    from asr.synthesis import corpus
    from asr.synthesis.kokoro import Kokoro, read_voices

    try:
        sentences = [line for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{text}: cannot be read ({error}); give UTF-8 text, one sentence a line.") from error
    found = read_voices(voices)
    left_out = set(without or ())
    speaking = [name for name in voice or [name for name in found if name.startswith("z")] if name not in left_out]
    timbres = timbre if timbre is not None else [name for name in found if not name.startswith("z")]
    timbres = [name for name in timbres if name not in left_out and name not in speaking]
    used = read_voices(voices, [*speaking, *timbres])
    total = 0.0
    for number, total in enumerate(corpus.synthesize(Kokoro(model), sentences, used, timbres, output, hours, seed), start=1):
        if number % 100 == 0:
            print(f"{number} sentences, {total:.3f} h", file=sys.stderr, flush=True)
    shards = corpus.pack(output)
    print(f"{total:.3f} h -> {output / corpus.TABLE}, {len(shards)} shards in {output / 'shar'}")


@app.command()
def sentences(
    sources: Annotated[list[Path], typer.Argument(help="Texts, UTF-8.", show_default=False)],
    output: Annotated[Path, typer.Option(help="File for the sentences, one a line.", show_default=False)],
    limit: Annotated[int, typer.Option(min=1, help="Sentences at most.")] = 20_000,
    templates: Annotated[int, typer.Option(min=0, help="Sentences by templates among them, at most every third.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the templates.")] = 0,
    choose: Annotated[bool, typer.Option("--choose/--all", help="Rare characters first, or all in order.")] = True,
) -> None:
    """Cut Mandarin texts into sentences to be spoken, so ordered that every common character is heard."""
    from asr.exceptions import ConfigurationError
    from asr.synthesis.sentences import clean, mix, select

    found: list[str] = []
    for source in sources:
        try:
            lines = source.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{source}: cannot be read ({error}); give UTF-8 text.") from error
        found += (sentence for line in lines for sentence in clean(line))
    chosen = list(select(found, limit)) if choose else list(dict.fromkeys(found))[:limit]
    if templates:
        from asr.synthesis.templates import templates as draw

        chosen = list(mix(chosen, draw(templates, seed)))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("".join(f"{sentence}\n" for sentence in chosen), encoding="utf-8")
    print(f"{len(chosen):,} of {len(found):,} sentences -> {output}")
