"""``asr transcribe``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli import decoding
from asr.cli.root import INTERRUPTED, Device, DeviceChoice, Precision, PrecisionChoice, app, imports, precision_for
from asr.exceptions import AsrError

if TYPE_CHECKING:
    from asr.transcription.languages import Polyglot
    from asr.transcription.recordings import Recording
    from asr.transcription.transcriber import Transcriber
    from asr.transcription.transcript import Transcript

_CODES = (
    "Exit code: 0 all was transcribed, 1 something failed and is named on stderr, 2 the command was not understood, "
    "130 interrupted (finished files are complete)."
)


class NumbersChoice(str, Enum):
    """How Mandarin numbers are written."""

    chinese = "chinese"
    digits = "digits"


class ScriptChoice(str, Enum):
    """Which Chinese characters are written."""

    simplified = "simplified"
    traditional = "traditional"


@app.command(epilog=_CODES)
def transcribe(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Audio or video files, folders that are searched for them, patterns as 'talks/*.mp3', or - for stdin: "
            "a sound file, or samples without header (16 bit, mono, see --pcm-rate).",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Embedded model or checkpoint folder.", show_default="the language's embedded one")
    ] = None,
    language: Annotated[
        str, typer.Option(help="Of the speech: en, zh, another that the model named knows, or auto: as heard.")
    ] = "auto",
    numbers: Annotated[
        NumbersChoice | None, typer.Option(help="Mandarin numbers as numerals or in digits.", show_default="as heard")
    ] = None,
    script: Annotated[
        ScriptChoice | None, typer.Option(help="Chinese characters.", show_default="as the model writes them")
    ] = None,
    punctuation: Annotated[bool, typer.Option(help="Mandarin text gets the marks of the model's punctuation model.")] = True,
    output_dir: Annotated[Path | None, typer.Option(help="Write files for each recording here.", show_default=False)] = None,
    output_format: Annotated[
        str, typer.Option("--format", help="txt, json, srt, vtt, tsv, ctm or textgrid, or several as srt,json.")
    ] = "txt",
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Times and confidence of each word also where only json holds them.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also transcribe what --output-dir already has.")] = False,
    vad: Annotated[bool, typer.Option(help="Leave out what is not speech, or cut where it is quietest.")] = True,
    channel: Annotated[
        str | None,
        typer.Option(help="Number of the channel to hear, or 'each' for one speaker a channel; else mixed.", show_default=False),
    ] = None,
    track: Annotated[int, typer.Option(min=0, help="Audio track of a video.")] = 0,
    watch: Annotated[
        Path | None, typer.Option(help="Transcribe what appears in this folder, until Ctrl-C.", show_default=False)
    ] = None,
    pcm_rate: Annotated[int, typer.Option(min=1000, help="Rate in Hz of samples without header on stdin.")] = 16000,
    decoder: decoding.Decoder = None,
    beam_size: decoding.BeamSize = None,
    ctc_weight: decoding.CtcWeight = None,
    length_bonus: decoding.LengthBonus = None,
    length_normalization: decoding.LengthNormalization = None,
    stop_threshold: decoding.StopThreshold = None,
    minimum_length: decoding.MinimumLength = 0.0,
    iterations: decoding.Iterations = None,
    length_by: decoding.LengthBy = None,
    length_candidates: decoding.LengthCandidates = None,
    language_model: decoding.LanguageModelFile = None,
    language_model_weight: decoding.LanguageModelWeight = None,
    phrases: decoding.PhrasesFile = None,
    phrase_bonus: decoding.PhraseBonus = decoding.PHRASE_BONUS,
    lexicon: decoding.LexiconFile = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Segments decoded together.")] = 8,
    device: Device = DeviceChoice.auto,
    precision: Precision = PrecisionChoice.auto,
) -> None:
    """Transcribe audio files. One file without --output-dir prints its text alone on stdout.

    With --output-dir, what is already there and not older than its recording is skipped.
    """
    with imports():
        from asr.transcription import formats, languages, outputs, recordings
        from asr.transcription.transcriber import load

    wanted = formats.parse(output_format)
    if bool(paths) == (watch is not None):
        raise typer.BadParameter("give recordings, or a folder with --watch", param_hint="PATHS")
    if output_dir is not None:
        outputs.check_folder(output_dir)
    elif watch is not None:
        raise AsrError("--watch: needs a place for the texts; name a folder with --output-dir.")
    elif len(wanted) > 1:
        raise AsrError(f"{len(wanted)} formats were asked for; name a folder for them with --output-dir.")
    with ExitStack() as stack:
        found: list[tuple[Path, Path]] = []
        if paths is not None and recordings.STANDARD_INPUT in paths:
            spooled = stack.enter_context(recordings.spooled(sys.stdin.buffer, pcm_rate))
            found.append((spooled, Path(spooled.name)))
        found += recordings.find(path for path in paths or () if path != recordings.STANDARD_INPUT)
        if len(found) > 1 and output_dir is None:
            raise AsrError(f"{len(found)} recordings were given; name a folder for their texts with --output-dir.")
        options = decoding.options(
            decoder,
            language_model,
            phrases,
            phrase_bonus,
            lexicon,
            language_model_weight=language_model_weight,
            beam_size=beam_size,
            ctc_weight=ctc_weight,
            length_bonus=length_bonus,
            length_normalization=length_normalization,
            stop_threshold=stop_threshold,
            minimum_length=minimum_length,
            iterations=iterations,
            length_by=length_by.value if length_by else None,
            length_candidates=length_candidates,
        )

        arithmetic = precision_for(precision, device)

        def load_model(name: str, spoken: str | None = None) -> Transcriber:
            words = timestamps or bool(formats.NEED_WORDS.intersection(wanted))
            return load(name, device.value, options, batch_size, vad, words, arithmetic, spoken, punctuation)

        def load_listener(name: str) -> Transcriber:
            return load(name, device.value, precision=arithmetic)

        work = _Work(
            lambda: load_model(model, language) if model is not None else languages.load(load_model, language, load_listener),
            output_dir,
            wanted,
            overwrite,
            channel,
            track,
            lambda result: languages.written(
                result, numbers.value if numbers is not None else None, script.value if script is not None else None
            ),
        )
        try:
            failed = work.run(found) if watch is None else work.watch(watch)
        except KeyboardInterrupt:
            print("asr: interrupted; finished files are complete.", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
    if failed:
        raise typer.Exit(1)


class _Work:
    """What one call does to any number of recordings, with one model that is loaded when it is first needed."""

    def __init__(
        self,
        load: Callable[[], Transcriber | Polyglot],
        output_dir: Path | None,
        wanted: Sequence[str],
        overwrite: bool,
        channel: str | None,
        track: int,
        write: Callable[[Transcript], Transcript],
    ) -> None:
        self.load, self.output_dir, self.wanted, self.overwrite = load, output_dir, wanted, overwrite
        self.channel, self.track, self.write = channel, track, write
        self.transcriber: Transcriber | Polyglot | None = None

    def run(self, found: Sequence[tuple[Path, Path]]) -> int:
        """Transcribe recordings, each with its output's name; return how many failed."""
        from asr.transcription import outputs

        failed = skipped = 0
        todo: list[tuple[Path, Path]] = []
        for path, name in found:
            if self.output_dir is not None and not self.overwrite:
                targets = outputs.targets(self.output_dir / name, self.wanted)
                if outputs.is_done(path, targets):
                    skipped += 1
                    continue
            todo.append((path, name))
        if skipped:
            print(f"asr: {skipped} of {len(found)} recordings are done already; --overwrite does them again.", file=sys.stderr)
        if not todo:
            return 0
        self.transcriber = self.transcriber or self.load()
        with _progress([path for path, _ in todo]) as (report, say):
            results = _whole_files(self.transcriber, [path for path, _ in todo], self.channel, self.track, report)
            for number, ((path, name), result) in enumerate(zip(todo, results, strict=True), start=1):
                try:
                    if isinstance(result, AsrError):
                        raise result
                    for warning in result.warnings:
                        say(f"asr: {warning}")
                    self._deliver(f"[{number}/{len(todo)}] {path}", name, self.write(result), say)
                except AsrError as error:
                    failed += 1
                    say(f"asr: {error}")
        if failed and len(todo) > 1:
            print(f"asr: {failed} of {len(todo)} recordings failed.", file=sys.stderr)
        return failed

    def watch(self, folder: Path) -> int:
        """Transcribe what appears in a folder, until Ctrl-C; return how many failed."""
        from asr.transcription import recordings

        failed = 0
        print(f"asr: watching {folder}; Ctrl-C ends.", file=sys.stderr)
        looks = recordings.watch(folder)
        while True:
            try:
                ready = next(looks)
                failed += self.run([(path, path.relative_to(folder)) for path in ready]) if ready else 0
            except KeyboardInterrupt:
                return failed

    def _deliver(self, title: str, name: Path, result: Transcript, say: Callable[[str], None]) -> None:
        from asr.transcription import formats, outputs

        if self.output_dir is None:
            sys.stdout.write(formats.render(result, self.wanted[0]))
        else:
            written = outputs.write(result, self.output_dir / name, self.wanted)
            say(f"{title} -> {', '.join(map(str, written))}")


def _whole_files(
    transcriber: Transcriber | Polyglot, paths: Sequence[Path], channel: str | None, track: int, report: Callable[[float], None]
) -> Iterator[Transcript | AsrError]:
    """Transcripts of files in order; one that is heard channel by channel is put together again."""
    from asr.transcription.transcript import Failure, merge

    parts: list[list[Recording] | AsrError] = []
    for path in paths:
        try:
            parts.append(_channels(path, channel, track))
        except AsrError as error:
            parts.append(error)
    results = transcriber.transcribe_all((each for part in parts if isinstance(part, list) for each in part), report)
    for part in parts:
        if isinstance(part, AsrError):
            yield part
            continue
        found = [next(results) for _ in part]
        whole = [each for each in found if not isinstance(each, Failure)]
        failures = [each for each in found if isinstance(each, Failure)]
        if failures:
            yield failures[0].error
        else:
            yield merge(whole) if channel == "each" else whole[0]


def _channels(path: Path, channel: str | None, track: int) -> list[Recording]:
    from asr.audio import files
    from asr.transcription.recordings import Recording

    if channel is None:
        return [Recording(path, track=track)]
    if channel == "each":
        return [Recording(path, n, track, f"channel {n}") for n in range(files.count_channels(path))]
    if not channel.isdecimal():
        raise AsrError(f"--channel '{channel}': is no channel; give a number from 0, or 'each'.")
    return [Recording(path, int(channel), track)]


@contextmanager
def _progress(paths: Sequence[Path]) -> Iterator[tuple[Callable[[float], None], Callable[[str], None]]]:
    """A bar over seconds of audio on a terminal; otherwise lines only. Gives what to call with seconds and with lines."""
    if not sys.stderr.isatty():
        yield (lambda _: None), (lambda line: print(line, file=sys.stderr, flush=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from asr.audio import files

    lengths = [files.estimate(path) for path in paths]
    known = [length for length in lengths if length]
    # A file that does not say how long it is counts as the average of the others.
    total = sum(known) / len(known) * len(lengths) if known else None
    console = Console(stderr=True)
    columns = (TextColumn("{task.fields[done]} s"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[speed]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=total, done="0", speed="")
        began, seconds = time.perf_counter(), 0.0

        def report(more: float) -> None:
            nonlocal seconds
            seconds += more
            speed = seconds / max(time.perf_counter() - began, 1e-3)
            bar.update(task, completed=seconds, done=f"{seconds:.0f}", speed=f"{speed:.1f}x")

        yield report, lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
